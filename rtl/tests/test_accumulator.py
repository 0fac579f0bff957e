# amaranth: UnusedElaboratable=no
"""The accumulator against ``spec.accumulate`` on a list of words, with the drain reading at any time."""

import random

import pytest

from hwsim import spec
from rtl.accumulator import Accumulator
from rtl.leaves.accumulate_step import AccumulateStep, Ecp5AccumulateStep
from rtl.tests import simulate
from rtl.tests.mutation import mutant

COLUMNS, SUM_BITS, ACCUMULATOR_BITS, DEPTH = 3, 6, 20, 8


def pack(values, bits):
    return sum((value & ((1 << bits) - 1)) << (at * bits) for at, value in enumerate(values))


def draw(cycles, seed):
    """Return the inputs of every cycle; no address is accumulated twice within HAZARD_CYCLES."""
    rng = random.Random(seed)
    recent, inputs = [], []
    magnitude = [SUM_BITS] * DEPTH
    for _ in range(cycles):
        address = rng.choice([at for at in range(DEPTH) if at not in recent])
        valid = int(rng.random() < 0.8)
        recent = [*recent, address if valid else None][-(Accumulator.HAZARD_CYCLES - 1) :]
        clears = int(rng.random() < 0.2 or magnitude[address] >= ACCUMULATOR_BITS - 2)
        doubles = rng.getrandbits(1)
        if valid:
            magnitude[address] = SUM_BITS + 1 if clears else magnitude[address] + 1
        inputs.append(
            {
                "sums": [rng.choice((0, (1 << SUM_BITS) - 1, rng.getrandbits(SUM_BITS))) for _ in range(COLUMNS)],
                "valid": valid,
                "address": address,
                "clears": clears,
                "doubles": doubles,
                "subtracts": rng.getrandbits(1),
                "drain_address": rng.randrange(DEPTH),
                "drain_read": int(rng.random() < 0.7),
            }
        )
    return inputs


def expected(inputs):
    """Return the word the drain sees DRAIN_LATENCY cycles after each cycle."""
    words = [[0] * COLUMNS for _ in range(DEPTH)]
    writes, seen, latch = [], [], [0] * COLUMNS
    for cycle, word in enumerate(inputs):
        while writes and writes[0][0] <= cycle:
            _, address, values = writes.pop(0)
            words[address] = values
        if word["drain_read"]:
            latch = words[word["drain_address"]]
        seen.append(latch)
        if word["valid"]:
            old = words[word["address"]]
            values = [
                spec.accumulate(0 if word["clears"] else before, added, word["doubles"], word["subtracts"])
                for before, added in zip(old, word["sums"], strict=True)
            ]
            assert all(spec.signed_bits(value, value) <= ACCUMULATOR_BITS for value in values)
            writes.append((cycle + Accumulator.SUMS_DELAY + Accumulator.LATENCY, word["address"], values))
    return seen


def delay_sums(words):
    """Return the words with their sums in the cycle they are due."""
    sums = [{}] * Accumulator.SUMS_DELAY + [{"sums": word.pop("sums")} if "sums" in word else {} for word in words]
    return [word | late for word, late in zip(words + [{"valid": 0}] * Accumulator.SUMS_DELAY, sums, strict=True)]


def mismatches(component, inputs):
    layout = component.signature.members["sums"].shape
    words = delay_sums([word | {"sums": layout.from_bits(pack(word["sums"], SUM_BITS))} for word in inputs])
    seen = simulate.stream(component, words, ["drain_data"], component.DRAIN_LATENCY)[: len(inputs)]
    found = [[word["drain_data"][column] for column in range(COLUMNS)] for word in seen]
    right = expected(inputs)
    assert sum(any(value < 0 for value in word) for word in right) > len(right) // 10
    return sum(a != b for a, b in zip(found, right, strict=True))


def test_equals_the_contract_as_near_as_allowed():
    inputs = draw(4000, seed=2)
    assert mismatches(Accumulator(COLUMNS, SUM_BITS, ACCUMULATOR_BITS, DEPTH), inputs) == 0
    valid = [word["address"] if word["valid"] else None for word in inputs]
    nearest = Accumulator.HAZARD_CYCLES
    assert sum(a is not None and a == b for a, b in zip(valid, valid[nearest:], strict=False)) > 100


