"""The register table, and the documents made from it."""

import dataclasses
import hashlib
import json
import re

import pytest

from hwsim.machine import LOAD_TARGETS, MEMORY_NAMES, MEMORY_WORDS_MAX, MEMORY_WORDS_MOST, Machine
from hwsim.precision import WidthSet
from hwsim.requantize import RequantizerFormat
from rtl.bus import register_documents, register_map
from rtl.bus.register_map import REGISTERS, Access, Field, Register

EVERY_WIDTH = WidthSet((8, 7, 6, 5, 4, 3, 2, 1))
SMALL = Machine(weight_widths=WidthSet((8, 2)), activation_widths=WidthSet((8, 4)), weight_port_bits=16)
LARGEST = Machine(
    weight_widths=EVERY_WIDTH,
    activation_widths=EVERY_WIDTH,
    lanes=64,
    columns=64,
    banks=16,
    requantizers=16,
    weight_port_bits=256,
    strip_pixels=4096,
    accumulator_bits=32,
    image_channels=4,
    datapath="dsp",
    **{name: MEMORY_WORDS_MAX.get(name, MEMORY_WORDS_MOST) for name in MEMORY_NAMES},
)


FORMAT_DIGEST = "43e7859084f70064"


def test_a_change_of_registers_or_load_packets_has_a_new_version():
    """What a driver reads and what a program holds: whoever changes it raises REGISTER_MAP_VERSION, and
    then writes the new digest here."""
    layouts = [
        getattr(machine, f"{name}_layout").fields
        for machine in (SMALL, LARGEST)
        for name in ("layer", "tiles", "table", "image")
    ]
    registers = [
        (each.name, each.address, each.access.value, [vars(field) | {"text": ""} for field in each.fields])
        for each in REGISTERS
    ]
    known = [register_map.REGISTER_MAP_VERSION, registers, layouts, sorted(LOAD_TARGETS.items())]
    assert hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16] == FORMAT_DIGEST


def test_names_and_addresses_are_unique():
    assert len({register.name for register in REGISTERS}) == len(REGISTERS)
    assert len({register.address for register in REGISTERS}) == len(REGISTERS)
    ports = [f"{register.name}_{field.name}" for register in REGISTERS for field in register.fields]
    assert len(set(ports)) == len(ports)


@pytest.mark.parametrize("machine", [SMALL, LARGEST], ids=["small", "largest"])
def test_the_configuration_of_every_machine_fits_its_registers(machine):
    values = register_map.configuration(machine)
    for name, fields in values.items():
        register = register_map.register(name)
        assert register.access is Access.READ
        assert set(fields) == {field.name for field in register.fields}
        assert register.unpack(register.pack(**fields)) == fields
    assert register_map.register("run").field("slot").bits >= (machine.layer_slots - 1).bit_length()


def test_the_configuration_tells_machines_apart():
    """Every number of the configuration shows in a register."""
    changes = {"lanes": 8, "columns": 12, "banks": 2, "requantizers": 2, "weight_port_bits": 8, "strip_pixels": 32}
    changes |= {"accumulator_bits": 25, "requantizer": RequantizerFormat(multiplier_bits=17)}
    changes |= {"weight_widths": WidthSet((8, 3)), "activation_widths": WidthSet((8, 2))}
    changes |= {name: getattr(SMALL, name) + 1 for name in MEMORY_NAMES}
    changes |= {"image_words": 2 * SMALL.image_words}
    for name, value in changes.items():
        changed = dataclasses.replace(SMALL, **{name: value})
        assert register_map.configuration(changed) != register_map.configuration(SMALL), name


def test_unpack_is_the_inverse_of_pack():
    status = register_map.register("status")
    for index in range(1 << 10):
        fields = {field.name: index * 37 % (1 << field.bits) for field in status.fields}
        assert status.unpack(status.pack(**fields)) == fields
    assert status.pack(busy=1, command_space=4) == 0x4001


def test_what_breaks_a_rule_is_refused():
    with pytest.raises(ValueError, match=r"field wide must lie in bits 0 .. 31, not 30 .. 32"):
        Field("wide", 30, 3, "")
    with pytest.raises(ValueError, match=r"register odd: address must be a multiple of 4 in a 4 KiB page, not 6"):
        Register("odd", 6, Access.READ, (), "")
    with pytest.raises(ValueError, match=r"register twice: field b overlaps another"):
        Register("twice", 4, Access.READ, (Field("a", 0, 4, ""), Field("b", 3, 1, "")), "")
    with pytest.raises(ValueError, match=r"run.slot must be 0 .. 1048575, not 1048576"):
        register_map.register("run").pack(slot=1 << 20)
    with pytest.raises(ValueError, match=r"register run has no field 'slots'"):
        register_map.register("run").pack(slots=1)
    with pytest.raises(ValueError, match=r"there is no register 'runs'"):
        register_map.register("runs")


def test_the_document_has_every_register_and_field():
    text = register_documents.markdown("top")
    for register in REGISTERS:
        assert f"| 0x{register.address:03X} | `{register.name}` | {register.access.value} |" in text
        for field in register.fields:
            bits = f"{field.low + field.bits - 1}:{field.low}" if field.bits > 1 else str(field.low)
            assert f"| `{register.name}` | {bits} | `{field.name}` | {field.text} |" in text


def test_the_header_has_every_register_and_field():
    text = register_documents.c_header("top", SMALL)
    defined = {name: int(value, 0) for name, value in re.findall(r"#define (\w+) (\w+)u\n", text)}
    constants = register_map.configuration(SMALL)
    count = 0
    for register in REGISTERS:
        stem = f"TOP_{register.name}".upper()
        assert defined[stem] == register.address
        count += 1
        for field in register.fields:
            part = f"{stem}_{field.name}".upper()
            assert (defined[f"{part}_SHIFT"], defined[f"{part}_MASK"]) == (field.low, field.mask)
            count += 2
            if register.name in constants:
                assert defined[f"{part}_CONSTANT"] == constants[register.name][field.name]
                count += 1
    assert len(defined) == count
