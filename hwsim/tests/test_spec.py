import math
import random
from fractions import Fraction

import pytest

from hwsim import spec
from hwsim.tests.mutation import mutant

ALL_WIDTHS = range(1, spec.MAX_BITS + 1)
STORED_AND_TARGET = [(stored, target) for stored in range(2, spec.MAX_BITS + 1) for target in range(1, stored + 1)]


def codes(bits):
    return range(-(2 ** (bits - 1)), 2 ** (bits - 1))


def weights(bits):
    return (-1, 1) if bits == 1 else codes(bits)


def rounded_switch(code, stored_bits, target_bits):
    """The definition in rationals: nearest, ties up, saturated; bipolar at one bit."""
    if target_bits == 1:
        return -1 if code < 0 else 1
    nearest = math.floor(Fraction(code, 2 ** (stored_bits - target_bits)) + Fraction(1, 2))
    return max(-(2 ** (target_bits - 1)), min(nearest, 2 ** (target_bits - 1) - 1))


def switch_errors(switch):
    return [
        (code, stored, target)
        for stored, target in STORED_AND_TARGET
        for code in codes(stored)
        if switch(code, stored, target) != rounded_switch(code, stored, target)
    ]


def test_switch_is_the_definition_for_every_code_and_width():
    assert switch_errors(spec.switch) == []


@pytest.mark.parametrize(
    "change",
    [
        ("return (value + (1 << (shift - 1))) >> shift", "return value >> shift"),
        ("return (value + (1 << (shift - 1))) >> shift", "return (value + (1 << (shift - 1)) - 1) >> shift"),
        ("return min(round_shift(code, stored_bits - target_bits), signed_high(target_bits))",
         "return round_shift(code, stored_bits - target_bits)"),
        ("return 1 if code >= 0 else -1\n    return min", "return 1 if code > 0 else -1\n    return min"),
    ],
)  # fmt: skip
def test_a_wrong_switch_is_caught(change):
    assert switch_errors(mutant("hwsim.spec", change).switch)


def floor_errors(switch):
    def definition(code, stored, target):
        if target == 1:
            return -1 if code < 0 else 1
        return math.floor(Fraction(code, 2 ** (stored - target)))

    return [
        (code, stored, target)
        for stored, target in STORED_AND_TARGET
        for code in codes(stored)
        if switch(code, stored, target) != definition(code, stored, target)
    ]


def test_the_floor_rule_is_the_definition_and_can_be_taken_in_steps():
    assert floor_errors(spec.switch_floor) == []
    for code in codes(8):
        assert spec.switch_floor(spec.switch_floor(code, 8, 4), 4, 2) == spec.switch_floor(code, 8, 2)


@pytest.mark.parametrize(
    "change",
    [
        ("return code >> (stored_bits - target_bits)", "return (code + 1) >> (stored_bits - target_bits)"),
        ("return code >> (stored_bits - target_bits)", "return -(-code >> (stored_bits - target_bits))"),
    ],
)
def test_a_wrong_floor_rule_is_caught(change):
    assert floor_errors(mutant("hwsim.spec", change).switch_floor)


@pytest.mark.parametrize(("bits", "count"), [(6, 96 + 30), (4, 120), (2, 96)])
def test_the_floor_rule_is_no_cheap_substitute(bits, count):
    """It differs from rounding on about half of the codes."""
    assert sum(spec.switch(code, 8, bits) != spec.switch_floor(code, 8, bits) for code in codes(8)) == count


@pytest.mark.parametrize(("bits", "count"), [(6, 32), (4, 8), (2, 2)])
def test_switch_differs_from_ties_to_even_where_the_design_says(bits, count):
    def ties_to_even(code):
        return min(round(Fraction(code, 2 ** (8 - bits))), 2 ** (bits - 1) - 1)

    assert sum(spec.switch(code, 8, bits) != ties_to_even(code) for code in codes(8)) == count


def test_switch_in_two_steps_gives_other_integers():
    assert sum(spec.switch(spec.switch(code, 8, 4), 4, 2) != spec.switch(code, 8, 2) for code in codes(8)) == 24


@pytest.mark.parametrize(("stored", "target"), STORED_AND_TARGET)
def test_switched_weight_times_its_scale_is_nearest_to_the_stored_code(stored, target):
    step = 2 ** spec.switch_scale_exponent(stored, target)
    for code in codes(stored):
        weight = spec.switch(code, stored, target)
        others = [abs(other * step - code) for other in weights(target)]
        if target > 1:
            assert abs(weight * step - code) == min(others)
        else:
            assert weight * (1 if code >= 0 else -1) == 1
            assert 2 * step == 2 ** (stored - 1)  # the middles of the halves of the range


@pytest.mark.parametrize(("stored", "target"), STORED_AND_TARGET)
def test_switch_needs_exactly_the_planes_it_reads(stored, target):
    def planes_suffice(planes):
        made = {}
        for code in codes(stored):
            made.setdefault(code >> (stored - planes), set()).add(spec.switch(code, stored, target))
        return all(len(values) == 1 for values in made.values())

    assert planes_suffice(spec.planes_read(stored, target))
    assert spec.planes_read(stored, target) == 1 or not planes_suffice(spec.planes_read(stored, target) - 1)


