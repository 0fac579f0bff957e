"""What the array costs on an ECP5-85, with its accumulator memory and weight registers, and what else would cost.

Every design goes through yosys (``synth_ecp5 -nodsp``) and nextpnr (speed 6, no pins) in the same run. A row gives the
cells and the clock of one design at one pair of widths; cells per MAC per cycle is what to compare, since the designs
do not do the same number of MACs a cycle. ECP5 pairs every LUT with a flip-flop, so the larger count is quoted too.

The quick form measures 32 lanes x 16 columns with one seed, ``--full`` all sizes with three, the slowest clock and the
most cells of the three. The arrays of ``*`` and of fusion units are the largest by far: the quick form measures them at
the work of 32 x 8 only, ``--full`` at that of 32 x 16 too.
``--peers FILE.toml`` adds Verilog that is on this machine:

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
import hashlib
import json
import sys
import tomllib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from amaranth.lib import wiring

from benchmarks.array_designs import FixedArray, FusionArray, SerialArray
from hwsim import spec
from hwsim.whole_file import write_json
from rtl import synthesis
from rtl.conversion import to_verilog
from rtl.targets import ECP5, PORTABLE, Target

WIDTHS = (8, 6, 4, 2)
GROUP_BITS = 2
SLOTS = (8, 4, 2)
SEEDS = {False: (1,), True: (1, 2, 3)}
SIZES = {False: ((32, 16),), True: ((32, 8), (32, 16), (64, 8), (64, 16))}
RIVAL_SIZES = {False: ((32, 8),), True: ((32, 8), (32, 16))}

FUSION_UNITS_MAX = 64
"""Fusion units that an ECP5-85 has room for."""

Runs: TypeAlias = dict[tuple[str, int], dict[str, Any]]
"""(SHA-256 of Verilog and tools, seed) -> cost and limiting path."""


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
        return to_verilog(make(), "top", target=target)

    return Design(name, lanes, columns, make_verilog, "top", {(bits, bits): value for bits, value in macs.items()})


def bitswitch_designs(lanes: int, columns: int) -> list[Design]:
    """Return the array at one size: in cells, portable and in multipliers, and in cells for one width only."""
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
    for slot in SLOTS:
        found.append(
            component_design(
                f"same array for W{slot}A{slot} only, ECP5 cells",
                lanes,
                columns,
                lambda slot=slot: SerialArray(lanes, columns, slot, (slot,)),  # type: ignore[misc]
                ECP5,
                {bits: serial_macs(lanes, columns, bits) for bits in WIDTHS if spec.slot_bits(bits) == slot},
            )
        )
    return found


def rival_designs(lanes: int, columns: int) -> list[Design]:
    """Return arrays of fixed widths with the MACs a cycle of the array of one size, and the fusion units that fit."""
    found = []
    for bits in WIDTHS:
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
    units = min(lanes // 8, FUSION_UNITS_MAX // columns)
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


def measure(design: Design, seeds: Sequence[int], folder: Path, known: Runs) -> tuple[str, Runs]:
    """Return the SHA-256 of a design's Verilog, and its cost and limiting path with each seed.

    Runs of the same Verilog and tools that are ``known``, or in ``folder`` from an interrupted run, are not repeated.
    """
    text = design.make_verilog()
    digest = hashlib.sha256((json.dumps(synthesis.tool_versions()) + text).encode()).hexdigest()
    runs: Runs = {}
    work = folder / digest[:16]
    netlist = None
    for seed in seeds:
        kept = work / f"cost_{seed}.json"
        if (digest, seed) in known:
            runs[digest, seed] = known[digest, seed]
        elif kept.exists():
            runs[digest, seed] = json.loads(kept.read_text())
        else:
            netlist = netlist or synthesis.synthesize(text, design.top, work)
            cost = synthesis.place_and_route(netlist, seed=seed)
            path = synthesis.limiting_path(work / f"nextpnr_{seed}.log")
            runs[digest, seed] = {**dataclasses.asdict(cost), "limited_by": path}
            write_json(kept, runs[digest, seed])
    return digest, runs


def rows_of(design: Design, digest: str, runs: Runs) -> list[dict[str, Any]]:
    """Return one row for each pair of widths: the slowest clock and the most cells of all seeds."""
    slowest = min(runs.values(), key=lambda run: run["fmax_mhz"])
    most = {kind: max(run[kind] for run in runs.values()) for kind in ("comb", "ff", "block_ram", "dsp")}
    return [
        {
            "design": design.name,
            "lanes": design.lanes,
            "columns": design.columns,
            "weight_bits": weight_bits,
            "activation_bits": activation_bits,
            "macs_per_cycle": macs,
            **most,
            "comb_per_mac_per_cycle": round(most["comb"] / macs, 2),
            "cells_per_mac_per_cycle": round(max(most["comb"], most["ff"]) / macs, 2),
            "fmax_mhz": slowest["fmax_mhz"],
            "limited_by": slowest["limited_by"],
            "seeds": sorted(seed for _, seed in runs),
            "verilog_sha256": digest,
            "runs": {str(seed): run for (_, seed), run in sorted(runs.items())},
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "tools": synthesis.tool_versions(),
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
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="seeds instead of the form's")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="designs at a time (default 2)")
    parser.add_argument("--peers", type=Path, metavar="FILE.toml", help="Verilog of others to measure too")
    parser.add_argument("--build", type=Path, default=Path("build/array_cost"), help="where the tools work")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the rows; what is in it already is kept and not run again"
    )
    options = parser.parse_args()

    sizes, rival_sizes = SIZES[options.full], RIVAL_SIZES[options.full]
    if options.size:
        lanes, _, columns = options.size.partition("x")
        if not (lanes.isdecimal() and columns.isdecimal()):
            parser.error(f"--size must be like 32x16, not {options.size!r}")
        sizes = rival_sizes = ((int(lanes), int(columns)),)
    if options.jobs < 1:
        parser.error(f"--jobs must be 1 or more, not {options.jobs}")
    # The multipliers and the fusion units that fit are the same for several sizes.
    every = [design for size in sizes for design in bitswitch_designs(*size)]
    every += [design for size in rival_sizes for design in rival_designs(*size)]
    found = list({(design.name, design.lanes, design.columns): design for design in every}.values())
    if options.peers:
        found += peer_designs(options.peers)
    found = [design for design in found if options.only in design.name]
    if not found:
        parser.error(f"--only must be part of a design's name, not {options.only!r}")

    rows = json.loads(options.json.read_text())["rows"] if options.json and options.json.exists() else []
    known = {
        (row["verilog_sha256"], int(seed)): run
        for row in rows
        for seed, run in row["runs"].items()
        if row["tools"] == synthesis.tool_versions()
    }
    seeds = options.seeds or SEEDS[options.full]
    with ThreadPoolExecutor(options.jobs) as pool:
        begun = {pool.submit(measure, design, seeds, options.build, known): design for design in found}
        for done, future in enumerate(as_completed(begun), start=1):
            design = begun[future]
            digest, runs = future.result()
            # Seeds of earlier runs of the same Verilog count too.
            runs |= {key: run for key, run in known.items() if key[0] == digest}
            new = rows_of(design, digest, runs)
            rows = [row for row in rows if not is_same_design(row, new[0])] + new
            print(f"[{done}/{len(found)}] {len(runs)} seeds", file=sys.stderr, flush=True)
            for row in new:
                print(show(row), flush=True)
            if options.json:
                write_json(options.json, {"command": " ".join(["python", *sys.argv]), "rows": rows})


def is_same_design(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two rows are of one design and size."""
    return all(row[key] == other[key] for key in ("design", "lanes", "columns"))


if __name__ == "__main__":
    main()
