"""What whole accelerators of several sizes take of an ECP5-85, and how fast they are, as a table.

Every machine has the memories that ResNet-20 needs with the tables of W8A8 and W2A2 resident, as three assignments
are too many for the block RAMs at some sizes; so block RAMs hardly depend on the size. Images/s are exact cycles at
the clock reached. Sizes that were placed before, from the same Verilog with the same tools, are not placed again.

    python benchmarks/size_table.py --json benchmarks/size_table.json --placements hwsim/placements_ecp5.json
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hwsim.assignments import select_assignments
from hwsim.estimate import estimate
from hwsim.machine import Machine
from hwsim.precision import CATALOG
from hwsim.program import fit_machine
from hwsim.random_network import resnet20
from hwsim.whole_file import write_json
from rtl import placement, synthesis

ASSIGNMENTS = "W8A8,W4A4,W2A2"
RESIDENT = "W8A8,W2A2"
SIZES = {"planes": "4x4,8x8,16x8,32x8,32x16", "dsp": "4x8,8x8,8x16"}
"""Datapath -> lanes x columns."""


def placed(machine: Machine, folder: Path, *, seed: int, known: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return what ``placement.place`` tells of a machine, from ``known`` rows or from ``folder`` if it is there."""
    tools, text = synthesis.tool_versions(), placement.verilog_of(machine)
    mine = {"verilog_sha256": placement.verilog_digest(text), "tools": tools, "seed": seed}
    for row in known:
        if mine.items() <= row.items():
            return row
    key = hashlib.sha256(json.dumps([text, tools, seed]).encode()).hexdigest()[:16]
    folder = folder / f"{machine.datapath}_{machine.lanes}x{machine.columns}_{key}"
    path = folder / "placement.json"
    if not path.exists():
        start = time.perf_counter()
        write_json(path, placement.place(machine, folder, seed=seed))
        progress(f"  synthesized, placed and routed in {time.perf_counter() - start:.0f} s")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def progress(line: str) -> None:
    """Tell how far it is."""
    print(line, file=sys.stderr, flush=True)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    names = list(rows[0]["images_per_s"])
    heading = ["array", "LUT", "FF", "block RAM", "DSP", "MHz"]
    heading += [f"GMAC/s at most, {name}" for name in names] + [f"images/s, {name}" for name in names]
    lines = ["| " + " | ".join(heading) + " |", "|---" + "|---:" * (len(heading) - 1) + "|"]
    for row in rows:
        told = [f"{row['datapath']} {row['lanes']} x {row['columns']}", f"{row['lut']:,}", f"{row['ff']:,}"]
        told += [str(row["block_ram"]), str(row["dsp"]), f"{row['fmax_mhz']:.1f}"]
        told += [f"{value:.1f}" for value in row["peak_gmacs_per_s"].values()]
        told += [f"{value:,.0f}" for value in row["images_per_s"].values()]
        lines.append("| " + " | ".join(told) + " |")
    return "\n".join(lines)


def main() -> None:
    """Place every size, print the table, and write it as JSON if asked, as far as it is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    for datapath, sizes in SIZES.items():
        text = f"lanes x columns of datapath {datapath}, default {sizes}"
        parser.add_argument(f"--{datapath}", default=sizes, metavar="RxC,...", help=text)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the placer (default %(default)s)")
    parser.add_argument("--build", type=Path, default=Path("build/size_table"), help="where the tools work")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--placements",
        type=Path,
        metavar="FILE",
        help="what models are fitted to: machines in it are not placed again, and the others are added",
    )
    options = parser.parse_args()
    widths = CATALOG["8-6-4-2"]
    network = resnet20(1, widths)
    assignments = select_assignments(network, ASSIGNMENTS)
    resident = select_assignments(network, RESIDENT)
    rows, placements = [], []
    known = []
    if options.placements is not None and options.placements.exists():
        known = json.loads(options.placements.read_text())["rows"]
    for datapath, size in ((path, size) for path in SIZES for size in getattr(options, path).split(",") if size):
        lanes, columns = map(int, size.split("x"))
        machine = fit_machine(network, resident, Machine.sized(widths, widths, lanes, columns, datapath=datapath))
        progress(f"{datapath} {size}:")
        found = placed(machine, options.build, seed=options.seed, known=known)
        placements.append(found)
        if found["why_not"]:
            progress(f"  {found['why_not']}")
            continue
        hz = found["fmax_mhz"] * 1e6
        estimates = {one.name: estimate(network, machine, one) for one in assignments}
        peaks = {name: machine.macs_per_cycle(bits, bits) for name, bits in (("W8A8", 8), ("W4A4", 4), ("W2A2", 2))}
        rows.append(
            {
                "datapath": datapath,
                "lanes": lanes,
                "columns": columns,
                "lut": found["comb"],
                **{name: found[name] for name in ("ff", "block_ram", "dsp", "fmax_mhz")},
                "peak_gmacs_per_s": {name: round(peak * hz / 1e9, 3) for name, peak in peaks.items()},
                "images_per_s": {name: round(one.images_per_s(hz), 2) for name, one in estimates.items()},
                **{name: found[name] for name in ("machine", "verilog_sha256", "tools", "date")},
            }
        )
        if options.json:
            report = {
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "command": " ".join(["python", "benchmarks/size_table.py", *sys.argv[1:]]),
                "target": synthesis.DEFAULT.name,
                "seed": options.seed,
                "target_mhz": found["target_mhz"],
                "resident": RESIDENT,
                "rows": rows,
            }
            write_json(options.json, report)
    if rows:
        print(table(rows))
    if options.placements and placements:
        count, left = placement.record(options.placements, placements)
        progress(f"{options.placements}: {count} rows, {left} old ones have left")


if __name__ == "__main__":
    main()
