"""`bitswitch verilog`."""

from __future__ import annotations

import argparse
import json

from bitswitch.chain import OK, Result
from bitswitch.machines import design_of


def run_verilog(options: argparse.Namespace) -> Result:
    """Write the accelerator as Verilog."""
    from rtl import verilog
    from rtl.targets import TARGETS

    machine, _, _ = design_of(options, "standard")
    source, description = verilog.write(machine, options.out, bus=options.bus, target=TARGETS[options.target])
    report = json.loads(description.read_text())
    print(f"{source}: {source.read_text().count(chr(10)):,} lines; {description}")
    kibibytes = sum(report["memory_bits"].values()) / 8192
    print(
        f"{machine.lanes} lanes x {machine.columns} columns, weights {machine.weight_widths}, activations "
        f"{machine.activation_widths}, memories of {kibibytes:,.1f} KiB, {len(report['ports'])} ports"
    )
    return {"verilog": str(source), "description": str(description), **report}, OK
