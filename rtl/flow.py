"""A machine, or its array alone, all the way to an FPGA: Verilog, yosys, nextpnr, and a report of what it takes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwsim.machine import Machine
from rtl import scan_harness, synthesis
from rtl.accelerator import multiplier_count
from rtl.array import Array
from rtl.conversion import to_verilog
from rtl.devices import Device
from rtl.dsp_array import DspArray
from rtl.memory_plan import machine_block_rams
from rtl.verilog import NAME, accelerator_verilog, describe, ports

PARTS = ("accelerator", "array")
"""What can be built: all of it, or only the array without memories, accumulators and requantizers."""

ARRAY_NAME = "bitswitch_array"

SIZES = ((4, 4), (8, 4), (8, 8), (16, 8), (16, 16), (32, 16), (32, 32), (64, 32), (64, 64))
"""(lanes, columns) that the search for the largest machine goes through."""

Say = Callable[[str], None]
"""Is told of every stage, in a line."""


@dataclass(frozen=True, kw_only=True)
class Utilization:
    """How much of one resource is taken.

    Parameters
    ----------
    resource : str
        ``lut``, ``ff``, ``dsp``, ``block_ram``, ``logic_cell`` (a table and a register) or ``memory_bit``.
    cell : str
        What the tool calls it; empty where several kinds of cells are counted.
    used : int
    available : int, optional
        None where nothing limits it.
    """

    resource: str
    cell: str
    used: int
    available: int | None = None

    @property
    def excess(self) -> int:
        """How many are too many."""
        return 0 if self.available is None else max(0, self.used - self.available)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a machine takes of a device.

    Parameters
    ----------
    device : Device
    part : str
        One of ``PARTS``.
    machine : Machine
    utilization : tuple of Utilization
    target_mhz : float
        What nextpnr worked towards.
    fmax_mhz : float, optional
        Of the slowest path between registers or block RAMs; None where nothing was placed, or it does not fit.
    harness_luts, harness_ffs : int
        How many of those are of the scan harness around the design.
    why_not : str
        By how much it does not fit; empty if it does.
    tools : mapping of str to str
        Versions.
    folder : Path
        Where Verilog, netlist and the tools' logs are.
    seconds : mapping of str to float
        What each stage took.
    """

    device: Device
    part: str
    machine: Machine
    utilization: tuple[Utilization, ...]
    target_mhz: float = 0
    fmax_mhz: float | None = None
    harness_luts: int = 0
    harness_ffs: int = 0
    why_not: str = ""
    tools: Mapping[str, str] = dataclasses.field(default_factory=dict)
    folder: Path = Path()
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def used(self, resource: str) -> int | None:
        """Return how many of a resource are taken; None if they are not counted."""
        return next((one.used for one in self.utilization if one.resource == resource), None)

    @property
    def fits(self) -> bool:
        """Whether it fits, as far as has been seen."""
        return not self.why_not

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "target": self.device.name,
            "part": self.part,
            "machine": self.machine.to_json(),
            **{name: self.used(name) for name in ("lut", "ff", "dsp", "block_ram", "memory_bit")},
            "target_mhz": self.target_mhz,
            "fmax_mhz": self.fmax_mhz,
            "fits": self.fits if self.device.placer else None,
            "why_not": self.why_not,
            "harness": {"lut": self.harness_luts, "ff": self.harness_ffs},
            "utilization": [vars(one) for one in self.utilization],
            "tools": dict(self.tools),
            "seconds": dict(self.seconds),
            "logs": str(self.folder),
        }


def build(
    machine: Machine,
    device: Device,
    folder: Path,
    *,
    part: str = "accelerator",
    seed: int = 1,
    target_mhz: float | None = None,
    route: bool = True,
    say: Say = lambda line: None,
) -> Report:
    """Generate, synthesize, place and route; return what it takes, also if it does not fit.

    Parameters
    ----------
    machine : Machine
    device : Device
        One of ``rtl.devices.DEVICES``.
    folder : Path
        Where the tools work, and where their logs stay.
    part : str
        One of ``PARTS``.
    seed : int
        Of the placer.
    target_mhz : float, optional
        What nextpnr works towards; the device's own clock if not given.
    route : bool
        Without, cells are only packed: the same counts, and ``fmax_mhz`` is None.
    say : callable of str
        Is told of every stage.

    Raises
    ------
    SynthesisError
        If a tool is missing or fails, other than for lack of room.
    ValueError
        If there is no such part.
    """
    if part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}, not {part!r}")
    tools = synthesis.tool_versions(device)
    known: dict[str, Any] = {"device": device, "part": part, "machine": machine, "tools": tools, "folder": folder}
    known["target_mhz"] = target_mhz or device.target_mhz
    needs = _known_beforehand(machine, device, part)
    if any(one.excess for one in needs):
        excess = _placement(needs)
        where = "known before synthesis"
        return Report(utilization=needs, why_not=synthesis.why_not(excess, device, where), **known)

    seconds: dict[str, float] = {}
    known["seconds"] = seconds
    stage = _Stages(seconds, say)
    with stage("Verilog", "verilog"):
        text, top, described = _verilog(machine, device, part)
    if device.scan_pins:
        text += scan_harness.harness(top, described, device.oscillator)
        known["harness_luts"], known["harness_ffs"] = scan_harness.harness_cells(described)
        top = scan_harness.TOP
    with stage(f"synthesis, yosys {tools['yosys']}", "synthesis"):
        netlist = synthesis.synthesize(text, top, folder, dsp=True, device=device)
    counted = [
        Utilization(resource=name, cell="", used=count)
        for name, count in synthesis.netlist_counts(netlist, top, device).items()
    ]
    if not device.placer:
        bits = synthesis.netlist_memory_bits(netlist, top)
        counted += [Utilization(resource="memory_bit", cell="", used=bits)] if bits else []
        return Report(utilization=tuple(counted), **known)

    why_not = ""
    doing = "place and route" if route else "packing"
    with stage(f"{doing}, {device.placer} {tools[device.placer]}", "place_and_route" if route else "pack"):
        try:
            if route:
                found = synthesis.route(netlist, device, seed=seed, target_mhz=target_mhz)
            else:
                found = synthesis.pack(netlist, device)
        except synthesis.DoesNotFit as error:
            found, why_not = error.placement, str(error)
    if not route and found.excess:
        why_not = synthesis.why_not(found, device, str(folder / "nextpnr_pack.log"))
    counted += [
        Utilization(resource=resource, cell=cell, used=found.used.get(cell, 0), available=found.available.get(cell, 0))
        for resource, cell in device.placed_cells.items()
    ]
    return Report(
        utilization=tuple(counted), fmax_mhz=None if why_not or not route else found.fmax_mhz, why_not=why_not, **known
    )


