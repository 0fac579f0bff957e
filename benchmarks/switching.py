"""What a change of width costs between layers: no cycle, over random widths for every layer of ResNet-20.

Every layer's cycles are taken from runs in which all layers have the same widths, and looked up for the layers of
random assignments. Three things are told: how the cycles of a whole assignment differ from the sum of its layers', as
they are; the cycles in which the array waited for weights; and whether, without these, every layer takes the same
cycles whatever stands before or after it.

The array waits when a layer is too short to load the first tile of the next one in. That depends on the neighbours (a
short layer of few bits before a long row of wide weights), and on runs of one width too.

    python benchmarks/switching.py --json benchmarks/switching.json

The cycles of 1,000 assignments are ``hwsim.timing``'s. ResNet-20 and a small network are run in Verilog (``--no-rtl``
leaves it out): there every figure is counted while the machine runs, waits and weights read included.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim import spec
from hwsim.machine import Machine
from hwsim.network import Assignment, Network, uniform_assignment
from hwsim.precision import CATALOG
from hwsim.program import describe, fit_machine
from hwsim.random_network import SMALL, random_assignment, random_images, random_network, resnet20
from hwsim.timing import image_timing
from hwsim.whole_file import write_json

if TYPE_CHECKING:
    from sim_tests.design import Design
    from sim_tests.simulate import SimulationResult

SEED = 1
WIDTHS = CATALOG["8-6-4-2"]
SIMULATED = 16
"""Random assignments of each network that are run in Verilog."""

Key = tuple[str, int | None, int]
"""A layer and its widths: of weights, of input activations."""


@dataclass(frozen=True)
class Run:
    """One image at one assignment.

    Parameters
    ----------
    assignment : Assignment
    cycles : mapping of str to int
        Of every layer.
    waits : mapping of str to int
        Those of them in which the array's feeder waited for a tile of weights.
    """

    assignment: Assignment
    cycles: Mapping[str, int]
    waits: Mapping[str, int]

    @property
    def keys(self) -> list[Key]:
        """Each layer with its widths."""
        return [(name, widths.weight_bits, widths.activation_bits) for name, widths in self.assignment.layers.items()]

    @property
    def total_cycles(self) -> int:
        """Cycles of the image."""
        return sum(self.cycles.values())

    @property
    def total_waits(self) -> int:
        """Those of them in which the feeder waited."""
        return sum(self.waits.values())


def predicted_run(machine: Machine, assignment: Assignment) -> Run:
    """Return what ``hwsim.timing`` says of an assignment."""
    layers = image_timing(machine, describe(assignment.network, machine, assignment)).layers
    return Run(
        assignment,
        {layer.name: layer.cycles for layer in layers},
        {layer.name: layer.load_wait_cycles for layer in layers},
    )


def measured_run(result: SimulationResult, assignment: Assignment) -> Run:
    """Return what was counted in Verilog at an assignment."""
    cycles, waits = result.cycles[assignment.name], result.load_wait_cycles[assignment.name]
    return Run(
        assignment,
        {name: int(values[0]) for name, values in cycles.items()},
        {name: int(values[0]) for name, values in waits.items()},
    )


def own_cycles(runs: Iterable[Run]) -> dict[Key, int]:
    """Return the cycles of every layer at each of its widths, those of waiting for weights left out.

    Raises
    ------
    ValueError
        If two runs disagree.
    """
    own: dict[Key, int] = {}
    for run in runs:
        for key in run.keys:
            here = run.cycles[key[0]] - run.waits[key[0]]
            if own.setdefault(key, here) != here:
                raise ValueError(f"{key} took {own[key]} cycles, and {here} in {run.assignment.name}")
    return own


def fewest_cycles(runs: Iterable[Run]) -> dict[Key, int]:
    """Return the fewest cycles that every layer took at each of its widths, as they are."""
    fewest: dict[Key, int] = {}
    for run in runs:
        for key in run.keys:
            fewest[key] = min(fewest.get(key, run.cycles[key[0]]), run.cycles[key[0]])
    return fewest


def compare(uniform_runs: Sequence[Run], mixed_runs: Sequence[Run]) -> dict[str, Any]:
    """Return how runs of mixed widths differ from their layers in runs of one width, as they are and without waits."""
    own, fewest = own_cycles(uniform_runs), fewest_cycles(uniform_runs)
    differences = [run.total_cycles - sum(fewest[key] for key in run.keys) for run in mixed_runs]
    deviations = [run.cycles[key[0]] - run.waits[key[0]] - own[key] for run in mixed_runs for key in run.keys]
    cycles = [run.total_cycles for run in mixed_runs]
    waits = [run.total_waits for run in mixed_runs]
    return {
        "random_assignments": len(mixed_runs),
        "cycles": [min(cycles), max(cycles)],
        "difference_cycles": [min(differences), max(differences)],
        "largest_difference_of_cycles": _largest_share(differences, cycles),
        "load_wait_cycles": [min(waits), max(waits)],
        "largest_wait_of_cycles": _largest_share(waits, cycles),
        "largest_deviation_without_waits": max(map(abs, deviations)),
    }


def _largest_share(parts: Sequence[int], wholes: Sequence[int]) -> float:
    return round(max(abs(part) / whole for part, whole in zip(parts, wholes, strict=True)), 5)


def rows_of(runs: Iterable[Run], uniform_runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return a row for each run: its cycles, those of its layers in runs of one width, and those of waiting."""
    own, fewest = own_cycles(uniform_runs), fewest_cycles(uniform_runs)
    return [
        {
            "assignment": run.assignment.name,
            "cycles": run.total_cycles,
            "cycles_of_layers": sum(fewest[key] for key in run.keys),
            "cycles_of_layers_without_waits": sum(own[key] for key in run.keys),
            "load_wait_cycles": run.total_waits,
        }
        for run in runs
    ]