def dot_in_planes(module, weight_words, activation_words, bits):
    """Dot product as the array makes it: plane after plane, word after word."""
    accumulator = 0
    for position in range(module.planes_applied(bits)):
        for word, (word_weights, activations) in enumerate(zip(weight_words, activation_words, strict=True)):
            plane_sum = sum(
                module.plane_bit(weight, bits, position) * activation
                for weight, activation in zip(word_weights, activations, strict=True)
            )
            accumulator = module.accumulate(accumulator, plane_sum, word == 0, module.plane_subtracts(bits, position))
    return accumulator


def plane_errors(module, bits, seed=5):
    rng = random.Random(seed)
    cases = [([[weight]], [[activation]]) for weight in weights(bits) for activation in (0, 1, 255)]
    for _ in range(50):
        weight_words = [[rng.choice(weights(bits)) for _ in range(4)] for _ in range(3)]
        cases.append((weight_words, [[rng.randrange(256) for _ in range(4)] for _ in range(3)]))
    wrong = 0
    for weight_words, activation_words in cases:
        direct = sum(
            w * a for ws, xs in zip(weight_words, activation_words, strict=True) for w, a in zip(ws, xs, strict=True)
        )
        wrong += dot_in_planes(module, weight_words, activation_words, bits) != direct
    return wrong


@pytest.mark.parametrize("bits", ALL_WIDTHS)
def test_planes_make_the_dot_product(bits):
    assert plane_errors(spec, bits) == 0


@pytest.mark.parametrize(
    ("bits", "change"),
    [
        (4, ("return position == (1 if target_bits == 1 else 0)", "return False")),
        (4, ("return position == (1 if target_bits == 1 else 0)", "return position == target_bits - 1")),
        (1, ("return position == (1 if target_bits == 1 else 0)", "return position == 0")),
        (4, ("accumulator = accumulator * 2", "accumulator = accumulator")),
        (2, ("return accumulator - plane_sum if subtracts else accumulator + plane_sum", "return accumulator")),
        (2, ("return accumulator - plane_sum if subtracts else", "return accumulator + plane_sum if subtracts else")),
        (8, ("return (weight >> (target_bits - 1 - position)) & 1", "return (weight >> position) & 1")),
        (1, ("return 1 if position == 1 else (weight + 1) >> 1", "return (weight + 1) >> 1")),
    ],
)  # fmt: skip
def test_wrong_planes_are_caught(bits, change):
    assert plane_errors(mutant("hwsim.spec", change), bits)


def requantize_errors(requantize):
    rng = random.Random(11)
    wrong = 0
    for trial in range(3000):
        shift = rng.randrange(48)
        accumulator, skip = rng.randrange(-(2**24), 2**24), rng.randrange(-128, 256)
        m, k, b = (rng.randrange(-(2 ** (bits - 1)), 2 ** (bits - 1)) for bits in (18, 32, 48))
        low, high = [(0, 255), (0, 3), (-128, 127), (-(2**31), 2**31 - 1)][trial % 4]
        if trial % 3 == 0:
            b = rng.randrange(low, high + 1) * 2**shift - accumulator * m - skip * k + rng.choice([-1, 0, 1])
        exact = math.floor(Fraction(accumulator * m + skip * k + b, 2**shift))
        wrong += requantize(accumulator, skip, m, k, b, shift, low, high) != sorted((low, exact, high))[1]
    return wrong


def test_requantize_is_the_floor_of_the_quotient_clamped():
    assert requantize_errors(spec.requantize) == 0


@pytest.mark.parametrize(
    "change",
    [
        ("+ addend) >> shift", "+ addend) // (1 << shift) + (accumulator < 0)"),
        ("+ addend) >> shift", "+ addend + (1 << shift >> 1)) >> shift"),
        ("return (accumulator * multiplier + skip", "return (accumulator * multiplier - skip"),
        ("return (accumulator * multiplier + skip", "return (abs(accumulator) * multiplier + skip"),
        ("return min(max(value, low), high)", "return min(value, high)"),
        ("return min(max(value, low), high)", "return min(max(value, low), high + 1)"),
    ],
)
def test_a_wrong_requantize_is_caught(change):
    assert requantize_errors(mutant("hwsim.spec", change).requantize)


@pytest.mark.parametrize("bits", ALL_WIDTHS)
def test_ranges(bits):
    assert list(codes(bits)) == list(range(spec.signed_low(bits), spec.signed_high(bits) + 1))
    assert spec.unsigned_high(bits) == 2**bits - 1
    slot = spec.slot_bits(bits)
    assert slot in (1, 2, 4, 8) and slot >= bits and (slot == 1 or slot // 2 < bits)


def test_signed_bits_is_the_smallest_width_that_holds_a_range():
    for low in range(-70, 71):
        for high in range(low, 71):
            bits = spec.signed_bits(low, high)
            assert spec.signed_low(bits) <= low and high <= spec.signed_high(bits)
            assert bits == 1 or not (spec.signed_low(bits - 1) <= low and high <= spec.signed_high(bits - 1))


@pytest.mark.parametrize("shift", range(9))
def test_round_shift_is_nearest_ties_up(shift):
    for value in range(-300, 300):
        assert spec.round_shift(value, shift) == math.floor(Fraction(value, 2**shift) + Fraction(1, 2))
