# amaranth: UnusedElaboratable=no
"""A machine that may be configured can be built: its smallest and largest values are not refused by any unit."""

from __future__ import annotations

import itertools

import pytest

from hwsim.machine import DATAPATHS, MEMORY_NAMES, Machine
from hwsim.precision import WidthSet
from hwsim.requantize import RequantizerFormat
from rtl.accumulator import Accumulator
from rtl.drain import SKIP_OPERAND_BITS
from rtl.leaves.memory import TwoCycleMemory
from rtl.memory_plan import memory_shapes
from rtl.requantizer import Requantizer

WIDTHS = WidthSet((8, 4, 2))
LIMITS = {"multiplier_bits": (2, 32), "skip_multiplier_bits": (2, 40), "addend_bits": (16, 62), "shift_max": (1, 52)}


@pytest.mark.parametrize(("datapath", "lanes"), list(itertools.product(DATAPATHS, (4, 8, 16, 32, 64))))
def test_the_narrowest_accumulator_of_a_machine_can_be_built(datapath: str, lanes: int) -> None:
    options = {"datapath": datapath, "requantizers": 4}
    accepted = []
    for bits in range(12, 33):
        try:
            machine = Machine.sized(WIDTHS, WIDTHS, lanes, 4, accumulator_bits=bits, **options)
        except ValueError as refusal:
            assert f"a sum of {lanes}" in str(refusal)
            continue
        accepted.append(bits)
        digit_shifts = machine.digit_shifts if datapath == "dsp" else ()
        Accumulator(machine.columns, machine.sum_bits, machine.accumulator_bits, machine.strip_pixels, digit_shifts)
    assert accepted == list(range(accepted[0], 33))
    assert accepted[0] == max(12, machine.sum_bits + 1)


@pytest.mark.parametrize("values", list(itertools.product(*LIMITS.values())))
@pytest.mark.parametrize("accumulator_bits", [14, 32])
def test_requantizers_of_all_limits_can_be_built(values: tuple[int, ...], accumulator_bits: int) -> None:
    widths = vars(RequantizerFormat(**dict(zip(LIMITS, values, strict=True))))
    Requantizer(operand_bits=accumulator_bits, skip_bits=SKIP_OPERAND_BITS, output_bits=32, **widths)
    Requantizer(operand_bits=SKIP_OPERAND_BITS, skip_bits=0, output_bits=9, **widths | {"skip_multiplier_bits": 0})


def highest(name: str) -> int:
    """Return the most words that a memory may be configured to have."""
    words = 1 << 21
    while words:
        try:
            Machine(weight_widths=WIDTHS, activation_widths=WIDTHS, **{name: words})
        except ValueError:
            words >>= 1
        else:
            return words
    raise AssertionError(name)


@pytest.mark.parametrize("name", MEMORY_NAMES)
def test_memories_of_all_depths_can_be_built(name: str) -> None:
    for words in (2 if name == "image_words" else 1, highest(name)):
        machine = Machine(weight_widths=WIDTHS, activation_widths=WIDTHS, **{name: words})
        for shapes in memory_shapes(machine).values():
            for width, depth, granularity in shapes:
                TwoCycleMemory(width, max(2, depth), granularity)  # as the accelerator makes them
