"""Whole accelerators packed, or placed and routed: what ``hwsim.exploration`` fits its models of area and clock to."""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

from hwsim.machine import Machine
from rtl import synthesis
from rtl.targets import ECP5
from rtl.verilog import accelerator_verilog

TOP = "bitswitch_accelerator"


def place(machine: Machine, folder: Path, *, seed: int = 1, route: bool = True) -> dict[str, Any]:
    """Return what a machine takes of an ECP5-85, as a row of plain values.

    Parameters
    ----------
    machine : Machine
    folder : Path
        Where the tools work, and where their logs stay.
    seed : int
        Of the placer.
    route : bool
        Without, cells are only packed: the same counts in a tenth of the time, and ``fmax_mhz`` is None.

    Raises
    ------
    SynthesisError
        If a tool is missing or fails, also where the machine does not fit.
    """
    text = accelerator_verilog(machine, TOP, target=ECP5)
    netlist = synthesis.synthesize(text, TOP, folder, dsp=True)
    found = vars(synthesis.place_and_route(netlist, seed=seed)) if route else packed(netlist)
    return {
        "machine": machine.to_json(),
        **found,
        "seed": seed if route else None,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "tools": synthesis.tool_versions(),
    }


def packed(netlist: Path) -> dict[str, Any]:
    """Return the cells of a netlist as nextpnr packs them, before it places them."""
    used = synthesis.pack(netlist).used
    cells = {"comb": "TRELLIS_COMB", "ff": "TRELLIS_FF", "block_ram": "DP16KD", "dsp": "MULT18X18D"}
    return {name: used[cell] for name, cell in cells.items()} | {"fmax_mhz": None}


def place_beneath(folder: Path, machine: Machine) -> dict[str, Any]:
    """Return ``place`` of a machine, in a folder of its own beneath ``folder``."""
    digest = hashlib.sha256(json.dumps(machine.to_json(), sort_keys=True).encode()).hexdigest()[:16]
    name = f"{machine.datapath}_{machine.lanes}x{machine.columns}_{digest}"
    return place(machine, folder / name)
