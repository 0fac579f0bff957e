"""Progress of a stage: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm


class Progress:
    """Show how far a stage is, on standard error.

    Parameters
    ----------
    stage : str
    steps : int
        Number of calls of :meth:`advance` that make the whole stage.
    shown : bool
        False for silence.
    """

    def __init__(self, stage: str, steps: int, shown: bool = True) -> None:
        self.stage = stage
        self.steps = steps
        self.shown = shown
        self.lines_apart = max(1, steps // 5)
        self.bar = tqdm(total=steps, desc=stage, leave=True) if shown and sys.stderr.isatty() else None

    def advance(self, told: str, step: int) -> None:
        """Count one step; ``told`` is shown beside it, ``step`` is the number of steps done."""
        if self.bar is not None:
            self.bar.set_postfix_str(told, refresh=False)
            self.bar.update(1)
        elif self.shown and (step % self.lines_apart == 0 or step == self.steps):
            print(f"{self.stage}: {step} of {self.steps}, {told}", file=sys.stderr, flush=True)

    def skip(self, steps: int) -> None:
        """Count steps that were done before."""
        if self.bar is not None:
            self.bar.update(steps)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
