"""The arithmetic contract: every integer operation of bitswitch, once, on plain Python integers.

Nothing is imported here. The NumPy/Numba kernels call these very functions, the Verilog generator takes its widths
from them and is proved equal, and the training operators are proved equal exhaustively. Whoever changes a result
here raises ``SPEC_VERSION``; files and Verilog made under another version are refused by name.
"""

SPEC_VERSION = 1

MAX_BITS = 8
"""Widest stored weight code and widest activation code, in bits."""

IMAGE_BITS = 8
"""Images enter as unsigned codes of this many bits with scale 1/255; padding is exactly 0."""

SKIP_BITS = 8
"""Width of the second stored form of a tensor that feeds an add."""

LOGIT_BITS = 32
"""Logits leave as signed integers of this many bits, never clamped."""


def signed_low(bits):
    """Return the lowest two's-complement integer of ``bits`` bits.

    >>> signed_low(8)
    -128
    """
    return -(1 << (bits - 1))


def signed_high(bits):
    """Return the highest two's-complement integer of ``bits`` bits.

    >>> signed_high(8)
    127
    """
    return (1 << (bits - 1)) - 1


def unsigned_high(bits):
    """Return the highest unsigned integer of ``bits`` bits.

    >>> unsigned_high(8)
    255
    """
    return (1 << bits) - 1


def round_shift(value, shift):
    """Return ``value / 2**shift`` rounded to nearest, ties toward +infinity.

    >>> [round_shift(value, 1) for value in (-3, -1, 1, 3)]
    [-1, 0, 1, 2]
    """
    if shift == 0:
        return value
    return (value + (1 << (shift - 1))) >> shift


def switch(code, stored_bits, target_bits):
    """Return the weight of ``target_bits`` bits that a stored code of ``stored_bits`` bits switches to.

    Round to nearest, ties toward +infinity, saturate (only the positive side can). At 1 bit the weight is bipolar:
    -1 for a negative code, +1 otherwise (the middles of the two halves of the range, see ``switch_scale_exponent``).
    Always from the stored code: switching in two steps gives other integers.

    >>> [switch(code, 8, 4) for code in (-128, -8, 7, 8, 120, 127)]
    [-8, 0, 0, 1, 7, 7]
    >>> switch(switch(24, 8, 4), 4, 2), switch(24, 8, 2)
    (1, 0)
    >>> switch(-3, 8, 1), switch(0, 8, 1)
    (-1, 1)
    """
    if target_bits == 1:
        return 1 if code >= 0 else -1
    return min(round_shift(code, stored_bits - target_bits), signed_high(target_bits))


def switch_floor(code, stored_bits, target_bits):
    """Return the weight that a stored code switches to under the floor rule: its top ``target_bits`` bits.

    The other rule of a network's layers (``network.SWITCH_RULES``): a plain arithmetic shift, which never saturates
    and, unlike ``switch``, can be taken in several steps. 1-bit weights and scales are those of ``switch``.

    >>> [switch_floor(code, 8, 4) for code in (-128, -8, -1, 7, 8, 127)]
    [-8, -1, -1, 0, 0, 7]
    >>> switch_floor(switch_floor(24, 8, 4), 4, 2), switch_floor(24, 8, 2)
    (0, 0)
    """
    if target_bits == 1:
        return 1 if code >= 0 else -1
    return code >> (stored_bits - target_bits)


def switch_scale_exponent(stored_bits, target_bits):
    """Return e, where the scale of a switched weight is the stored scale times ``2**e``.

    >>> switch_scale_exponent(8, 4), switch_scale_exponent(8, 1)
    (4, 6)
    """
    if target_bits == 1:
        return stored_bits - 2
    return stored_bits - target_bits


def planes_read(stored_bits, target_bits):
    """Return how many planes of a stored code the switch to ``target_bits`` needs: the top one and the rounding bit.

    >>> [planes_read(8, bits) for bits in (8, 6, 4, 2, 1)]
    [8, 7, 5, 3, 1]
    """
    if target_bits == 1:
        return 1
    return min(target_bits + 1, stored_bits)