def test_weights_of_every_width_plane_by_plane():
    """Whole dot products: planes applied as the machine does, top plane first, bipolar ones included."""
    rng = random.Random(9)
    component = Accumulator(1, 12, 24, 4)
    inputs, results = [], []
    for target_bits in range(1, 9):
        weights = [
            rng.choice((-1, 1))
            if target_bits == 1
            else rng.randint(spec.signed_low(target_bits), spec.signed_high(target_bits))
            for _ in range(12)
        ]
        activations = [rng.randrange(256) for _ in weights]
        for position in range(spec.planes_applied(target_bits)):
            for half in (slice(0, 6), slice(6, 12)):
                bits = [spec.plane_bit(weight, target_bits, position) for weight in weights[half]]
                inputs.append(
                    {
                        "sums": sum(a * b for a, b in zip(activations[half], bits, strict=True)),
                        "valid": 1,
                        "address": 3,
                        "clears": int(position == 0 and half.start == 0),
                        "doubles": int(half.start == 0),
                        "subtracts": int(spec.plane_subtracts(target_bits, position)),
                        "drain_read": 0,
                    }
                )
                inputs += [{"valid": 0}] * (component.HAZARD_CYCLES - 1)
        inputs.append({"valid": 0, "drain_read": 1, "drain_address": 3})
        results.append((len(inputs) - 1, target_bits, weights, activations))
    for word in inputs:
        if "sums" in word:
            word["sums"] = component.signature.members["sums"].shape.from_bits(word["sums"])
    seen = simulate.stream(component, delay_sums(inputs), ["drain_data"], component.DRAIN_LATENCY)
    assert len(results) == 8
    for at, target_bits, weights, activations in results:
        dot = sum(w * a for w, a in zip(weights, activations, strict=True))
        assert seen[at]["drain_data"][0] == dot, f"weights of {target_bits} bits"


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('delay(self.address, "address", self.SUMS_DELAY + 1)', 'delay(self.address, "address", self.SUMS_DELAY)'),
        ("step.doubles.eq(doubles)", "step.doubles.eq(subtracts)"),
        ("self.sums[column]", "self.sums[0]"),
    ],
)
def test_a_wrong_one_is_caught(right, wrong):
    component = mutant(Accumulator, right, wrong)(COLUMNS, SUM_BITS, ACCUMULATOR_BITS, DEPTH)
    assert mismatches(component, draw(300, seed=2)) > 0


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("kept - self.plane_sum", "kept + ~self.plane_sum"),
        ("Cat(Const(0, 1), self.old[:-1])", "Cat(self.old[0], self.old[:-1])"),
        ("Mux(self.clears, 0, ", "Mux(0, 0, "),
    ],
)
def test_a_wrong_step_is_caught(right, wrong, monkeypatch):
    monkeypatch.setattr("rtl.accumulator.AccumulateStep", mutant(AccumulateStep, right, wrong))
    assert mismatches(Accumulator(COLUMNS, SUM_BITS, ACCUMULATOR_BITS, DEPTH), draw(300, seed=2)) > 0


def step_mismatches(component, plane_sum_bits, accumulator_bits):
    """Return how many of all inputs (of tiny widths) differ from the contract, wrapped to the width."""
    wrong, mask = 0, (1 << accumulator_bits) - 1

    async def process(context):
        nonlocal wrong
        flags = [(clears, doubles, subtracts) for clears in (0, 1) for doubles in (0, 1) for subtracts in (0, 1)]
        for clears, doubles, subtracts in flags:
            context.set(component.clears, clears)
            context.set(component.doubles, doubles)
            context.set(component.subtracts, subtracts)
            for old in range(1 << accumulator_bits):
                context.set(component.old, old)
                for plane_sum in range(1 << plane_sum_bits):
                    context.set(component.plane_sum, plane_sum)
                    await context.tick().repeat(2)
                    right = spec.accumulate(0 if clears else old, plane_sum, doubles, subtracts) & mask
                    wrong += context.get(component.updated) != right

    simulate.run(component, process)
    return wrong


@pytest.mark.parametrize("leaf", [AccumulateStep, Ecp5AccumulateStep])
def test_both_steps_equal_the_contract_for_every_input(leaf):
    assert step_mismatches(leaf(3, 5), 3, 5) == 0


def test_a_wrong_step_in_carry_cells_is_caught():
    wrong = mutant(Ecp5AccumulateStep, "Position(SEPARATOR, self.subtracts)", "Position(SEPARATOR)")
    assert step_mismatches(wrong(3, 5), 3, 5) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 6, 20, 8), "columns must be 1 .. 64, not 0"),
        ((2, 6, 6, 8), "accumulator_bits must be 7 .. 48, not 6"),
        ((2, 6, 20, 12), "depth of the accumulator must be a power of two, not 12"),
    ],
)
def test_nonsense_is_refused(arguments, message):
    with pytest.raises(ValueError) as refusal:
        Accumulator(*arguments)
    assert str(refusal.value) == message
