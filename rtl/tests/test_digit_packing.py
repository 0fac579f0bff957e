"""The packings are exact for every operand."""

import numpy as np
import pytest

from rtl.leaves import digit_packing
from rtl.leaves.digit_packing import (
    DIGIT_SLOTS,
    LANE_BITS,
    OPERAND_BITS,
    RESULT_POSITION,
    activation_positions,
    digit_positions,
    dot_product,
    pack,
    result_bits,
    result_max,
    used_positions,
)


def every_operand(slot_bits):
    """Return (activations, digits): every lane of activations in rows, every lane of digits in columns."""
    lane = np.arange(1 << LANE_BITS)
    values = [lane >> (index * slot_bits) & ((1 << slot_bits) - 1) for index in range(LANE_BITS // slot_bits)]
    return [value[:, None] for value in values], [value[None, :] for value in values]


def wrong_products(slot_bits):
    activations, digits = every_operand(slot_bits)
    left, right = pack(activations, activation_positions(slot_bits)), pack(digits, digit_positions(slot_bits))
    assert left.max() < 1 << OPERAND_BITS and right.max() < 1 << OPERAND_BITS
    exact = sum(activation * digit for activation, digit in zip(activations, digits, strict=True))
    assert exact.max() == result_max(slot_bits)
    return int((dot_product(left * right, activations, digits, slot_bits) != exact).sum())


@pytest.mark.parametrize("slot_bits", DIGIT_SLOTS)
def test_every_dot_product_of_a_lane_is_exact(slot_bits):
    assert wrong_products(slot_bits) == 0


@pytest.mark.parametrize(("slot_bits", "positions"), [(4, (2, 10)), (2, (0, 5, 10, 15)), (2, (0, 5, 11, 16))])
def test_other_positions_are_not(slot_bits, positions, monkeypatch):
    monkeypatch.setitem(digit_packing._ACTIVATION_POSITIONS, slot_bits, positions)
    assert wrong_products(slot_bits) > 0


def test_the_parity_is_needed(monkeypatch):
    monkeypatch.setattr(digit_packing, "PARITY_PAIRS", ((2, 1),))
    assert wrong_products(2) > 0


@pytest.mark.parametrize("slot_bits", DIGIT_SLOTS)
def test_everything_below_the_result_stays_below(slot_bits):
    left, right = activation_positions(slot_bits), digit_positions(slot_bits)
    largest = (1 << slot_bits) - 1
    below = sum(
        largest**2 << (a + d)
        for i, a in enumerate(left)
        for j, d in enumerate(right)
        if i != j and a + d < RESULT_POSITION
    )
    assert below < 1 << RESULT_POSITION
    assert RESULT_POSITION + result_bits(slot_bits) <= 2 * OPERAND_BITS


def test_the_bits_of_all_slots_share_registers():
    assert used_positions(DIGIT_SLOTS) == (0, 1, 5, 6, 7, 8, *range(10, 18))
    assert used_positions((8, 4)) == (*range(5, 9), *range(10, 18))