def planes_applied(target_bits):
    """Return the number of plane passes of a weight: one a bit, and two for a bipolar 1-bit weight.

    >>> [planes_applied(bits) for bits in (8, 2, 1)]
    [8, 2, 2]
    """
    return max(target_bits, 2)


def plane_bit(weight, target_bits, position):
    """Return the bit that a switched weight contributes to pass ``position`` (0 is the first pass).

    A two's-complement weight is applied top plane first, and the first pass subtracts. A bipolar weight 2p - 1 is
    applied as its bit p and then a pass of ones, and the second pass subtracts.

    >>> [plane_bit(-3, 4, position) for position in range(4)]
    [1, 1, 0, 1]
    >>> [plane_bit(-1, 1, position) for position in range(2)], [plane_bit(1, 1, position) for position in range(2)]
    ([0, 1], [1, 1])
    """
    if target_bits == 1:
        return 1 if position == 1 else (weight + 1) >> 1
    return (weight >> (target_bits - 1 - position)) & 1


def plane_subtracts(target_bits, position):
    """Return whether pass ``position`` subtracts its plane.

    >>> [plane_subtracts(4, position) for position in range(4)], [plane_subtracts(1, position) for position in range(2)]
    ([True, False, False, False], [False, True])
    """
    return position == (1 if target_bits == 1 else 0)


def accumulate(accumulator, plane_sum, doubles, subtracts):
    """Return the accumulator after one pass over one word: double on a plane's first word, then add or subtract.

    >>> accumulate(5, 3, True, False), accumulate(5, 3, False, True)
    (13, 2)
    """
    if doubles:
        accumulator = accumulator * 2
    return accumulator - plane_sum if subtracts else accumulator + plane_sum


def accumulate_digit(accumulator, total, shift):
    """Return the accumulator after one pass of whole digits: shift by a digit on its first word, then add.

    Same sums as ``accumulate`` makes plane by plane.

    >>> accumulate_digit(5, -3, 4), accumulate_digit(5, -3, 0)
    (77, 2)
    """
    return (accumulator << shift) + total


def clamp(value, low, high):
    """Return ``value`` limited to ``low .. high``.

    >>> clamp(300, 0, 255), clamp(-3, 0, 255)
    (255, 0)
    """
    return min(max(value, low), high)


def scale_accumulator(accumulator, skip, multiplier, skip_multiplier, addend, shift):
    """Return ``(accumulator * M + skip * K + B) >> S``, the shift arithmetic (toward -infinity).

    BatchNorm, bias, residual add and the rounding constant are all in M, K, B, S.

    >>> scale_accumulator(-7, 2, 3, 5, 8, 4)
    -1
    """
    return (accumulator * multiplier + skip * skip_multiplier + addend) >> shift


def requantize(accumulator, skip, multiplier, skip_multiplier, addend, shift, low, high):
    """Return ``clamp((accumulator * M + skip * K + B) >> S, low, high)``: one rounding for each stored tensor.

    >>> requantize(100, 0, 3, 0, 8, 4, 0, 15), requantize(100, 0, 3, 0, 8, 4, 0, 255)
    (15, 19)
    """
    return clamp(scale_accumulator(accumulator, skip, multiplier, skip_multiplier, addend, shift), low, high)


def slot_bits(activation_bits):
    """Return the bits an activation occupies in a lane: the smallest of 1, 2, 4, 8 that holds it.

    >>> [slot_bits(bits) for bits in (1, 2, 3, 4, 6, 8)]
    [1, 2, 4, 4, 8, 8]
    """
    slot = 1
    while slot < activation_bits:
        slot *= 2
    return slot


def signed_bits(low, high):
    """Return the bits of the smallest two's-complement integer that holds ``low .. high``.

    >>> signed_bits(-128, 127), signed_bits(0, 128), signed_bits(0, 0)
    (8, 9, 1)
    """
    bits = 1
    while low < signed_low(bits) or high > signed_high(bits):
        bits += 1
    return bits
