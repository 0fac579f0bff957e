"""Toggle coverage: which bits of descriptors, state machines, handshakes and control signals changed in a simulation.

Verilator counts the changes (``--coverage-toggle``) of the declarations that ``marked`` chooses; data do not count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from sim_tests.design import Design

DESCRIPTORS: Mapping[str, str] = {"sequencer": "layer", "weight_loader": "entry", "image_loader": "geometry"}
"""Module -> the record that it has of a layer, of a layer's tiles, and of the image."""

SAMPLED: Mapping[str, str] = {"sequencer": "layer_start"}
"""Module -> when its record counts: the sequencer's passes through a shift register before."""

CONTROL = (
    "activation_streamer",
    "drain",
    "image_loader",
    "load_port",
    "max_pool",
    "result_buffer",
    "sequencer",
    "weight_feeder",
    "weight_loader",
)
"""Modules all of whose named one-bit signals count: what starts, ends, enables and selects."""

OFF, ON = "/*verilator coverage_off*/", "/*verilator coverage_on*/"
DECLARATION = re.compile(r"^  (?:input|output|reg|wire) +(?:signed +)?(\[\d+:0\] +)?(\\\S+|\w+) *(?:= .*)?;$", re.M)
ESCAPED = re.compile(r"__0([0-9a-fA-F]{2})")
"""A character of a name as Verilator writes it."""

MODULE = re.compile(r"^module \\?(\S+?) *\(.*?^endmodule", re.M | re.S)


def counts(module: str, name: str, is_bit: bool) -> bool:
    """Return whether the toggles of a signal count.

    Parameters
    ----------
    module : str
        Last part of the module's name; empty for the top.
    name : str
        Of the signal, with the dots and ``$`` of generated names.
    is_bit : bool
        Whether it is one bit wide.
    """
    if not module:
        return is_bit and name.endswith(("__valid", "__ready"))
    if name == "fsm_state" or is_descriptor(module, name):
        return True
    # Amaranth makes more names with dots and dollars: fields of records, and copies of what has its name elsewhere.
    return module in CONTROL and is_bit and re.fullmatch(r"(?!clk$|rst$)[a-z]\w*", name) is not None


def is_descriptor(module: str, name: str) -> bool:
    """Return whether a signal is a field of the record that a module has."""
    return name.startswith(f"{DESCRIPTORS.get(module)}.")


def marked(design: Design) -> Design:
    """Return the design with marks in its Verilog, of which Verilator counts the toggles of what counts."""

    def of_module(found: re.Match[str]) -> str:
        module = found[1].removeprefix(design.name).removeprefix(".")
        copies: list[str] = []

        def of_declaration(declaration: re.Match[str]) -> str:
            bits, name = declaration[1] or "", declaration[2].removeprefix("\\")
            if not counts(module, name, not bits):
                return declaration[0]
            if module in SAMPLED and is_descriptor(module, name):
                copies.append(f"{ON}\n  reg {bits}\\started.{name} = 0;\n{OFF}")
                copies.append(f"  always @(posedge clk) if ({SAMPLED[module]}) \\started.{name} <= \\{name} ;")
                return declaration[0]
            return f"{ON}\n{declaration[0]}\n{OFF}"

        text = DECLARATION.sub(of_declaration, found[0])
        return text.removesuffix("endmodule") + "\n".join([*copies, "endmodule"])

    return replace(design, verilog=f"{OFF}\n{MODULE.sub(of_module, design.verilog)}")


def is_marked(design: Design) -> bool:
    """Return whether ``marked`` made the design."""
    return design.verilog.startswith(OFF)


def decode(data: bytes) -> Counter[str]:
    """Return the toggles that a coverage file of Verilator tells of: ``sequencer.layer.units[3] 0->1`` -> how many."""
    found: Counter[str] = Counter()
    for line in data.decode().splitlines():
        if not line.startswith("C '"):
            continue
        fields, _, count = line[3:].rpartition("' ")
        parts = dict(part.split("\2", 1) for part in fields.split("\1") if part)
        name, _, change = ESCAPED.sub(lambda code: chr(int(code[1], 16)), parts["o"]).rpartition(":")
        unit = parts["h"].rstrip("*").split(".dut", 1)[-1].lstrip(".")
        found[f"{unit}.{name} {change}".lstrip(".")] += int(count)
    return found


@dataclass(frozen=True)
class Excuse:
    """Bits that never change, and why.

    Parameters
    ----------
    bits : str
        Regular expression of their whole names.
    reason : str
    """

    bits: str
    reason: str


def bits(toggles: Mapping[str, int]) -> dict[str, int]:
    """Return how often each bit changed, in either direction."""
    changes: Counter[str] = Counter()
    for name, count in toggles.items():
        changes[name.rpartition(" ")[0]] += count
    return dict(changes)


def never(toggles: Mapping[str, int]) -> list[str]:
    """Return the bits that never changed, by name: the others have been 0 and 1."""
    return sorted(bit for bit, count in bits(toggles).items() if not count)


def unexcused(still: Iterable[str], excuses: Iterable[Excuse]) -> tuple[list[str], list[Excuse]]:
    """Return the bits that no excuse is for, and the excuses that are for no bit."""
    still, excuses = list(still), list(excuses)
    left = [bit for bit in still if not any(re.fullmatch(excuse.bits, bit) for excuse in excuses)]
    idle = [excuse for excuse in excuses if not any(re.fullmatch(excuse.bits, bit) for bit in still)]
    return left, idle
