"""Whole accelerators packed, or placed and routed: what ``hwsim.exploration`` fits its models of area and clock to."""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hwsim import machine as machine_module
from hwsim.machine import Machine
from hwsim.whole_file import write_json
from rtl import synthesis
from rtl.targets import ECP5
from rtl.verilog import accelerator_verilog

TOP = "bitswitch_accelerator"

CONTRACT = ("spec", "precision", "requantize", "machine")
"""Modules of hwsim that the hardware takes its widths from."""


def place(machine: Machine, folder: Path, *, seed: int = 1, route: bool = True) -> dict[str, Any]:
    """Return what a machine takes of an ECP5-85, as a row of plain values; nextpnr works towards the part's clock.

    Parameters
    ----------
    machine : Machine
    folder : Path
        Where the tools work, and where their logs stay.
    seed : int
        Of the placer.
    route : bool
        Without, cells are only packed: the same counts in a tenth of the time, and ``fmax_mhz`` is None. So it is where
        the machine finds no place; ``why_not`` tells.

    Raises
    ------
    SynthesisError
        If a tool is missing or fails otherwise.
    """
    text = verilog_of(machine)
    netlist = synthesis.synthesize(text, TOP, folder, dsp=True)
    target_mhz = synthesis.DEFAULT.target_mhz
    why_not = ""
    try:
        found = vars(synthesis.place_and_route(netlist, seed=seed, target_mhz=target_mhz)) if route else packed(netlist)
    except synthesis.DoesNotFit as error:
        found, why_not = packed(netlist), str(error)
    was_routed = found["fmax_mhz"] is not None
    return {
        "machine": machine.to_json(),
        **found,
        "seed": seed if was_routed else None,
        "target_mhz": target_mhz if was_routed else None,
        "why_not": why_not,
        "verilog_sha256": verilog_digest(text),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "tools": synthesis.tool_versions(),
    }


def verilog_of(machine: Machine) -> str:
    """Return the Verilog that ``place`` gives to the tools."""
    return accelerator_verilog(machine, TOP, target=ECP5)


def verilog_digest(text: str) -> str:
    """Return the SHA-256 of Verilog, as rows have it."""
    return hashlib.sha256(text.encode()).hexdigest()


def packed(netlist: Path) -> dict[str, Any]:
    """Return the cells of a netlist as nextpnr packs them, before it places them."""
    used = synthesis.pack(netlist).used
    cells = {"comb": "TRELLIS_COMB", "ff": "TRELLIS_FF", "block_ram": "DP16KD", "dsp": "MULT18X18D"}
    return {name: used[cell] for name, cell in cells.items()} | {"fmax_mhz": None}


@functools.cache
def hardware_digest() -> str:
    """Return a digest of the sources that Verilog is made from: rows of other sources are of another hardware."""
    package = Path(__file__).parent
    folders = {"tests", "proofs", "bus", "board"}  # None of these is in the accelerator.
    paths = [path for path in package.rglob("*.py") if not folders & set(path.relative_to(package).parts)]
    paths += [Path(machine_module.__file__).with_name(f"{name}.py") for name in CONTRACT]
    texts = [(path.name, path.read_text()) for path in sorted(paths)]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def place_beneath(folder: Path, machine: Machine) -> dict[str, Any]:
    """Return ``place`` of a machine, in a folder of its own beneath ``folder``."""
    digest = hashlib.sha256(json.dumps(machine.to_json(), sort_keys=True).encode()).hexdigest()[:16]
    name = f"{machine.datapath}_{machine.lanes}x{machine.columns}_{digest}"
    return place(machine, folder / name)


def record(path: Path, measured: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Add rows of ``place`` to a file of them, and return how many it has now and how many of the old ones left.

    A row leaves when the same machine was measured anew from the same seed, or when its machine's Verilog is no longer
    what was measured.
    """
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    new = {_what(row) for row in measured}
    kept = [row for row in old if _what(row) not in new and is_current(row)]
    write_json(path, {"rows": [*kept, *measured]})
    return len(kept) + len(measured), len(old) - len(kept)


def is_current(row: Mapping[str, Any]) -> bool:
    """Return whether a row was measured on the Verilog that its machine has today."""
    return bool(row.get("verilog_sha256") == verilog_digest(verilog_of(Machine.from_json(row["machine"]))))


def _what(row: Mapping[str, Any]) -> str:
    return json.dumps([row["machine"], row["seed"]], sort_keys=True)
