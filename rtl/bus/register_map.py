"""The registers of the AXI4-Lite port: one table, from which hardware, documents, C header and driver are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from hwsim import spec
from hwsim.machine import MEMORY_NAMES, Machine

REGISTER_BYTES = 4
ADDRESS_BITS = 12
"""The registers own a page of 4 KiB; what is not in the table answers SLVERR."""

IDENTIFICATION = int.from_bytes(b"BSWT", "big")
REGISTER_MAP_VERSION = 2
"""Counts changes after which an older driver would misread a register, or a program made before them be misunderstood:
of this table, and of the packets of the load stream (``hwsim.machine``'s records, ``Program.load_words``).

Version 2: register ``variant``; skip multipliers have packets of their own; the image record describes a ring of
windows; a weight word has a ninth bit for every byte, where the ninth of nine rows lies."""

COMMAND_QUEUE_DEPTH = 4
"""Run commands that wait while an image is computed."""

IMAGES_WAITING_MAX = 3
"""One is computed, one laid out and one received; bytes of a fourth wait."""

RESULTS_WAITING_MAX = 2


class Access(Enum):
    """What a register does; the value is its name in documents."""

    READ = "read"
    READ_WRITE = "read, write"
    CLEAR = "read, write 1 to clear"
    COMMAND = "write"


@dataclass(frozen=True)
class Field:
    """Bits of a register.

    Parameters
    ----------
    name : str
    low : int
        Lowest bit.
    bits : int
    text : str
        What it holds, one sentence.
    """

    name: str
    low: int
    bits: int
    text: str

    def __post_init__(self) -> None:
        if self.low < 0 or self.bits < 1 or self.low + self.bits > 8 * REGISTER_BYTES:
            raise ValueError(
                f"field {self.name} must lie in bits 0 .. 31, not {self.low} .. {self.low + self.bits - 1}"
            )

    @property
    def mask(self) -> int:
        """The field's bits in the register."""
        return ((1 << self.bits) - 1) << self.low


@dataclass(frozen=True)
class Register:
    """A 32-bit register; bits in no field read 0 and are ignored when written.

    Parameters
    ----------
    name : str
    address : int
        Byte address, a multiple of 4.
    access : Access
    fields : tuple of Field
    text : str
    """

    name: str
    address: int
    access: Access
    fields: tuple[Field, ...]
    text: str

    def __post_init__(self) -> None:
        if self.address % REGISTER_BYTES or not 0 <= self.address < 1 << ADDRESS_BITS:
            raise ValueError(
                f"register {self.name}: address must be a multiple of 4 in a 4 KiB page, not {self.address}"
            )
        used = 0
        for field in self.fields:
            if used & field.mask:
                raise ValueError(f"register {self.name}: field {field.name} overlaps another")
            used |= field.mask

    def field(self, name: str) -> Field:
        """Return a field by name, or raise ``ValueError``."""
        for field in self.fields:
            if field.name == name:
                return field
        raise ValueError(f"register {self.name} has no field {name!r}")

    def pack(self, **values: int) -> int:
        """Return the register's word; fields not named are 0.

        Raises
        ------
        ValueError
            If a field is unknown or its value does not fit.
        """
        word = 0
        for name, value in values.items():
            field = self.field(name)
            if not 0 <= value < 1 << field.bits:
                raise ValueError(f"{self.name}.{name} must be 0 .. {(1 << field.bits) - 1}, not {value}")
            word |= value << field.low
        return word

    def unpack(self, word: int) -> dict[str, int]:
        """Return the fields of a register's word."""
        return {field.name: (word & field.mask) >> field.low for field in self.fields}


def _whole(name: str, text: str) -> tuple[Field, ...]:
    return (Field(name, 0, 32, text),)


_CONFIGURATION_TEXT = "Configuration of the machine, constant."
_MEMORY_ADDRESS = 0x20

REGISTERS: tuple[Register, ...] = (
    Register(
        "identification",
        0x00,
        Access.READ,
        _whole("value", f'"BSWT" in ASCII, 0x{IDENTIFICATION:08X}.'),
        "Says that this is a bitswitch accelerator.",
    ),
    Register(
        "version",
        0x04,
        Access.READ,
        (
            Field("spec_version", 0, 16, "SPEC_VERSION of the arithmetic that the hardware was made from."),
            Field("register_map_version", 16, 16, "Version of this table."),
        ),
        "A driver or a program of another version must not be used.",
    ),
    Register(
        "widths",
        0x08,
        Access.READ,
        (
            Field("weight_widths", 0, 8, "Bit w - 1 is set if weights of w bits can be used."),
            Field("activation_widths", 8, 8, "Bit a - 1 is set if activations of a bits can be used."),
        ),
        _CONFIGURATION_TEXT,
    ),
    Register(
        "array",
        0x0C,
        Access.READ,
        (
            Field("lanes", 0, 8, "Lanes of a column."),
            Field("columns", 8, 8, "Output channels computed at once."),
            Field("banks", 16, 8, "Banks of the activation memory."),
            Field("requantizers", 24, 8, "Accumulators requantized in a cycle."),
        ),
        _CONFIGURATION_TEXT,
    ),
    Register(
        "datapath",
        0x10,
        Access.READ,
        (
            Field("weight_port_bits", 0, 10, "Width of the path from the weight memory."),
            Field("strip_pixels", 10, 13, "Output pixels accumulated at once."),
            Field("accumulator_bits", 24, 6, "Width of an accumulator."),
        ),
        _CONFIGURATION_TEXT,
    ),
    Register(
        "requantizer",
        0x14,
        Access.READ,
        (
            Field("multiplier_bits", 0, 8, "Width of M."),
            Field("skip_multiplier_bits", 8, 8, "Width of K."),
            Field("addend_bits", 16, 8, "Width of B."),
            Field("shift_max", 24, 8, "Largest S."),
        ),
        _CONFIGURATION_TEXT,
    ),
    Register(
        "variant",
        0x18,
        Access.READ,
        (
            Field("digits", 0, 1, "1 if weights are applied digit by digit, in multipliers; 0 if plane by plane."),
            Field("image_channels", 8, 3, "Image channels laid out in a cycle."),
        ),
        _CONFIGURATION_TEXT,
    ),
    *(
        Register(
            name,
            _MEMORY_ADDRESS + REGISTER_BYTES * index,
            Access.READ,
            _whole("value", f"Depth of a memory: {name.replace('_', ' ')}."),
            _CONFIGURATION_TEXT,
        )
        for index, name in enumerate(MEMORY_NAMES)
    ),
    Register(
        "run",
        0x80,
        Access.COMMAND,
        (Field("slot", 0, 20, "Layer slot where the assignment begins."),),
        "Queues one run: the next image, in the order of arrival, is computed at this assignment. "
        "SLVERR, and nothing is queued, if the queue is full, the machine is reset or has no such slot.",
    ),
    Register(
        "reset",
        0x84,
        Access.READ_WRITE,
        (Field("machine", 0, 1, "While 1, the machine is reset and takes nothing."),),
        "Drops the image at work, the images, commands and results that wait, and all counters. The loaded program and "
        "the interrupt registers stay. What sends images must be stopped before the reset ends; a result that was on "
        "its way ends without TLAST.",
    ),
    Register(
        "status",
        0x88,
        Access.READ,
        (
            Field("busy", 0, 1, "An image is computed, or a command waits for its image."),
            Field("loaded", 1, 1, "A program has been loaded."),
            Field("images_waiting", 4, 2, "Images received that are not computed yet, the one at work included."),
            Field("results_waiting", 8, 2, "Images computed whose logits have not all been taken."),
            Field("command_space", 12, 3, "Commands that the queue can still take."),
        ),
        "What the machine does now.",
    ),
    Register(
        "loaded_image_bytes",
        0x8C,
        Access.READ,
        _whole("value", "Bytes of an image, 0 before a program has been loaded."),
        "Image size of the loaded program.",
    ),
    Register(
        "interrupt_enable",
        0x90,
        Access.READ_WRITE,
        (
            Field("image_done", 0, 1, "Interrupt when an image has been computed."),
            Field("image_size_error", 1, 1, "Interrupt at an image size error."),
        ),
        "The interrupt line is high while a bit is set both here and in interrupt_status.",
    ),
    Register(
        "interrupt_status",
        0x94,
        Access.CLEAR,
        (
            Field("image_done", 0, 1, "An image has been computed since this was cleared."),
            Field(
                "image_size_error",
                1,
                1,
                "TLAST came in the middle of an image, whose missing bytes were taken as 0, since this was cleared.",
            ),
        ),
        "Set whether or not the interrupt is enabled; an event in the cycle of the write wins.",
    ),
    Register(
        "cycles",
        0xA0,
        Access.READ,
        _whole("value", "Cycles of the last image, stalls not included."),
        "Equal to the model's timing of the assignment.",
    ),
    Register(
        "stall_cycles",
        0xA4,
        Access.READ,
        _whole("value", "Cycles, modulo 2**32, that commands waited for an image or for result space, since reset."),
        "Grows when the streams are too slow.",
    ),
    Register(
        "images_done",
        0xA8,
        Access.READ,
        _whole("value", "Images computed since reset, modulo 2**32."),
        "Counts images.",
    ),
    Register(
        "weight_planes_read",
        0xAC,
        Access.READ,
        _whole("value", "Words read from the weight memory since reset, modulo 2**32."),
        "Shows what a narrow width saves.",
    ),
)


def register(name: str) -> Register:
    """Return a register by name, or raise ``ValueError``."""
    for candidate in REGISTERS:
        if candidate.name == name:
            return candidate
    raise ValueError(f"there is no register {name!r}")


def configuration(machine: Machine) -> dict[str, dict[str, int]]:
    """Return the contents of the constant registers of a machine: register -> field -> value."""
    values = {
        "identification": {"value": IDENTIFICATION},
        "version": {"spec_version": spec.SPEC_VERSION, "register_map_version": REGISTER_MAP_VERSION},
        "widths": {
            "weight_widths": _mask(machine.weight_widths),
            "activation_widths": _mask(machine.activation_widths),
        },
        "array": {name: getattr(machine, name) for name in ("lanes", "columns", "banks", "requantizers")},
        "datapath": {name: getattr(machine, name) for name in ("weight_port_bits", "strip_pixels", "accumulator_bits")},
        "requantizer": dataclasses.asdict(machine.requantizer),
        "variant": {"digits": int(machine.datapath == "dsp"), "image_channels": machine.image_channels},
    }
    return values | {name: {"value": getattr(machine, name)} for name in MEMORY_NAMES}


def _mask(widths: Iterable[int]) -> int:
    return sum(1 << (bits - 1) for bits in widths)
