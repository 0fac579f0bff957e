"""The register map for people (Markdown) and for software (a C header)."""

from __future__ import annotations

from hwsim.machine import Machine
from rtl.bus.register_map import ADDRESS_BITS, REGISTERS, Register, configuration

BUS_RULES = f"""\
AXI4-Lite, 32 bits of data, {ADDRESS_BITS} bits of byte address, the two lowest ignored. Byte strobes are honoured; a \
command needs all four. SLVERR, without any effect, is the answer to an address without a register, a write of a \
register that can only be read, a read of one that can only be written, and a command that cannot be taken. AWPROT and \
ARPROT have no ports.

One clock, `aclk`. `aresetn`, active low, is sampled by it: it must be low for at least one rising edge and be \
released synchronously. Inside, the reset is synchronous and active high.
"""

STREAMS = """\
| stream | direction | rule |
|---|---|---|
| `s_axis_load` | in, 32 bits | Words of the program, as `Program.load_words` gives them. Taken only while no image is \
computed and no command waits. |
| `s_axis_image` | in, 4 bytes, TKEEP, TLAST | Pixels, unsigned, in (row, column, channel) order, lowest byte first; a \
byte whose TKEEP bit is low is skipped, wherever it is. Every `loaded_image_bytes` bytes are an image, which may begin \
at any byte of a beat. TLAST must come with the last byte of an image, but need not with that of every image. If it \
comes in the middle of an image, the missing bytes are taken as 0 and `image_size_error` is set. Nothing is taken \
before a program has been loaded. Two images and the one at work are held. |
| `m_axis_result` | out, 32 bits, TLAST | Logits, signed; TLAST with the last of an image. Two images' logits are \
held; then the machine waits, and counts it in `stall_cycles`. |
"""


def markdown(name: str) -> str:
    """Return the documentation of the bus interfaces of module ``name``."""
    lines = [
        f"# Registers of {name}",
        "",
        BUS_RULES,
        "| address | register | access | what it is |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| 0x{register.address:03X} | `{register.name}` | {register.access.value} | {register.text} |"
        for register in REGISTERS
    ]
    lines += ["", "## Fields", "", "| register | bits | field | what it holds |", "|---|---|---|---|"]
    for register in REGISTERS:
        for field in register.fields:
            high = field.low + field.bits - 1
            bits = f"{high}:{field.low}" if field.bits > 1 else f"{field.low}"
            lines.append(f"| `{register.name}` | {bits} | `{field.name}` | {field.text} |")
    return "\n".join([*lines, "", "## Streams", "", STREAMS])


def c_header(name: str, machine: Machine) -> str:
    """Return a C header: offset of every register, shift and mask of every field, values of the constant ones."""
    prefix = name.upper()
    lines = [
        f"/* Registers of {name}. Generated, do not edit. */",
        f"#ifndef {prefix}_REGISTERS_H",
        f"#define {prefix}_REGISTERS_H",
        "",
    ]
    constants = configuration(machine)
    for register in REGISTERS:
        lines.append(f"/* {register.access.value}: {register.text} */")
        lines.append(f"#define {prefix}_{register.name.upper()} 0x{register.address:03X}u")
        for field in register.fields:
            stem = _stem(prefix, register, field.name)
            lines += [
                f"/* {field.text} */",
                f"#define {stem}_SHIFT {field.low}u",
                f"#define {stem}_MASK 0x{field.mask:08X}u",
            ]
            if register.name in constants:
                lines.append(f"#define {stem}_CONSTANT {constants[register.name][field.name]}u")
        lines.append("")
    return "\n".join([*lines, "#endif", ""])


def _stem(prefix: str, register: Register, field: str) -> str:
    return f"{prefix}_{register.name.upper()}_{field.upper()}"
