# amaranth: UnusedElaboratable=no
"""The array against plain integer dot products of the activations and weight bits it was given."""

import random

import pytest

from rtl.array import Array
from rtl.leaves.array_column import LANE_BITS, ArrayColumn
from rtl.tests import simulate
from rtl.tests.mutation import mutant

SHAPES = [
    # lanes, columns, group_bits, slots, port_bits
    (4, 4, 2, (8, 4, 2), 16),
    (4, 4, 1, (8, 4, 2, 1), 4),
    (8, 2, 2, (8, 2), 8),
    (8, 3, 4, (8, 4), 12),
    (16, 2, 8, (8,), 8),
    (4, 5, 2, (2,), 5),
    (4, 4, 1, (1, 4), 8),
    (32, 2, 2, (8, 4, 2), 64),
    (64, 2, 2, (2, 4, 8), 32),
]


def pack(array, values, slot_bits):
    """Return the group-major word of ``values[lane][index]``, unsigned of ``slot_bits`` bits."""
    word, g = 0, array.group_bits
    for lane, held in enumerate(values):
        for index, value in enumerate(held):
            for part in range(slot_bits // g):
                k = index * slot_bits // g + part
                word |= (value >> (part * g) & ((1 << g) - 1)) << (k * array.lanes * g + lane * g)
    return word


def plane_sums(array, values, slot_bits, weights, enable):
    """Return the dot products of the activations with the weight bits ``weights[k][lane * C + column]``.

    Every group of an activation is weighed by its own weight bit and enable bit; where all groups of an index hold
    the same bit and are enabled, as the machine has it, that is activation * weight bit.
    """
    g, sums = array.group_bits, []
    for column in range(array.columns):
        total = 0
        for lane, held in enumerate(values):
            for index, value in enumerate(held):
                for part in range(slot_bits // g):
                    k = index * slot_bits // g + part
                    if enable >> k & 1 and weights[k] >> (lane * array.columns + column) & 1:
                        total += value & (((1 << g) - 1) << (part * g))
        sums.append(total)
    return sums


def plain_dot_products(array, values, slot_bits, weights):
    """Return the plane sums when every group of an index holds the bit of its first group."""
    groups = slot_bits // array.group_bits
    return [
        sum(
            value * (weights[index * groups] >> (lane * array.columns + column) & 1)
            for lane, held in enumerate(values)
            for index, value in enumerate(held)
        )
        for column in range(array.columns)
    ]


def draw(array, cycles, seed, uniform=False):
    """Return (inputs, expected sums) of every cycle, with weights written and swapped in at random meanwhile.

    With ``uniform``, all groups of an index are written together and enabled, and the expected sums are plain dot
    products.
    """
    rng = random.Random(seed)
    everything = (1 << array.groups) - 1
    shadow, active = [0] * array.groups, [0] * array.groups
    inputs, expected = [], []
    slot_bits = max(array.slots)
    to_write = list(range(array.rows))

    def write(row, groups):
        mask = ((1 << array.port_bits) - 1) << (row * array.port_bits)
        for k in range(array.groups):
            if groups >> k & 1:
                shadow[k] = shadow[k] & ~mask | words["weight_data"] << (row * array.port_bits)

    for cycle in range(cycles):
        filling = cycle < array.rows
        if not uniform and not filling:
            slot_bits = rng.choice(array.slots)
        top = (1 << slot_bits) - 1
        values = [
            [rng.choice((top, rng.randint(0, top), rng.randint(0, top))) for _ in range(LANE_BITS // slot_bits)]
            for _ in range(array.lanes)
        ]
        if cycle % 16 == 7:
            values = [[top] * len(held) for held in values]
        row = to_write[cycle] if filling else rng.randrange(array.rows)
        words = {
            "activations": pack(array, values, slot_bits),
            "enable": everything if uniform or rng.random() < 0.5 else rng.getrandbits(array.groups),
            "slot": array.slot_index(slot_bits),
            "swap": int(cycle == array.rows or (cycle > array.rows and rng.random() < 0.3)),
            "weight_write": int(filling or rng.random() < 0.6),
            "weight_row": row,
            "weight_data": rng.choice((rng.getrandbits(array.port_bits), (1 << array.port_bits) - 1)),
            "weight_groups": everything if uniform or filling else rng.getrandbits(array.groups),
        }
        if words["swap"]:
            active = list(shadow)
        if words["weight_write"]:
            write(row, words["weight_groups"])
        inputs.append(words)
        if uniform:
            expected.append(plain_dot_products(array, values, slot_bits, active))
        else:
            expected.append(plane_sums(array, values, slot_bits, active, words["enable"]))
    return inputs, expected


def mismatches(array, inputs, expected):
    seen = simulate.stream(array, inputs, ["sums"], array.LATENCY)
    found = [[word["sums"][column] for column in range(array.columns)] for word in seen]
    after = array.rows  # Before the first swap the weights are those of power-up.
    assert any(any(sums) for sums in expected[after:])
    return sum(a != b for a, b in zip(found[after:], expected[after:], strict=True))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_words_slots_masks_and_swaps_in_any_order(shape):
    array = Array(*shape)
    cycles = array.rows + (400 if array.lanes * array.columns <= 32 else 120)
    assert mismatches(array, *draw(array, cycles, seed=array.lanes)) == 0


@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
def test_uniform_weights_give_plain_dot_products(shape):
    array = Array(*shape)
    assert mismatches(array, *draw(array, array.rows + 200, seed=11, uniform=True)) == 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_saturated_inputs_give_the_largest_sum(shape):
    array = Array(*shape)
    everything = (1 << array.groups) - 1
    ones = [
        {"weight_write": 1, "weight_row": row, "weight_data": (1 << array.port_bits) - 1, "weight_groups": everything}
        for row in range(array.rows)
    ]
    full = {"activations": (1 << LANE_BITS * array.lanes) - 1, "enable": everything, "swap": 1, "weight_write": 0}
    words = ones + [full | {"slot": array.slot_index(bits)} for bits in array.slots]
    seen = simulate.stream(array, words, ["sums"], array.LATENCY)[-len(array.slots) :]
    for bits, word in zip(array.slots, seen, strict=True):
        largest = array.lanes * (LANE_BITS // bits) * ((1 << bits) - 1)
        assert [word["sums"][column] for column in range(array.columns)] == [largest] * array.columns
        assert largest < 1 << array.sum_bits


def test_a_column_of_two_lanes_for_every_weight_and_many_words():
    column = ArrayColumn(2, 4, 8)
    rng = random.Random(5)
    words = [
        {"weights": weights, "joins": joins, "activations": rng.getrandbits(16)}
        for weights in range(16)
        for joins in range(2)
        for _ in range(64)
    ]
    seen = simulate.stream(column, words, ["total"], column.LATENCY)
    for word, found in zip(words, seen, strict=True):
        parts = [word["activations"] >> (4 * at) & 15 if word["weights"] >> at & 1 else 0 for at in range(4)]
        low, high = parts[0] + parts[1], parts[2] + parts[3]
        assert found["total"] == low + (high << 4 if word["joins"] else high)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("Mux(self.enable[k], self.activations[part], 0)", "self.activations[part]"),
        ("bits > self.group_bits << level", "bits >= self.group_bits << level"),
        ("active[k].eq(shadow[k])", "active[k].eq(active[k])"),
        ("& self.weight_groups[k]", ""),
        ("with m.If(self.swap):", "with m.If(1):"),
    ],
)
def test_a_wrong_one_is_caught(right, wrong):
    array = mutant(Array, right, wrong)(*SHAPES[0])
    assert mismatches(array, *draw(array, 150, seed=4)) > 0


@pytest.mark.parametrize(
    ("right", "wrong"), [("high << shift, high", "high, high << shift"), ("shift *= 2", "shift *= 1")]
)
def test_a_wrong_join_is_caught(right, wrong, monkeypatch):
    monkeypatch.setattr("rtl.array.ArrayColumn", mutant(ArrayColumn, right, wrong))
    array = Array(*SHAPES[0])
    assert mismatches(array, *draw(array, 150, seed=4)) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lanes": 12}, "lanes must be a power of two, not 12"),
        ({"lanes": 2}, "lanes must be 4 .. 64, not 2"),
        ({"columns": 0}, "columns must be 1 .. 64, not 0"),
        ({"group_bits": 3}, "group_bits must be a power of two, not 3"),
        ({"slots": ()}, "slots must be one or more widths, each once, not ()"),
        ({"slots": (8, 8)}, "slots must be one or more widths, each once, not (8, 8)"),
        ({"slots": (8, 1)}, "a slot must be 2 .. 8, not 1"),
        ({"port_bits": 3}, "port_bits must divide 4 lanes x 4 columns, not be 3"),
    ],
)
def test_nonsense_is_refused(change, message):
    right = {"lanes": 4, "columns": 4, "group_bits": 2, "slots": (8, 4, 2), "port_bits": 16}
    with pytest.raises(ValueError) as refusal:
        Array(**(right | change))
    assert str(refusal.value) == message


def test_an_unsupported_slot_is_refused():
    with pytest.raises(ValueError, match=r"a slot must be one of \(8, 4\) bits, not 2"):
        Array(4, 4, 4, (8, 4), 16).slot_index(2)
