"""Configuration of the machine: every rule is refused by one sentence, and layouts survive a round trip."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim import spec
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
        ({"datapath": "lut"}, "datapath must be planes or dsp, not 'lut'"),
        ({"datapath": "dsp", "accumulator_bits": 20}, "must be more than the 21 bits of a sum of 16 products, not 20"),
        ({"accumulator_bits": 12}, "must be more than the 12 bits of a sum of 16 lanes, not 12"),
        ({"staging_words": 1 << 20}, r"staging_words must be 1 \.\. 524288, not 1048576"),
        ({"layer_slots": 65537}, r"layer_slots must be 1 \.\. 65536, not 65537"),
        *(({name: 0}, rf"{name} must be 1 \.\. \d+, not 0") for name in MEMORY_NAMES),
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


ALL_WIDTHS = WidthSet(tuple(range(1, spec.MAX_BITS + 1)))


def digits(weight: int, bits: int, planes_of_passes: tuple[int, ...]) -> list[int]:
    """Return the digits of a weight, the first signed: of a bipolar weight 2p - 1 they are its two planes less 2."""
    planes = [spec.plane_bit(weight, bits, position) for position in range(spec.planes_applied(bits))]
    values = []
    for count in planes_of_passes:
        values.append(sum(bit << (count - 1 - at) for at, bit in enumerate(planes[:count])))
        planes = planes[count:]
    top = planes_of_passes[0] - 1
    values[0] = values[0] - (2 << top if bits > 1 and values[0] >> top else 2 if bits == 1 else 0)
    return values


@pytest.mark.parametrize("bits", ALL_WIDTHS)
def test_digits_make_the_weight_and_planes_are_the_same_passes(bits: int) -> None:
    dsp = Machine(weight_widths=ALL_WIDTHS, activation_widths=ALL_WIDTHS, datapath="dsp")
    planes = dataclasses.replace(dsp, datapath="planes", banks=2, requantizers=1)
    weights = (-1, 1) if bits == 1 else range(spec.signed_low(bits), spec.signed_high(bits) + 1)
    for activation_bits in ALL_WIDTHS:
        of_passes = dsp.planes_of_passes(bits, activation_bits)
        slot = dsp.slot_bits(activation_bits)
        assert len(of_passes) == -(-spec.planes_applied(bits) // slot)
        assert max(of_passes) <= slot and sum(of_passes) == spec.planes_applied(bits)
        for weight in weights:
            made = 0
            for at, digit in enumerate(digits(weight, bits, of_passes)):
                made = spec.accumulate_digit(made, digit, slot if at else 0)
            assert made == weight
        assert planes.planes_of_passes(bits, activation_bits) == (1,) * spec.planes_applied(bits)
        assert dsp.macs_per_cycle(bits, activation_bits) == 16 * 8 * (8 // slot) / len(of_passes)
