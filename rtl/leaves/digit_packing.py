"""Dot products of a lane in one multiplication: where activations and weight digits lie in the 18-bit operands.

A lane of slot s holds ``8 / s`` unsigned activations, which meet as many unsigned digits of s bits. Index j lies at bit
``activation_positions(s)[j]`` of one operand and at bit ``RESULT_POSITION`` less that of the other. So the products of
equal indices meet at bit ``RESULT_POSITION``, whatever the slot: the dot product needs no multiplexer.

The products of unequal indices lie above and below. Those below add up to less than ``2**RESULT_POSITION``. Those above
begin beyond the dot product, but for slots of 2 bits, where 18 bits leave no room for it: bit 5 of the dot product
(0 .. 36) meets the lowest bit of ``a2 * d1 + a3 * d2`` there, which is the parity of two ANDs and is taken out again.

Packings known from elsewhere do two 4 x 4 or eight 2 x 2 products in one multiplication by sharing an operand between
pixels and columns; a dot product shares nothing, and so do the lanes of this array. With 18 x 18 bits it cannot have
more than two terms of 4 x 4 bits or four of 2 x 2: one more activation would not fit between products that stay apart.
"""

from __future__ import annotations

from collections.abc import Sequence

LANE_BITS = 8
OPERAND_BITS = 18
RESULT_POSITION = 16
DIGIT_SLOTS = (8, 4, 2)

_ACTIVATION_POSITIONS = {8: (6,), 4: (2, 11), 2: (0, 6, 11, 16)}
"""Chosen so that the digits' bits of all slots lie at few positions, each of which is a register in every lane."""

PARITY_SLOT = 2
PARITY_BIT = 5
PARITY_PAIRS = ((2, 1), (3, 2))
"""Indices of activations and digits whose products meet bit ``PARITY_BIT`` of the dot product."""


def activation_positions(slot_bits: int) -> tuple[int, ...]:
    """Return the lowest bit of every activation of a lane, in index order.

    >>> activation_positions(4)
    (2, 11)
    """
    return _ACTIVATION_POSITIONS[slot_bits]


def digit_positions(slot_bits: int) -> tuple[int, ...]:
    """Return the lowest bit of every digit of a lane, in index order.

    >>> digit_positions(4)
    (14, 5)
    """
    return tuple(RESULT_POSITION - position for position in _ACTIVATION_POSITIONS[slot_bits])


def result_max(slot_bits: int) -> int:
    """Return the largest dot product of a lane.

    >>> [result_max(bits) for bits in (8, 4, 2)]
    [65025, 450, 36]
    """
    return LANE_BITS // slot_bits * ((1 << slot_bits) - 1) ** 2


def result_bits(slot_bits: int) -> int:
    """Return the bits of the largest dot product of a lane.

    >>> [result_bits(bits) for bits in (8, 4, 2)]
    [16, 9, 6]
    """
    return result_max(slot_bits).bit_length()


def used_positions(slots: Sequence[int]) -> tuple[int, ...]:
    """Return the bits of the digits' operand that any of the slots uses, lowest first.

    >>> len(used_positions((8, 4, 2))), len(used_positions((8,)))
    (14, 8)
    """
    return tuple(
        sorted({position + bit for slot in slots for position in digit_positions(slot) for bit in range(slot)})
    )


def pack(values: Sequence, positions: Sequence[int]):  # type: ignore[no-untyped-def]
    """Return the operand that holds ``values`` (integers, or arrays of them) at ``positions``.

    >>> pack([3, 1], activation_positions(4))
    2060
    """
    return sum(value << position for value, position in zip(values, positions, strict=True))


def dot_product(product, activations: Sequence, digits: Sequence, slot_bits: int):  # type: ignore[no-untyped-def]
    """Return the dot product that is in the product of the packed operands, as the hardware reads it.

    >>> activations, digits = [3, 2, 3, 1], [3, 0, 3, 3]
    >>> product = pack(activations, activation_positions(2)) * pack(digits, digit_positions(2))
    >>> dot_product(product, activations, digits, 2)
    21
    """
    result = product >> RESULT_POSITION & ((1 << result_bits(slot_bits)) - 1)
    if slot_bits == PARITY_SLOT:
        for activation, digit in PARITY_PAIRS:
            result ^= (activations[activation] & digits[digit] & 1) << PARITY_BIT
    return result
