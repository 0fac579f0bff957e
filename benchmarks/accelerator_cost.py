"""What a whole accelerator takes of an ECP5-85, part by part, and the clock it reaches.

The machine has the memories that ResNet-20 at W8A8, W6A6, W4A4 and W2A2 needs, all four resident. Yosys may use
multipliers, and the requantizers instantiate theirs. The parts are counted in the netlist: a LUT is one cell, a
position of a carry chain one, 16 x 4 bits of distributed RAM four. Cells that the placer adds or merges are the row
``packing``; the row ``total`` is the placer's.

    python benchmarks/accelerator_cost.py --json benchmarks/accelerator_cost.json
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hwsim.assignments import uniform_assignments
from hwsim.machine import DATAPATHS, Machine
from hwsim.precision import CATALOG
from hwsim.program import fit_machine
from hwsim.random_network import resnet20
from hwsim.whole_file import write_json
from rtl import synthesis
from rtl.accelerator import Accelerator
from rtl.conversion import to_verilog
from rtl.targets import ECP5

TOP = "top"
TARGET_MHZ = 150
"""nextpnr works towards this clock; what it reaches is reported."""

PARTS = (
    ("array", "array"),
    ("accumulator", "accumulators"),
    ("drain.requantizer", "requantizers"),
    ("drain.code_requantizer", "requantizers of codes from skip codes"),
    ("drain", "drain"),
    ("weight_loader", "weight loader and switch"),
    ("weight_feeder", "weight feeder"),
    ("activation_streamer", "activation streamer"),
    ("max_pool", "max pooling"),
    ("image_loader", "image loader"),
    ("load_port", "load port"),
    ("sequencer", "sequencer"),
    ("result_buffer", "result buffer"),
    ("weight_memory", "memories"),
    ("staging_memory", "memories"),
    ("table_memory", "memories"),
    ("skip_table_memory", "memories"),
    ("layer_memory", "memories"),
    ("tile_memory", "memories"),
    ("image_memory", "memories"),
    ("skip_memory", "memories"),
    ("activation_", "memories"),
)
"""(beginning of a submodule's path, part); the first that fits counts."""

COMB_OF_CELL = {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 4}


def part_of(path: str) -> str:
    """Return the part that a submodule belongs to."""
    return next((part for prefix, part in PARTS if path.startswith(prefix)), "glue and ports")


def rows_of(netlist: Path, cost: synthesis.Cost) -> list[dict[str, Any]]:
    """Return one row for each part, one for what packing adds, and the total."""
    parts: dict[str, Counter[str]] = {}
    for path, cells in synthesis.cells_by_part(netlist, TOP).items():
        counted = parts.setdefault(part_of(path), Counter())
        counted["comb"] += sum(COMB_OF_CELL.get(cell, 0) * count for cell, count in cells.items())
        counted["ff"] += cells["TRELLIS_FF"]
        counted["block_ram"] += cells["DP16KD"]
        counted["dsp"] += cells["MULT18X18D"]
    kinds = ("comb", "ff", "block_ram", "dsp")
    rows = [{"part": part, **{kind: counted[kind] for kind in kinds}} for part, counted in parts.items()]
    rows.sort(key=lambda row: -max(row["comb"], row["ff"]))
    total = {kind: getattr(cost, kind) for kind in kinds}
    packing = {kind: total[kind] - sum(row[kind] for row in rows) for kind in kinds}
    return [*rows, {"part": "packing", **packing}, {"part": "total", **total, "fmax_mhz": cost.fmax_mhz}]


def main() -> None:
    """Print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--lanes", type=int, default=32)
    parser.add_argument("--columns", type=int, default=16)
    parser.add_argument("--requantizers", type=int, default=8)
    parser.add_argument("--strip-pixels", type=int, default=128)
    parser.add_argument("--datapath", choices=DATAPATHS, default="planes")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="of the placer; the slowest counts"
    )
    parser.add_argument("--build", type=Path, default=Path("build/accelerator_cost"), help="where the tools work")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    widths = CATALOG["8-6-4-2"]
    network = resnet20(1, widths)
    sized = Machine.sized(
        widths,
        widths,
        options.lanes,
        options.columns,
        requantizers=options.requantizers,
        strip_pixels=options.strip_pixels,
        datapath=options.datapath,
    )
    machine = fit_machine(network, uniform_assignments(network), sized)
    text = to_verilog(Accelerator(machine), TOP, target=ECP5)
    print("synthesis ...", file=sys.stderr, flush=True)
    netlist = synthesis.synthesize(text, TOP, options.build, dsp=True)
    costs = {}
    for seed in options.seeds:
        print(f"place and route, seed {seed} ...", file=sys.stderr, flush=True)
        costs[seed] = synthesis.place_and_route(netlist, seed=seed, target_mhz=TARGET_MHZ)
    slowest = min(costs, key=lambda seed: costs[seed].fmax_mhz)
    rows = rows_of(netlist, costs[slowest])
    for row in rows:
        counts = f"COMB {row['comb']:>6}  FF {row['ff']:>6}  RAM {row['block_ram']:>4}  DSP {row['dsp']:>3}"
        print(f"{row['part']:<40} {counts}")
    path = synthesis.limiting_path(options.build / f"nextpnr_{slowest}.log")
    print(f"{costs[slowest].fmax_mhz} MHz, limited by:", *path, sep="\n  ")
    if options.json:
        report = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "command": " ".join(["python", "benchmarks/accelerator_cost.py", *sys.argv[1:]]),
            "tools": synthesis.tool_versions(),
            "machine": machine.to_json(),
            "fmax_mhz_by_seed": {str(seed): cost.fmax_mhz for seed, cost in costs.items()},
            "limited_by": path,
            "rows": rows,
        }
        write_json(options.json, report)


if __name__ == "__main__":
    main()
