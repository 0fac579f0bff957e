"""Compare what the hardware did with what it should have done, and refuse to pass on nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

SHOWN = 5


@dataclass
class Scoreboard:
    """Counts comparisons and mismatches.

    Parameters
    ----------
    what : str
        What is compared, for messages.
    """

    what: str
    compared: int = 0
    mismatches: int = 0
    messages: list[str] = field(default_factory=list)

    def compare(self, actual: np.ndarray, expected: np.ndarray, where: str, axes: Sequence[str] = ()) -> int:
        """Compare integers of the same shape; return how many differ.

        Parameters
        ----------
        actual, expected : ndarray of integers
        where : str
            What these are, for messages.
        axes : sequence of str
            Names of the axes, for messages.

        Raises
        ------
        AssertionError
            If the shapes differ or there is nothing to compare.
        """
        actual, expected = np.asarray(actual), np.asarray(expected)
        assert actual.shape == expected.shape, (
            f"{self.what}, {where}: {actual.shape} came where {expected.shape} was due"
        )
        assert expected.size, f"{self.what}, {where}: there is nothing to compare"
        self.compared += expected.size
        wrong = np.argwhere(actual != expected)
        self.mismatches += len(wrong)
        for index in wrong[: max(0, SHOWN - len(self.messages))]:
            place = ", ".join(
                f"{axes[axis] if axis < len(axes) else f'axis {axis}'} {position}"
                for axis, position in enumerate(index)
            )
            here = tuple(index)
            self.messages.append(f"{where} at {place}: {actual[here]} instead of {expected[here]}")
        return len(wrong)

    def finish(self, least: int = 1) -> int:
        """Return how many values were compared.

        Raises
        ------
        AssertionError
            If any differed, or fewer than ``least`` were compared.
        """
        assert self.compared >= least, f"{self.what}: only {self.compared} of at least {least} values were compared"
        assert not self.mismatches, (
            f"{self.what}: {self.mismatches} of {self.compared} values differ: {'; '.join(self.messages)}"
        )
        return self.compared
