# amaranth: UnusedElaboratable=no
"""The requantizer against ``spec.requantize``: exhaustive where tiny, corners and seeded random at machine widths."""

import itertools
import random

import pytest

from hwsim import spec
from rtl.requantizer import Requantizer
from rtl.tests import simulate
from rtl.tests.mutation import mutant

MACHINE = {
    "operand_bits": 24,
    "skip_bits": 9,
    "multiplier_bits": 18,
    "skip_multiplier_bits": 18,
    "addend_bits": 48,
    "shift_max": 47,
    "output_bits": 32,
}
CODE_ONLY = MACHINE | {"operand_bits": 9, "skip_bits": 0, "output_bits": 9}
TINY = {
    "operand_bits": 3,
    "skip_bits": 0,
    "multiplier_bits": 3,
    "skip_multiplier_bits": 0,
    "addend_bits": 3,
    "shift_max": 3,
    "output_bits": 3,
}


def expected(word):
    return spec.requantize(
        word["operand"],
        word.get("skip", 0),
        word["multiplier"],
        word.get("skip_multiplier", 0),
        word["addend"],
        word["shift"],
        word["low"],
        word["high"],
    )


def mismatches(component, words):
    seen = simulate.stream(component, words, ["result"], component.LATENCY)
    return sum(found["result"] != expected(word) for found, word in zip(seen, words, strict=True))


def draw(widths, count, seed):
    """Return words with corners mixed in, a shift that often lands the sum near the clamps, and every kind of clamp."""
    rng = random.Random(seed)
    output_low, output_high = spec.signed_low(widths["output_bits"]), spec.signed_high(widths["output_bits"])

    def signed(bits):
        low, high = spec.signed_low(bits), spec.signed_high(bits)
        return rng.choice((low, high, -1, 0, 1, *(rng.randint(low, high) >> rng.randrange(bits) for _ in range(5))))

    words = []
    for _ in range(count):
        clamps = [(output_low, output_high), (0, 255), (-128, 127), (0, 3)]
        clamps.append(tuple(sorted((signed(widths["output_bits"]), signed(widths["output_bits"])))))
        low, high = rng.choice([pair for pair in clamps if output_low <= pair[0] and pair[1] <= output_high])
        word = {
            "operand": signed(widths["operand_bits"]),
            "multiplier": signed(widths["multiplier_bits"]),
            "addend": signed(widths["addend_bits"]),
            "shift": rng.randrange(1 << widths["shift_max"].bit_length()),
            "low": low,
            "high": high,
        }
        if widths["skip_bits"]:
            word["skip"] = signed(widths["skip_bits"])
            word["skip_multiplier"] = signed(widths["skip_multiplier_bits"])
        words.append(word)
    return words


@pytest.mark.parametrize("widths", [MACHINE, CODE_ONLY, MACHINE | {"skip_bits": 0}], ids=["skip", "code", "no skip"])
def test_equals_the_contract(widths):
    words = draw(widths, 4000, seed=1)
    results = [expected(word) for word in words]
    assert sum(result == word["low"] for result, word in zip(results, words, strict=True)) > 500
    assert sum(result == word["high"] for result, word in zip(results, words, strict=True)) > 500
    assert sum(word["low"] < result < word["high"] for result, word in zip(results, words, strict=True)) > 500
    assert mismatches(Requantizer(**widths), words) == 0


def test_every_shift_of_the_extreme_sums():
    component = Requantizer(**MACHINE)
    low, high = spec.signed_low, spec.signed_high
    words = [
        {
            "operand": operand,
            "multiplier": multiplier,
            "skip": skip,
            "skip_multiplier": skip_multiplier,
            "addend": addend,
            "shift": shift,
            "low": low(32),
            "high": high(32),
        }
        for shift in range(64)
        for operand, skip in itertools.product((low(24), high(24)), (low(9), high(9)))
        for multiplier, skip_multiplier in itertools.product((low(18), high(18)), (low(18), high(18)))
        for addend in (low(48), high(48))
    ]
    sums = [
        spec.scale_accumulator(
            word["operand"], word["skip"], word["multiplier"], word["skip_multiplier"], word["addend"], 0
        )
        for word in words
    ]
    assert spec.signed_bits(min(sums), max(sums)) == component.sum_bits
    assert mismatches(component, words) == 0


def tiny_words():
    signed3 = range(-4, 4)
    return [
        {"operand": operand, "multiplier": multiplier, "addend": addend, "shift": shift, "low": low, "high": high}
        for operand, multiplier, addend, shift in itertools.product(signed3, signed3, signed3, range(4))
        for low, high in ((-4, 3), (0, 3), (-2, 1), (2, 2))
    ]


def test_equals_the_contract_for_every_input_of_a_tiny_one():
    assert mismatches(Requantizer(**TINY), tiny_words()) == 0


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"product") + delay(self.addend', '"product") + 1 + delay(self.addend'),
        ("coarse_shifted >> fine_shift", "coarse_shifted.as_unsigned() >> fine_shift"),
        ("value > high", "value >= high + 2"),
        ("value < low", "(value < low) & shifted[0]"),
    ],
)
def test_a_wrong_one_is_caught(right, wrong):
    words = tiny_words()
    assert 0 < mismatches(mutant(Requantizer, right, wrong)(**TINY), words) < len(words)


def test_a_skip_without_its_sign_is_caught():
    words = draw(MACHINE, 300, seed=2)
    unsigned = mutant(Requantizer, '"skip_product")', '"skip_product").as_unsigned()')
    assert 0 < mismatches(unsigned(**MACHINE), words) < len(words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operand_bits": 1}, "operand_bits must be 2 .. 48, not 1"),
        ({"skip_bits": -1}, "skip_bits must be 0 .. 48, not -1"),
        ({"skip_multiplier_bits": 0}, "skip_multiplier_bits must be 2 .. 48, not 0"),
        ({"shift_max": 0}, "shift_max must be 1 .. 127, not 0"),
        ({"output_bits": 65}, "output_bits must be 2 .. 64, not 65"),
    ],
)
def test_nonsense_is_refused(change, message):
    with pytest.raises(ValueError) as refusal:
        Requantizer(**(MACHINE | change))
    assert str(refusal.value) == message
