"""What a change of width costs between layers: nothing, over random widths for every layer of ResNet-20.

The cycles of a layer are taken from runs in which all layers have the same widths. They are then looked up for every
layer of random assignments, and added: if the array never waits for weights, the sum is the cycles of the assignment,
whatever stood before or after a layer. What is left is the time in which the array waits for the first tiles of a layer
to be loaded while a short layer before it runs; it is counted apart, for runs of one width too.

    python benchmarks/switching.py --json benchmarks/switching.json

The cycles of ResNet-20 are ``hwsim.timing``'s, which are exact. A small network is run in Verilog (``--no-rtl`` leaves
it out): there everything is measured, and the weights read are counted by the machine.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hwsim import spec
from hwsim.machine import Machine
from hwsim.network import Assignment, Network, uniform_assignment
from hwsim.precision import CATALOG
from hwsim.program import describe, fit_machine
from hwsim.random_network import SMALL, random_assignment, random_images, random_network, resnet20
from hwsim.timing import image_timing
from hwsim.whole_file import write_json

SEED = 1
WIDTHS = CATALOG["8-6-4-2"]
SIMULATED = 16
"""Random assignments of the small network that are run in Verilog."""

Key = tuple[str, int | None, int]
"""A layer and its widths: of weights, of input activations."""


def keys(assignment: Assignment) -> list[Key]:
    """Return each layer with its widths."""
    return [(name, widths.weight_bits, widths.activation_bits) for name, widths in assignment.layers.items()]


def own_cycles(cycles: Iterable[tuple[Assignment, Mapping[str, int]]]) -> dict[Key, int]:
    """Return the cycles of every layer at each of its widths, seen in runs of one width.

    Raises
    ------
    ValueError
        If two runs disagree.
    """
    own: dict[Key, int] = {}
    for assignment, of_layers in cycles:
        for key in keys(assignment):
            if own.setdefault(key, of_layers[key[0]]) != of_layers[key[0]]:
                raise ValueError(f"{key} took {own[key]} cycles, and {of_layers[key[0]]} in {assignment.name}")
    return own


def layer_cycles(machine: Machine, assignment: Assignment, *, weights_staged: bool) -> dict[str, int]:
    """Return the cycles of every layer, with or without the time the array waits for weights."""
    timing = image_timing(machine, describe(assignment.network, machine, assignment), weights_staged=weights_staged)
    return {layer.name: layer.cycles for layer in timing.layers}


def uniform(network: Network) -> list[Assignment]:
    """Return an assignment for every pair of widths."""
    return [uniform_assignment(network, *pair) for pair in itertools.product(network.width_set, repeat=2)]


def predicted(network: Network, machine: Machine, count: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the deviations over random assignments, and the cycles of uniform ones beside them."""
    own = own_cycles(
        (assignment, layer_cycles(machine, assignment, weights_staged=True)) for assignment in uniform(network)
    )
    deviations, waits, totals = [], [], []
    for seed in range(count):
        assignment = random_assignment(network, seed)
        staged = layer_cycles(machine, assignment, weights_staged=True)
        deviations += [staged[key[0]] - own[key] for key in keys(assignment)]
        totals.append(sum(layer_cycles(machine, assignment, weights_staged=False).values()))
        waits.append(totals[-1] - sum(own[key] for key in keys(assignment)))
    rows = []
    for bits in network.width_set:
        assignment = uniform_assignment(network, bits)
        cycles = sum(layer_cycles(machine, assignment, weights_staged=False).values())
        rows.append(
            {
                "assignment": assignment.name,
                "cycles": cycles,
                "load_wait_cycles": cycles - sum(own[key] for key in keys(assignment)),
            }
        )
    summary = {
        "random_assignments": count,
        "largest_deviation_of_a_layer": max(map(abs, deviations)),
        "cycles": [min(totals), max(totals)],
        "load_wait_cycles": [min(waits), max(waits)],
        "largest_wait_of_cycles": round(max(wait / total for wait, total in zip(waits, totals, strict=True)), 5),
    }
    return summary, rows


