"""Plans for adding many short numbers with carry cells: which bits meet in which adder, level by level.

An adder takes two bits of each of its columns (weights 1, 2, 4 ...), and a third of its lowest as the carry into it. It
costs one cell a column and one more, which shows its carry and takes in the next adder's: so adders that take a third
bit waste nothing but that cell.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

LEVELS_MAX = 7
BEAM = 60
REGISTER_COST = 0.5
"""Of a bit kept after a level, in cells."""

LEVEL_COST = 2
"""Of one more level, in cells: it may take a pipeline stage that the joins need."""

POLICIES = tuple(itertools.product((2, 3), (0, 1, 2), (1, 2, 99)))
"""Fewest bits in an adder's lowest column; whether it goes on at a column of one bit (0 never, 1 if a column above has
more, 2 always); most adders in the level."""


@dataclass(frozen=True)
class Adder:
    """Adds ``counts[i]`` (1 or 2) bits of column ``column + i``, and one more bit of the lowest if ``takes_carry``.

    ``shows_carry`` is whether the carry out of it is a bit of the next column (otherwise it is known to be zero).
    """

    column: int
    takes_carry: bool
    counts: tuple[int, ...]
    shows_carry: bool


Level = tuple[Adder, ...]


def add_level(heights: tuple[int, ...], policy: tuple[int, int, int]) -> tuple[Level, tuple[int, ...]]:
    """Return the adders that ``policy`` finds in columns of ``heights`` bits, and the heights after them."""
    fewest, goes_on, most = policy
    left, made, adders = list(heights), [0] * len(heights), []
    while len(adders) < most:
        column = next((at for at, height in enumerate(left) if height >= fewest), None)
        if column is None:
            break
        takes_carry = left[column] >= 3
        left[column] -= takes_carry
        counts, at = [], column
        while at < len(left) and left[at] and (left[at] > 1 or goes_on == 2 or (goes_on and max(left[at:]) > 1)):
            counts.append(min(2, left[at]))
            left[at] -= counts[-1]
            made[at] += 1
            at += 1
        shows_carry = at < len(left)
        if shows_carry:
            made[at] += 1
        adders.append(Adder(column, takes_carry, tuple(counts), shows_carry))
    return tuple(adders), tuple(a + b for a, b in zip(left, made, strict=True))


@functools.cache
def plan(lanes: int, group_bits: int) -> tuple[Level, ...]:
    """Return levels of adders that leave one bit a column of ``lanes`` numbers of ``group_bits`` bits.

    A beam search for the fewest cells; deterministic. No adder carries out of the bits of the largest sum.
    """
    columns = (lanes * ((1 << group_bits) - 1)).bit_length()
    beam: dict[tuple[int, ...], tuple[float, tuple[Level, ...]]] = {
        (lanes,) * group_bits + (0,) * (columns - group_bits): (0.0, ())
    }
    finished: list[tuple[float, tuple[Level, ...]]] = []
    for _ in range(LEVELS_MAX):
        found: dict[tuple[int, ...], tuple[float, tuple[Level, ...]]] = {}
        for heights, (cost, levels) in beam.items():
            for policy in POLICIES:
                adders, after = add_level(heights, policy)
                if not adders:
                    continue
                cells = sum(len(adder.counts) + 1 for adder in adders)
                total = cost + cells + REGISTER_COST * sum(after)
                if after not in found or total < found[after][0]:
                    found[after] = (total, (*levels, adders))
        finished += [value for heights, value in found.items() if max(heights) == 1]
        ranked = sorted(found.items(), key=lambda item: item[1][0] + sum(max(0, height - 1) for height in item[0]))
        beam = {heights: value for heights, value in ranked[:BEAM] if max(heights) > 1}
    return min(finished, key=lambda value: value[0] + LEVEL_COST * len(value[1]))[1]