def largest_that_fits(
    machines: Sequence[Machine], device: Device, folder: Path, *, part: str = "accelerator", say: Say
) -> tuple[Machine | None, list[Report]]:
    """Return the last of the machines, smallest first, that fits as packed, and the reports of those that were tried.

    The first one is tried first; then the rest is halved, so a larger one is taken not to fit if a smaller one does
    not. Cells as packed may still find no place: a full device is not sure to route.
    """
    tried: list[Report] = []

    def fits(machine: Machine) -> bool:
        say(f"does {machine.lanes} x {machine.columns} fit?")
        where = folder / f"fit_{machine.lanes}x{machine.columns}"
        tried.append(build(machine, device, where, part=part, route=False, say=say))
        return tried[-1].fits

    if not machines or not fits(machines[0]):
        return None, tried
    low, high = 0, len(machines)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(machines[middle]) else (low, middle)
    return machines[low], tried


def smaller_machines(machine: Machine, fit: Callable[[Machine], Machine] | None = None) -> tuple[Machine, ...]:
    """Return the machines of ``SIZES`` with fewer lanes x columns, smallest first.

    Their memories are as deep as this one's, or as ``fit`` makes them; sizes that cannot be are left out.
    """
    derived = {"lanes", "columns", "banks", "requantizers", "weight_port_bits", "weight_widths", "activation_widths"}
    kept = {one.name: getattr(machine, one.name) for one in dataclasses.fields(machine) if one.name not in derived}
    widths = machine.weight_widths, machine.activation_widths
    found = []
    for lanes, columns in SIZES:
        if lanes * columns < machine.lanes * machine.columns:
            try:
                # As many requantizers as suit the size, and never more than there were.
                most = Machine.sized(*widths, lanes, columns, **kept).requantizers
                sized = Machine.sized(*widths, lanes, columns, requantizers=min(most, machine.requantizers), **kept)
                found.append(sized if fit is None else fit(sized))
            except ValueError:
                continue
    return tuple(found)


def _verilog(machine: Machine, device: Device, part: str) -> tuple[str, str, list[dict[str, Any]]]:
    """Return the Verilog, the name of the top module, and its ports but ``clk``."""
    reset = {"name": "rst", "direction": "input", "bits": 1, "signed": False}
    if part == "accelerator":
        text = accelerator_verilog(machine, NAME, target=device.leaves)
        return text, NAME, [reset, *describe(machine, NAME, target=device.leaves)["ports"]]
    kind = DspArray if machine.datapath == "dsp" else Array
    array = kind(machine.lanes, machine.columns, machine.group_bits, machine.slots, machine.weight_port_bits)
    return to_verilog(array, ARRAY_NAME, target=device.leaves), ARRAY_NAME, [reset, *ports(array)]


def _known_beforehand(machine: Machine, device: Device, part: str) -> tuple[Utilization, ...]:
    """Return what is known without synthesis, so that nobody waits for one that cannot fit.

    Cells that the leaves instantiate themselves, or the bits of the memories where yosys chooses what they are made of.
    """
    if device.leaves.block_ram:
        counts = {"dsp": machine.lanes * machine.columns if machine.datapath == "dsp" else 0}
        if part == "accelerator":
            counts = {"dsp": multiplier_count(machine), "block_ram": machine_block_rams(machine)}
        return tuple(
            Utilization(resource=name, cell=device.placed_cells[name], used=count, available=device.available[name])
            for name, count in counts.items()
        )
    if device.memory_bits and part == "accelerator":
        bits = sum(machine.memory_bits.values())
        return (Utilization(resource="memory_bit", cell="memory bits", used=bits, available=device.memory_bits),)
    return ()


def _placement(rows: Sequence[Utilization]) -> synthesis.Placement:
    return synthesis.Placement(
        used={one.cell: one.used for one in rows}, available={one.cell: one.available or 0 for one in rows}
    )


class _Stages:
    """Tells of every stage, and keeps what it took."""

    def __init__(self, seconds: dict[str, float], say: Say) -> None:
        self.seconds, self.say = seconds, say

    def __call__(self, title: str, name: str) -> _Stages:
        self.title, self.name = title, name
        return self

    def __enter__(self) -> None:
        self.say(f"{self.title} ...")
        self.start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.seconds[self.name] = round(time.perf_counter() - self.start, 2)
        if error[0] is None:
            self.say(f"{self.title}: {self.seconds[self.name]:.1f} s")
