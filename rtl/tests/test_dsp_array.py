# amaranth: UnusedElaboratable=no
"""The DSP array against plain integer dot products of the activations and weight digits it was given."""

import random

import pytest
from amaranth.hdl import Fragment

from rtl.dsp_array import DspArray
from rtl.leaves.array_column import LANE_BITS
from rtl.leaves.digit_column import DigitColumn
from rtl.targets import ECP5
from rtl.tests import simulate
from rtl.tests.mutation import mutant
from rtl.tests.test_array import pack

SHAPES = [
    # lanes, columns, group_bits, slots, port_bits
    (4, 4, 2, (8, 4, 2), 16),
    (8, 2, 2, (8, 2), 8),
    (8, 3, 4, (8, 4), 12),
    (16, 2, 8, (8,), 8),
    (4, 5, 2, (2,), 5),
    (4, 4, 2, (2, 4), 8),
]


def draw(array, cycles, seed):
    """Return (inputs, expected sums) of passes of a few words; the digits of the next one are written meanwhile."""
    rng = random.Random(seed)
    cells = array.lanes * array.columns
    inputs, expected = [], []
    digits = None

    def words_of(slot_bits, planes):
        """Return the writes of a pass, and its digits[index][lane * C + column]."""
        indices = LANE_BITS // slot_bits
        made = [[0] * cells for _ in range(indices)]
        writes = [{"weight_clear": 1, "weight_write": rng.getrandbits(1), "weight_row": 0}]
        order = [(i, b, r) for i in range(indices) for b in range(planes) for r in range(array.rows)]
        rng.shuffle(order)
        for index, bit, row in order:
            value = rng.choice((rng.getrandbits(array.port_bits), (1 << array.port_bits) - 1))
            for at in range(array.port_bits):
                made[index][row * array.port_bits + at] |= (value >> at & 1) << bit
            groups = slot_bits // array.group_bits
            writes.append(
                {
                    "weight_clear": 0,
                    "weight_write": 1,
                    "weight_row": row,
                    "weight_data": value,
                    "weight_groups": ((1 << groups) - 1) << (index * groups),
                    "weight_slot": array.slot_index(slot_bits),
                    "weight_bit": bit,
                }
            )
            if rng.random() < 0.2:
                writes.append({"weight_clear": 0, "weight_write": 0, "weight_data": rng.getrandbits(array.port_bits)})
        return writes, made

    slot_bits = planes = None
    while len(inputs) < cycles:
        next_slot = rng.choice(array.slots)
        next_planes = rng.randint(1, next_slot)
        writes, next_digits = words_of(next_slot, next_planes)
        length = max(len(writes), 3)
        for cycle in range(length):
            words = {"swap": 0} | (writes[cycle] if cycle < len(writes) else {"weight_clear": 0, "weight_write": 0})
            if digits is not None:
                top = (1 << slot_bits) - 1
                values = [
                    [rng.choice((top, rng.randint(0, top))) for _ in range(LANE_BITS // slot_bits)]
                    for _ in range(array.lanes)
                ]
                signed_planes = rng.choice((0, planes))
                enable = rng.choice(((1 << array.groups) - 1, rng.getrandbits(array.groups)))
                sums = []
                for column in range(array.columns):
                    total = 0
                    for lane, held in enumerate(values):
                        for index, value in enumerate(held):
                            groups = slot_bits // array.group_bits
                            enabled = enable >> (index * groups)
                            mask = sum(
                                ((1 << array.group_bits) - 1) << (part * array.group_bits)
                                for part in range(groups)
                                if enabled >> part & 1
                            )
                            digit = digits[index][lane * array.columns + column]
                            offset = 1 << (signed_planes - 1) if signed_planes else 0
                            total += (value & mask) * (digit - offset)
                    sums.append(total)
                expected.append(sums)
                words |= {
                    "activations": pack(array, values, slot_bits),
                    "enable": enable,
                    "slot": array.slot_index(slot_bits),
                    "signed_planes": signed_planes,
                    "swap": int(cycle == 0),
                }
            else:
                expected.append(None)
            inputs.append(words)
        digits, slot_bits, planes = next_digits, next_slot, next_planes
    return inputs, expected


def mismatches(array, inputs, expected):
    seen = simulate.stream(array, inputs, ["sums"], array.LATENCY)
    found = [[word["sums"][column] for column in range(array.columns)] for word in seen]
    compared = [(a, b) for a, b in zip(found, expected, strict=True) if b is not None]
    assert len(compared) > 50 and any(any(sums) for _, sums in compared)
    return sum(a != b for a, b in compared)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_digits_slots_masks_and_swaps(shape):
    array = DspArray(*shape)
    assert mismatches(array, *draw(array, 200 if array.lanes * array.columns <= 20 else 120, seed=array.lanes)) == 0


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("Mux(self.enable[k], self.activations[part], 0)", "self.activations[part]"),
        ("total.total << (count - 1)", "total.total << count"),
        ("& (self.weight_bit == bit)", ""),
        ("part.eq(0)", "part.eq(part)"),
        ('delay(m, self.swap, self.PLACING_CYCLES - 1, "swap")', 'delay(m, self.swap, self.PLACING_CYCLES, "swap")'),
        ("narrowest_first[at + 1 :]", "narrowest_first[at:]"),
    ],
)
def test_a_wrong_one_is_caught(right, wrong):
    array = mutant(DspArray, right, wrong)(*SHAPES[0])
    assert mismatches(array, *draw(array, 160, seed=4)) > 0


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("parity_held.eq(parity)", "parity_held.eq(0)"),
        ("for _, digit in PARITY_PAIRS", "for digit, _ in PARITY_PAIRS"),
    ],
)
def test_a_wrong_column_is_caught(right, wrong, monkeypatch):
    monkeypatch.setattr("rtl.dsp_array.DigitColumn", mutant(DigitColumn, right, wrong))
    array = DspArray(*SHAPES[0])
    assert mismatches(array, *draw(array, 160, seed=4)) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lanes": 12}, "lanes must be a power of two, not 12"),
        ({"group_bits": 1}, "group_bits must be 2 .. 8, not 1"),
        ({"slots": (8, 8)}, "slots must be one or more of (8, 4, 2), each once, not (8, 8)"),
        ({"port_bits": 3}, "port_bits must divide 4 lanes x 4 columns, not be 3"),
    ],
)
def test_nonsense_is_refused(change, message):
    right = {"lanes": 4, "columns": 4, "group_bits": 2, "slots": (8, 4, 2), "port_bits": 16}
    with pytest.raises(ValueError) as refusal:
        DspArray(**(right | change))
    assert str(refusal.value) == message


def test_more_multipliers_than_the_target_has_are_refused():
    with pytest.raises(ValueError, match="32 lanes x 16 columns take 512 multipliers, the largest ecp5 has 156"):
        Fragment.get(DspArray(32, 16, 2, (8, 4, 2), 64), ECP5)
