"""What is told while a verb works, and how long its parts take."""

from __future__ import annotations

import sys
import time


def tell(line: str) -> None:
    """Write a line to standard error, at once."""
    print(line, file=sys.stderr, flush=True)


class Clock:
    """Seconds of each step, for the report."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, step: str) -> float:
        """Return, and keep, the seconds since the last lap."""
        now = time.perf_counter()
        self.seconds[step] = round(now - self._last, 2)
        self._last = now
        return self.seconds[step]