def uniform(network: Network) -> list[Assignment]:
    """Return an assignment for every pair of widths."""
    return [uniform_assignment(network, *pair) for pair in itertools.product(network.width_set, repeat=2)]


def predicted(network: Network, machine: Machine, count: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the comparison over random assignments, and a row for each width."""
    uniform_runs = [predicted_run(machine, assignment) for assignment in uniform(network)]
    mixed_runs = [predicted_run(machine, random_assignment(network, seed)) for seed in range(count)]
    equal = {f"W{bits}A{bits}" for bits in network.width_set}
    rows = rows_of((run for run in uniform_runs if run.assignment.name in equal), uniform_runs)
    return compare(uniform_runs, mixed_runs), rows


def resident(network: Network, sized: Machine, count: int) -> tuple[Machine, list[Assignment], list[Assignment]]:
    """Return a machine with memories for, and the assignments: of every pair of widths, and ``count`` random ones."""
    pairs, mixed = uniform(network), [random_assignment(network, seed) for seed in range(count)]
    return fit_machine(network, [*pairs, *mixed], sized), pairs, mixed


def measured(
    network: Network, sized: Machine, count: int, *, quick: bool = False, design: Design | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Run one image in Verilog at every pair of widths and at ``count`` random assignments, one after another.

    Returns the comparison, a row for each assignment, and the weight bits read at each width. ``design`` is other
    Verilog of the machine, whose codes and cycles are not compared with the model's.
    """
    from sim_tests.checks import check
    from sim_tests.simulate import simulate

    machine, pairs, mixed = resident(network, sized, count)
    images = random_images(network.image_shape, 1, SEED)
    result = simulate(network, machine, [*pairs, *mixed], images, quick=quick, design=design)
    checked = {} if design else {"codes_compared": check(result, images), "mismatches": 0}
    uniform_runs, mixed_runs = ([measured_run(result, assignment) for assignment in group] for group in (pairs, mixed))
    summary = compare(uniform_runs, mixed_runs) | checked
    rows = rows_of([*uniform_runs, *mixed_runs], uniform_runs)
    return summary, rows, [weights_read(result, bits) for bits in network.width_set]


def weights_read(result: SimulationResult, bits: int) -> dict[str, Any]:
    """Return what the layers whose width is free read of the weight memory at one width."""
    network, machine = result.program.network, result.program.machine
    part = result.program.assignments[f"W{bits}A{bits}"]
    read = int(result.weight_planes_read[part.assignment.name][0])
    tiles = [
        (
            fields["tiles"] * machine.weight_rows_stored(fields["tile_rows"]),
            fields["target_bits"],
            fields["planes_stored"],
            layer,
        )
        for fields, layer in zip(part.tiles, network.layers, strict=True)
        if fields["has_weights"]
    ]
    # Layers whose width is pinned, and the identity that averages, read the same at every width.
    inner = [tile for tile in tiles if tile[3] in network.weight_layers and not network.is_pinned(tile[3])]
    fixed = [tile for tile in tiles if tile not in inner]
    rows_inner = sum(tile[0] for tile in inner)
    read_inner = read - sum(rows * spec.planes_read(stored, target) for rows, target, stored, _ in fixed)
    return {
        "weight_bits": bits,
        "stored_bits": network.width_set.highest,
        "planes_read_per_row": read_inner / rows_inner,
        "weight_bits_read": read_inner * machine.weight_word_bits,
        "of_stored": round(read_inner / (rows_inner * network.width_set.highest), 4),
    }


def report(count: int, simulated: int) -> dict[str, Any]:
    """Return everything that is printed: of ``count`` assignments predicted, of ``simulated`` ones in Verilog."""
    network, small = resnet20(SEED, WIDTHS), random_network(7, WIDTHS, (1, 8, 8), SMALL)
    told: dict[str, Any] = {"compared": [], "rows": [], "weights_read": []}

    def add(
        name: str, machine: Machine, counted_by: str, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
    ) -> None:
        labels = {"network": name, "weight_port_bits": machine.weight_port_bits, "counted_by": counted_by}
        told["compared"].append({**labels, **summary})
        told["rows"] += [{**labels, **row} for row in rows]

    wide, narrow = (
        Machine.sized(WIDTHS, WIDTHS, 32, 16, requantizers=8, strip_pixels=128, weight_port_bits=port_bits)
        for port_bits in (64, 32)
    )
    for machine in (wide, narrow):
        add("resnet20", machine, "timing", *predicted(network, machine, count))
    if simulated:
        for name, run, machine in (("resnet20", network, wide), ("small", small, Machine.sized(WIDTHS, WIDTHS, 16, 8))):
            summary, rows, read = measured(run, machine, simulated)
            add(name, machine, "Verilog", summary, rows)
            told["weights_read"] += [{"network": name, **row} for row in read]
    return told


def main() -> None:
    """Print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--assignments", type=int, default=1000, help="random assignments of ResNet-20")
    parser.add_argument("--no-rtl", action="store_true", help="leave out what is run in Verilog")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    told = report(options.assignments, 0 if options.no_rtl else SIMULATED)
    for found in told["compared"]:
        what = f"{found['network']}, {found['weight_port_bits']}-bit weight port, cycles of {found['counted_by']}"
        print(f"{what}, {found['random_assignments']} random assignments:")
        low, high = found["difference_cycles"]
        share = 100 * found["largest_difference_of_cycles"]
        print(f"  an image differs from the sum of its layers by {low} .. {high} cycles, {share:.2f} % at most")
        low, high = found["load_wait_cycles"]
        share = 100 * found["largest_wait_of_cycles"]
        print(f"  the array waits for weights {low} .. {high} cycles of an image, {share:.2f} % at most")
        print(f"  without that, a layer differs by {found['largest_deviation_without_waits']} at most")
        if "codes_compared" in found:
            print(f"  {found['codes_compared']:,} codes and all cycles equal the integer model's and timing's")
    for row in told["weights_read"]:
        read = f"{row['planes_read_per_row']:g} planes read, {row['weight_bits_read']:>9,} bits"
        stored = f"{row['weight_bits']}-bit weights, stored in {row['stored_bits']}"
        print(f"{row['network']}, {stored}: {read}, {100 * row['of_stored']:.1f} % of what is stored")
    if options.json:
        whole = {
            "date": datetime.date.today().isoformat(),
            "command": " ".join(["python", "benchmarks/switching.py", *sys.argv[1:]]),
            "versions": {"python": platform.python_version(), "numpy": version("numpy"), "spec": spec.SPEC_VERSION},
            **told,
        }
        write_json(options.json, whole)


if __name__ == "__main__":
    main()