def measured(
    count: int, lanes: int = 16, columns: int = 8, *, quick: bool = False
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run a small network in Verilog; return its deviations, and the weight bits read at each width."""
    from sim_tests.checks import check
    from sim_tests.simulate import simulate

    network = random_network(7, WIDTHS, (1, 8, 8), SMALL)
    pairs = uniform(network)
    mixed = [random_assignment(network, seed) for seed in range(count)]
    machine = fit_machine(network, [*pairs, *mixed], Machine.sized(WIDTHS, WIDTHS, lanes, columns))
    images = random_images(network.image_shape, 1, SEED)
    result = simulate(network, machine, [*pairs, *mixed], images, quick=quick)
    codes = check(result, images)

    def without_waits(assignment: Assignment) -> dict[str, int]:
        real, staged = (layer_cycles(machine, assignment, weights_staged=staged) for staged in (False, True))
        of_layers = {name: int(cycles[0]) for name, cycles in result.cycles[assignment.name].items()}
        return {name: cycles - (real[name] - staged[name]) for name, cycles in of_layers.items()}

    own = own_cycles((assignment, without_waits(assignment)) for assignment in pairs)
    deviations, waits = [], []
    for assignment in mixed:
        here = without_waits(assignment)
        deviations += [here[key[0]] - own[key] for key in keys(assignment)]
        waits.append(result.cycles_per_image(assignment.name) - sum(own[key] for key in keys(assignment)))
    summary = {
        "random_assignments": count,
        "codes_compared": codes,
        "mismatches": 0,
        "largest_deviation_of_a_layer": max(map(abs, deviations)),
        "load_wait_cycles": [min(waits), max(waits)],
    }
    rows = []
    for bits in network.width_set:
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
        rows.append(
            {
                "weight_bits": bits,
                "stored_bits": network.width_set.highest,
                "planes_read_per_row": read_inner / rows_inner,
                "weight_bits_read": read_inner * machine.weight_word_bits,
                "of_stored": round(read_inner / (rows_inner * network.width_set.highest), 4),
            }
        )
    return summary, rows


def report(count: int, simulated: int) -> dict[str, Any]:
    """Return everything that is printed."""
    network = resnet20(SEED, WIDTHS)
    machines = {
        "64-bit weight port": Machine.sized(WIDTHS, WIDTHS, 32, 16, requantizers=8, strip_pixels=128),
        "32-bit weight port": Machine.sized(
            WIDTHS, WIDTHS, 32, 16, requantizers=8, strip_pixels=128, weight_port_bits=32
        ),
    }
    told: dict[str, Any] = {"predicted": {}, "rows": []}
    for name, machine in machines.items():
        summary, rows = predicted(network, machine, count)
        told["predicted"][name] = summary
        told["rows"] += [{"network": "resnet20", "machine": name, **row} for row in rows]
    if simulated:
        told["measured"], rows = measured(simulated)
        told["rows"] += [{"network": "small", **row} for row in rows]
    return told


def main() -> None:
    """Print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--assignments", type=int, default=1000, help="random assignments of ResNet-20")
    parser.add_argument("--no-rtl", action="store_true", help="leave the small network in Verilog out")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    told = report(options.assignments, 0 if options.no_rtl else SIMULATED)
    for name, summary in told["predicted"].items():
        print(f"ResNet-20, 32 lanes x 16 columns, {name}, {summary['random_assignments']} random assignments:")
        print(f"  a layer differs from its own cycles by {summary['largest_deviation_of_a_layer']} at most")
        low, high = summary["load_wait_cycles"]
        share = 100 * summary["largest_wait_of_cycles"]
        print(f"  the array waits for weights {low} .. {high} cycles of an image, {share:.2f} % at most")
        for row in told["rows"]:
            if row.get("machine") == name:
                print(f"  {row['assignment']}: {row['cycles']:>9,} cycles, waiting {row['load_wait_cycles']}")
    if "measured" in told:
        summary = told["measured"]
        print(f"small network in Verilog, {summary['random_assignments']} random assignments:")
        print(f"  {summary['codes_compared']:,} codes and all cycles equal the integer model's")
        print(f"  a layer differs from its own cycles by {summary['largest_deviation_of_a_layer']} at most")
        for row in told["rows"]:
            if row["network"] == "small":
                read = f"{row['planes_read_per_row']:g} planes read, {row['weight_bits_read']:>9,} bits"
                stored = f"{row['weight_bits']}-bit weights, stored in {row['stored_bits']}"
                print(f"  {stored}: {read}, {100 * row['of_stored']:.1f} % of what is stored")
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
