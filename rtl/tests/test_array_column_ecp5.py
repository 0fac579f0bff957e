# amaranth: UnusedElaboratable=no
"""The column in carry cells against the portable one, cycle by cycle, on the cells' own behaviour."""

import random

import pytest

from rtl.leaves import bit_heap
from rtl.leaves.array_column import ArrayColumn, plan_stages
from rtl.leaves.array_column_ecp5 import Ecp5ArrayColumn
from rtl.leaves.carry_chain import CarryChain
from rtl.tests import simulate
from rtl.tests.mutation import mutant

SHAPES = [
    (lanes, group_bits, slot_bits_max)
    for lanes in (4, 8, 16, 32, 64)
    for group_bits, slot_bits_max in ((1, 8), (1, 1), (2, 8), (2, 4), (4, 8), (4, 4), (8, 8))
    if lanes in (4, 32) or (group_bits, slot_bits_max) == (2, 8)
]


def draw(lanes, group_bits, count, seed):
    rng = random.Random(seed)
    weight_bits = 8 // group_bits * lanes
    words = []
    for _ in range(count):
        activations = rng.choice((rng.getrandbits(8 * lanes), (1 << 8 * lanes) - 1))
        weights = rng.choice((rng.getrandbits(weight_bits), (1 << weight_bits) - 1, 1 << rng.randrange(weight_bits)))
        words.append({"activations": activations, "weights": weights, "joins": rng.getrandbits(3)})
    return words


def totals(column, words):
    bits = len(column.joins)
    words = [word | {"joins": word["joins"] & ((1 << bits) - 1)} for word in words]
    return [word["total"] for word in simulate.stream(column, words, ["total"], column.LATENCY)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_portable_column(shape):
    words = draw(*shape[:2], 60 if shape[0] < 32 else 25, seed=sum(shape))
    found = totals(Ecp5ArrayColumn(*shape), words)
    assert found == totals(ArrayColumn(*shape), words)
    assert len(set(found)) > 5


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("shift = self.group_bits << at", "shift = self.group_bits"),
        ("Position(SEPARATOR, *takes)", "Position(CUT)"),
        ("held[at].eq(a if b is None else a & b)", "held[at].eq(a)"),
    ],
)
def test_a_wrong_one_is_caught(right, wrong):
    words = draw(8, 2, 60, seed=6)
    assert totals(mutant(Ecp5ArrayColumn, right, wrong)(8, 2, 8), words) != totals(ArrayColumn(8, 2, 8), words)


@pytest.mark.parametrize("lanes", [2, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("group_bits", [1, 2, 4, 8])
def test_a_plan_uses_every_bit_once_and_ends_with_one_a_column(lanes, group_bits):
    levels = bit_heap.plan(lanes, group_bits)
    columns = (lanes * ((1 << group_bits) - 1)).bit_length()
    heights = [lanes] * group_bits + [0] * (columns - group_bits)
    for level in levels:
        after = list(heights)
        for adder in level:
            after[adder.column] -= adder.takes_carry
            for at, count in enumerate(adder.counts, start=adder.column):
                after[at] -= count
            assert min(after) >= 0
        made = [0] * columns
        for adder in level:
            for at in range(len(adder.counts) + adder.shows_carry):
                made[adder.column + at] += 1
        heights = [a + b for a, b in zip(after, made, strict=True)]
    assert heights == [1] * columns
    cells = sum(len(adder.counts) + 1 for level in levels for adder in level)
    assert cells <= 1.75 * lanes * group_bits


def test_stages_take_every_level_in_order():
    assert plan_stages(8, 5) == [2, 2, 2, 1, 1]
    assert plan_stages(3, 5) == [1, 1, 1, 0, 0]
    assert plan_stages(10, 5) == [2] * 5


def test_a_chain_that_begins_with_a_carry_is_refused():
    with pytest.raises(ValueError, match="a carry chain must begin with a separator or a cut"):
        CarryChain([0x7888])
