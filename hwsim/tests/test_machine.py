"""Configuration of the machine: every rule is refused by one sentence, and layouts survive a round trip."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.machine import MEMORY_NAMES, FieldLayout, Machine, bits_for
from hwsim.precision import CATALOG, WidthSet
from hwsim.requantize import RequantizerFormat

STANDARD = CATALOG["8-6-4-2"]


def machine(**options: object) -> Machine:
    return Machine(weight_widths=STANDARD, activation_widths=STANDARD, **options)  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.data())
def test_records_survive_packing(widths: list[int], data: st.DataObject) -> None:
    layout = FieldLayout(tuple((f"field_{index}", bits) for index, bits in enumerate(widths)))
    values = {name: data.draw(st.integers(0, (1 << bits) - 1)) for name, bits in layout.fields}
    record = layout.pack(values)
    assert record < 1 << layout.bits
    assert layout.unpack(record) == values
    assert 32 * (layout.load_words - 1) < layout.bits <= 32 * layout.load_words


def test_records_are_checked() -> None:
    layout = FieldLayout((("a", 3), ("b", 2)))
    with pytest.raises(ValueError, match="a must fit in 3 bits, not 8"):
        layout.pack({"a": 8, "b": 0})
    with pytest.raises(ValueError, match=r"exactly its layout's fields; \['b'\] differ"):
        layout.pack({"a": 0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lanes": 12}, "lanes must be a power of two, not 12"),
        ({"lanes": 128}, r"lanes must be 4 \.\. 64, not 128"),
        ({"lanes": 16.0}, r"lanes must be an integer, not 16\.0"),
        ({"columns": 3}, r"columns must be 4 \.\. 64, not 3"),
        ({"columns": 10}, "requantizers must divide lanes and columns, not 4 for 16 and 10"),
        ({"banks": 3}, "banks must be a power of two, not 3"),
        ({"banks": 32}, r"banks must be 1 \.\. 16, not 32"),
        ({"banks": 16, "requantizers": 8, "weight_port_bits": 8}, r"at most bank_lanes \* groups = 4, not 8"),
        ({"weight_port_bits": 64}, r"must divide bank_lanes \* columns, not 64 for 4 \* 8"),
        ({"strip_pixels": 48}, "strip_pixels must be a power of two, not 48"),
        ({"accumulator_bits": 40}, r"accumulator_bits must be 12 \.\. 32, not 40"),
        ({"image_channels": 5}, r"image_channels must be 1 \.\. 4, not 5"),
        *(({name: 0}, rf"{name} must be 1 \.\. 1048576, not 0") for name in MEMORY_NAMES),
    ],
)
def test_bad_configurations_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        machine(**options)


@pytest.mark.parametrize("widths", CATALOG.values(), ids=str)
@pytest.mark.parametrize("lanes", [4, 8, 16, 32, 64])
@pytest.mark.parametrize("columns", [4, 8, 12, 16, 30, 64])
def test_sized_machines_are_valid(widths: WidthSet, lanes: int, columns: int) -> None:
    sized = Machine.sized(widths, widths, lanes, columns)
    assert (sized.lanes, sized.columns, sized.bank_lanes) == (lanes, columns, 4)
    assert sized.weight_port_bits <= 64 or sized.weight_port_bits % 2
    assert all(bits > 0 for bits in sized.memory_bits.values())


@pytest.mark.parametrize("widths", CATALOG.values(), ids=str)
def test_json_round_trip(widths: WidthSet) -> None:
    original = dataclasses.replace(
        Machine.sized(widths, STANDARD, 32, 16), requantizer=RequantizerFormat(multiplier_bits=20)
    )
    assert Machine.from_json(json.loads(json.dumps(original.to_json()))) == original


def test_slots_and_peak_rates() -> None:
    standard = machine(lanes=32, columns=16, banks=8, weight_port_bits=64)
    assert standard.slots == (8, 4, 2)
    assert standard.group_bits == 2
    assert [standard.slot_index(bits) for bits in (8, 6, 4, 3, 2)] == [2, 2, 1, 1, 0]
    assert [standard.macs_per_cycle(bits, bits) for bits in (8, 6, 4, 2)] == [64, 512 / 6, 256, 1024]
    assert [standard.units_per_pixel(16, bits) for bits in (8, 4, 2)] == [4, 2, 1]
    assert standard.units_per_pixel(17, 8) == 8


def test_bits_for() -> None:
    assert [bits_for(value) for value in (0, 1, 2, 3, 4, 255, 256)] == [1, 1, 2, 2, 3, 8, 9]
