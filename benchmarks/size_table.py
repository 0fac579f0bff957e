"""What whole accelerators of several sizes take of an ECP5-85, and how fast they are, as a table.

Every machine has the memories that ResNet-20 needs with W8A8, W4A4 and W2A2 resident, so block RAMs hardly depend on
the size; images/s are exact cycles at the clock reached. Sizes that were placed before, from the same Verilog with the
same tools, are not placed again.

    python benchmarks/size_table.py --json benchmarks/size_table.json
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hwsim.assignments import select_assignments
from hwsim.estimate import estimate
from hwsim.machine import DATAPATHS, Machine
from hwsim.precision import CATALOG
from hwsim.program import fit_machine
from hwsim.random_network import resnet20
from rtl import flow, synthesis
from rtl.devices import DEVICES
from rtl.verilog import accelerator_verilog

ASSIGNMENTS = "W8A8,W4A4,W2A2"
SIZES = "4x4,8x8,16x8,16x16,32x8,32x16"
DEVICE = DEVICES["ecp5-85k"]


def write_whole(path: Path, report: Any) -> None:
    """Write JSON to a temporary name, then rename it."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(unfinished, path)


def placed(machine: Machine, folder: Path, *, seed: int, target_mhz: float) -> dict[str, Any]:
    """Return the report of a machine as plain values, from ``folder`` if it is there already."""
    text = accelerator_verilog(machine, target=DEVICE.leaves)
    tools = synthesis.tool_versions(DEVICE)
    key = hashlib.sha256(json.dumps([text, tools, DEVICE.name, seed, target_mhz]).encode()).hexdigest()[:16]
    folder = folder / f"{machine.datapath}_{machine.lanes}x{machine.columns}_{key}"
    path = folder / "report.json"
    if not path.exists():
        built = flow.build(machine, DEVICE, folder, seed=seed, target_mhz=target_mhz, say=progress)
        write_whole(path, built.to_json())
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def progress(line: str) -> None:
    """Tell of a stage."""
    print(line, file=sys.stderr, flush=True)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    names = list(rows[0]["images_per_s"])
    heading = ["lanes x columns", "LUT", "FF", "block RAM", "DSP", "MHz"]
    heading += [f"GMAC/s at most, {name}" for name in names] + [f"images/s, {name}" for name in names]
    lines = ["| " + " | ".join(heading) + " |", "|---" + "|---:" * (len(heading) - 1) + "|"]
    for row in rows:
        told = [f"{row['lanes']} x {row['columns']}", f"{row['lut']:,}", f"{row['ff']:,}"]
        told += [str(row["block_ram"]), str(row["dsp"]), f"{row['fmax_mhz']:.1f}"]
        told += [f"{value:.1f}" for value in row["peak_gmacs_per_s"].values()]
        told += [f"{value:,.0f}" for value in row["images_per_s"].values()]
        lines.append("| " + " | ".join(told) + " |")
    return "\n".join(lines)


def main() -> None:
    """Place every size, print the table, and write it as JSON if asked, as far as it is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--sizes", default=SIZES, metavar="RxC,...", help="lanes x columns, default %(default)s")
    parser.add_argument("--datapath", choices=DATAPATHS, default="planes")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the placer (default %(default)s)")
    parser.add_argument("--target-mhz", type=float, default=DEVICE.target_mhz, metavar="F", help="default %(default)s")
    parser.add_argument("--build", type=Path, default=Path("build/size_table"), help="where the tools work")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    widths = CATALOG["8-6-4-2"]
    network = resnet20(1, widths)
    assignments = select_assignments(network, ASSIGNMENTS)
    rows = []
    for size in options.sizes.split(","):
        lanes, columns = map(int, size.split("x"))
        sized = Machine.sized(widths, widths, lanes, columns, datapath=options.datapath)
        machine = fit_machine(network, assignments, sized)
        progress(f"{size}:")
        built = placed(machine, options.build, seed=options.seed, target_mhz=options.target_mhz)
        if not built["fits"]:
            progress(built["why_not"])
            continue
        hz = built["fmax_mhz"] * 1e6
        found = {one.name: estimate(network, machine, one) for one in assignments}
        peaks = {name: machine.macs_per_cycle(bits, bits) for name, bits in (("W8A8", 8), ("W4A4", 4), ("W2A2", 2))}
        rows.append(
            {
                "lanes": lanes,
                "columns": columns,
                **{name: built[name] for name in ("lut", "ff", "block_ram", "dsp", "fmax_mhz")},
                "peak_gmacs_per_s": {name: round(peak * hz / 1e9, 3) for name, peak in peaks.items()},
                "images_per_s": {name: round(one.images_per_s(hz), 2) for name, one in found.items()},
                "machine": built["machine"],
            }
        )
        if options.json:
            report = {
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "command": " ".join(["python", "benchmarks/size_table.py", *sys.argv[1:]]),
                "target": DEVICE.name,
                "datapath": options.datapath,
                "seed": options.seed,
                "target_mhz": options.target_mhz,
                "tools": built["tools"],
                "rows": rows,
            }
            write_whole(options.json, report)
    if rows:
        print(table(rows))


if __name__ == "__main__":
    main()
