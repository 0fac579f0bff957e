"""Compare stored tensors, code by code: integer model against PyTorch, or against the hardware.

There are no tolerances here, and no vacuous passes: a comparison of nothing is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Mismatch:
    """One code that differs, and where: in network order, then by image, channel, row and column."""

    assignment: str
    tensor: str
    form: str
    image: int
    channel: int
    row: int
    column: int
    expected: int
    found: int

    def __str__(self) -> str:
        return (
            f"{self.tensor} ({self.form}), image {self.image}, channel {self.channel}, row {self.row}, "
            f"column {self.column}: {self.found} instead of {self.expected}"
        )

    def to_json(self) -> dict[str, int | str]:
        """Return the fields as plain values, and the sentence as ``told``."""
        return {**asdict(self), "told": str(self)}


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Parameters
    ----------
    assignment : str
    codes_compared : int
        At least 1.
    mismatches : int
        Codes that differ.
    first : Mismatch or None
        The first of them.
    """

    assignment: str
    codes_compared: int
    mismatches: int
    first: Mismatch | None = None

    def __post_init__(self) -> None:
        if self.codes_compared < 1:
            raise ValueError(f"{self.assignment}: nothing was compared")

    @property
    def equal(self) -> bool:
        """Whether no code differs."""
        return self.mismatches == 0

    def __str__(self) -> str:
        if self.equal:
            return f"{self.assignment}: all {self.codes_compared:,} codes are equal."
        verb = "differs" if self.mismatches == 1 else "differ"
        return f"{self.assignment}: {self.mismatches:,} of {self.codes_compared:,} codes {verb}, first {self.first}."


def compare(
    assignment: str,
    expected: Mapping[tuple[str, str], NDArray[Any]],
    found: Mapping[tuple[str, str], NDArray[Any]],
    first_image: int = 0,
) -> Comparison:
    """Compare two sets of stored tensors.

    Parameters
    ----------
    assignment : str
        Name of the assignment, for the report.
    expected : mapping of (tensor, form) to ndarray of integers, shape (n, c, h, w)
        In network order, as ``engine.run`` returns them.
    found : mapping of (tensor, form) to ndarray of integers
        The same tensors in the same shapes; any order, any integer dtype.
    first_image : int
        Number of the first image, for the report.

    Raises
    ------
    TypeError
        If an array does not hold integers.
    ValueError
        If nothing is compared, or if tensors or shapes disagree.
    """
    if set(expected) != set(found):
        key = min(set(expected) ^ set(found))
        where = "expected but not found" if key in expected else "found but not expected"
        raise ValueError(f"{assignment}: {key[0]} ({key[1]}) was {where}")
    compared, mismatches, first = 0, 0, None
    for (tensor, form), wanted in expected.items():
        actual = found[tensor, form]
        what = f"{assignment}: {tensor} ({form})"
        for array in (wanted, actual):
            if array.dtype.kind not in "iu":
                raise TypeError(f"{what} must hold integers, not {array.dtype}")
        if wanted.ndim != 4 or wanted.shape != actual.shape:
            raise ValueError(f"{what} must have one shape (n, c, h, w), not {wanted.shape} and {actual.shape}")
        differ = wanted.astype(np.int64) != actual.astype(np.int64)
        compared += differ.size
        count = int(differ.sum())
        if count and first is None:
            at = tuple(int(index) for index in np.unravel_index(int(differ.argmax()), differ.shape))
            image, channel, row, column = at
            first = Mismatch(
                assignment, tensor, form, first_image + image, channel, row, column, int(wanted[at]), int(actual[at])
            )
        mismatches += count
    return Comparison(assignment, compared, mismatches, first)


def combine(assignment: str, comparisons: Iterable[Comparison]) -> Comparison:
    """Return one comparison for several, the first mismatch that of the first that has one.

    Raises
    ------
    ValueError
        If there are none.
    """
    parts = list(comparisons)
    return Comparison(
        assignment,
        sum(part.codes_compared for part in parts),
        sum(part.mismatches for part in parts),
        next((part.first for part in parts if part.first is not None), None),
    )
