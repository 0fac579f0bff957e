# amaranth: UnusedElaboratable=no
"""The weight switch against ``spec.switch``: every code of every stored width to every narrower width."""

import random

import pytest

from hwsim import spec
from rtl.tests import simulate
from rtl.tests.mutation import mutant
from rtl.weight_switch import WeightSwitch

WEIGHTS = 16
PAIRS = [(stored, target) for stored in range(1, 9) for target in range(1, stored + 1)]


def groups_of(stored_bits, target_bits):
    """Return every code of ``stored_bits`` bits, in groups of WEIGHTS codes (the last repeated to fill its group)."""
    codes = list(range(spec.signed_low(stored_bits), spec.signed_high(stored_bits) + 1))
    codes += [codes[-1]] * (-len(codes) % WEIGHTS)
    return [(stored_bits, target_bits, codes[at : at + WEIGHTS]) for at in range(0, len(codes), WEIGHTS)]


def arrivals(groups, gaps):
    """Return the inputs of every cycle: groups as close as the contract allows, up to ``gaps`` idle cycles a plane."""
    rng = random.Random(7)
    cycles, last_at, applied = [], -8, 0
    for stored_bits, target_bits, codes in groups:
        read = spec.planes_read(stored_bits, target_bits)
        for index in range(read):
            for _ in range(rng.randrange(gaps + 1)):
                cycles.append({"valid": 0, "first": rng.getrandbits(1), "last": rng.getrandbits(1)})
            if index == read - 1:
                while len(cycles) < last_at + applied:
                    cycles.append({"valid": 0})
                last_at, applied = len(cycles), spec.planes_applied(target_bits)
            cycles.append(
                {
                    "valid": 1,
                    "plane": sum((code >> (stored_bits - 1 - index) & 1) << at for at, code in enumerate(codes)),
                    "first": int(index == 0),
                    "last": int(index == read - 1),
                    "target_bits": target_bits if index == read - 1 else rng.randrange(9),
                    "rounds": int(stored_bits > target_bits > 1) if index == read - 1 else rng.getrandbits(1),
                }
            )
    return cycles + [{"valid": 0}] * 8


def departures(cycles, groups):
    """Return what must be seen LATENCY cycles after each cycle: None, or (position, plane)."""
    expected = [None] * (len(cycles) + 8)
    lasts = [at for at, inputs in enumerate(cycles) if inputs["valid"] and inputs["last"]]
    for at, (stored_bits, target_bits, codes) in zip(lasts, groups, strict=True):
        passes = spec.planes_applied(target_bits)
        for step, position in enumerate(reversed(range(passes))):
            weights = [spec.switch(code, stored_bits, target_bits) for code in codes]
            plane = sum(spec.plane_bit(weight, target_bits, position) << i for i, weight in enumerate(weights))
            assert expected[at + step] is None
            expected[at + step] = (position, plane)
    return expected[: len(cycles)]


def mismatches(component, groups, gaps):
    cycles = arrivals(groups, gaps)
    seen = simulate.stream(component, cycles, ["o_plane", "o_position", "o_valid"], component.LATENCY)
    found = [(out["o_position"], out["o_plane"]) if out["o_valid"] else None for out in seen]
    expected = departures(cycles, groups)
    assert sum(plane is not None for plane in expected) == sum(spec.planes_applied(target) for _, target, _ in groups)
    return sum(a != b for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("gaps", [0, 2])
def test_every_code_of_every_pair_of_widths(gaps):
    groups = [group for pair in PAIRS for group in groups_of(*pair)]
    assert len({(h, t, code) for h, t, codes in groups for code in codes}) == sum(2**h for h, _ in PAIRS)
    assert mismatches(WeightSwitch(WEIGHTS), groups, gaps) == 0


def test_widths_in_random_order_back_to_back():
    groups = [group for pair in PAIRS for group in groups_of(*pair)]
    random.Random(1).shuffle(groups)
    assert mismatches(WeightSwitch(WEIGHTS), groups, 0) == 0


@pytest.mark.parametrize("stored_bits_max", [2, 3, 5])
def test_a_switch_for_narrow_stored_codes(stored_bits_max):
    groups = [group for pair in PAIRS if pair[0] <= stored_bits_max for group in groups_of(*pair)]
    assert mismatches(WeightSwitch(WEIGHTS, stored_bits_max), groups, 1) == 0


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("(ripple ^ is_rounding_bit.replicate(self.weights))", "(ripple | is_rounding_bit.replicate(self.weights))"),
        ("Mux(read_rounds, ripple, 0)", "0"),  # rounds down
        ("Mux(read_rounds, ripple, 0)", "ripple"),
        ("~self.plane, self.plane &", "self.plane, self.plane &"),
        ("ones | kept_ones", "ones"),  # the bipolar sign not inverted
        ("ones | kept_ones", "kept_ones"),
        ("~(kept & added)", "~(kept | added)"),
    ],
)
def test_a_wrong_one_is_caught(right, wrong):
    groups = groups_of(6, 3) + groups_of(4, 4) + groups_of(8, 1)
    total = sum(spec.planes_applied(target) for _, target, _ in groups)
    assert 0 < mismatches(mutant(WeightSwitch, right, wrong)(WEIGHTS), groups, 0) <= total


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "weights of a weight switch must be 1 .. 4096, not 0"),
        ((8, 9), "stored_bits_max must be 2 .. 8, not 9"),
        ((8, 1), "stored_bits_max must be 2 .. 8, not 1"),
    ],
)
def test_nonsense_is_refused(arguments, message):
    with pytest.raises(ValueError) as refusal:
        WeightSwitch(*arguments)
    assert str(refusal.value) == message
