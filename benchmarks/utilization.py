"""How much of the array's peak a whole ResNet-20 uses, layer by layer: one 32x32 image, no batching.

Utilization is the sum over layers of (MACs / peak MACs a cycle at the layer's own widths) divided by the cycles of
everything: weight loads, switching, requantizing, pooling, descriptors, and, in the row ``total with image``, waiting
for the image as it arrives byte by byte. The cycles are ``hwsim.timing``'s, which are exact; ``--rtl`` runs one image
at W8A8 and one at W2A2 through the Verilog and requires every stored tensor and every layer's cycles to be equal.

    python benchmarks/utilization.py --rtl --json benchmarks/utilization.json
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hwsim import spec
from hwsim.assignments import uniform_assignments
from hwsim.machine import Machine
from hwsim.network import Network, WeightLayer
from hwsim.precision import CATALOG
from hwsim.program import Program, build, fit_machine
from hwsim.random_network import random_images, resnet20
from hwsim.timing import image_load_cycles, image_timing
from hwsim.whole_file import write_json
from rtl.memory_plan import block_rams, memory_shapes

NETWORK = "resnet20"
SEED = 1
SIMULATED = ("W8A8", "W2A2")
ECP5_85_BLOCKS = 208


def rows_of(network: Network, program: Program, name: str) -> list[dict[str, Any]]:
    """Return the rows of one assignment."""
    machine, part = program.machine, program.assignments[name]
    timing = image_timing(machine, part)
    shapes = memory_shapes(machine)
    memories = {
        "memory_bits": sum(width * depth for group in shapes.values() for width, depth, _ in group),
        "block_ram": sum(block_rams(group) for group in shapes.values()),
    }
    rows = []
    ideal_total = 0.0
    for layer, layer_timing in zip(network.layers, timing.layers, strict=True):
        widths = part.assignment.layers[layer.name]
        macs, ideal = 0, 0.0
        if isinstance(layer, WeightLayer):
            macs = network.macs(layer)
            ideal = macs / machine.macs_per_cycle(part.assignment.weight_bits(layer.name), widths.activation_bits)
        ideal_total += ideal
        rows.append(
            row(name, layer.name, widths.weight_bits, widths.activation_bits, macs, layer_timing.cycles, 0, ideal)
        )
    macs_total = sum(entry["macs"] for entry in rows)
    bits = {"W8A8": 8, "W6A6": 6, "W4A4": 4, "W2A2": 2}[name]
    stall = image_load_cycles(machine, program.image)
    rows.append(row(name, "total", bits, bits, macs_total, timing.cycles, 0, ideal_total) | memories)
    rows.append(row(name, "total with image", bits, bits, macs_total, timing.cycles, stall, ideal_total) | memories)
    return rows


def row(
    assignment: str,
    layer: str,
    weight_bits: int | None,
    activation_bits: int,
    macs: int,
    cycles: int,
    stall_cycles: int,
    ideal: float,
) -> dict[str, Any]:
    """Return one row of the table."""
    return {
        "network": NETWORK,
        "assignment": assignment,
        "layer": layer,
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "macs": macs,
        "cycles": cycles,
        "stall_cycles": stall_cycles,
        "utilization": round(ideal / (cycles + stall_cycles), 4),
    }


def check_in_simulation(network: Network, program: Program) -> dict[str, Any]:
    """Run one image at each simulated assignment; raise unless everything stored and every layer's cycles are equal."""
    from hwsim import engine
    from hwsim.verification import compare
    from sim_tests.simulate import simulate

    images = random_images(network.image_shape, 1, 5)
    assignments = [program.assignments[name].assignment for name in SIMULATED]
    result = simulate(network, program.machine, assignments, images)
    told: dict[str, Any] = {}
    for assignment in assignments:
        part = program.assignments[assignment.name]
        expected = engine.run(network, assignment, part.requantizers, images)
        comparison = compare(assignment.name, expected, result.stored[assignment.name])
        if comparison.mismatches:
            raise SystemExit(f"the hardware differs: {comparison}")
        timing = [layer.cycles for layer in image_timing(program.machine, part).layers]
        measured = [int(cycles[0]) for cycles in result.cycles[assignment.name].values()]
        if measured != timing:
            raise SystemExit(f"{assignment.name}: predicted cycles {timing}, measured {measured}")
        told[assignment.name] = {"codes_compared": comparison.codes_compared, "mismatches": 0, "cycles": sum(timing)}
    return told


def main() -> None:
    """Print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--lanes", type=int, default=32)
    parser.add_argument("--columns", type=int, default=16)
    parser.add_argument("--requantizers", type=int, default=8)
    parser.add_argument("--strip-pixels", type=int, default=128)
    parser.add_argument("--rtl", action="store_true", help="simulate one image at W8A8 and one at W2A2")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    widths = CATALOG["8-6-4-2"]
    network = resnet20(SEED, widths)
    assignments = uniform_assignments(network)
    machine = fit_machine(
        network,
        assignments,
        Machine.sized(
            widths,
            widths,
            options.lanes,
            options.columns,
            requantizers=options.requantizers,
            strip_pixels=options.strip_pixels,
        ),
    )
    program = build(network, machine, assignments)
    rows = [entry for assignment in assignments for entry in rows_of(network, program, assignment.name)]
    print(f"{NETWORK} on {machine.lanes} lanes x {machine.columns} columns, {machine.requantizers} requantizers:")
    for entry in rows:
        if entry["layer"].startswith("total"):
            cycles = entry["cycles"] + entry["stall_cycles"]
            print(
                f"  {entry['assignment']} {entry['layer']:17} {cycles:>9,} cycles {100 * entry['utilization']:5.1f} %"
            )
    blocks = {name: block_rams(shapes) for name, shapes in memory_shapes(machine).items()}
    print(f"  block RAMs of an ECP5-85 ({ECP5_85_BLOCKS}): {sum(blocks.values())} = {blocks}")
    simulated = check_in_simulation(network, program) if options.rtl else {}
    for name, told in simulated.items():
        print(f"  {name} in Verilog: {told['codes_compared']:,} codes equal, {told['cycles']:,} cycles equal")
    if options.json:
        report = {
            "date": datetime.date.today().isoformat(),
            "command": " ".join(["python", "benchmarks/utilization.py", *sys.argv[1:]]),
            "versions": {"python": platform.python_version(), "numpy": version("numpy"), "spec": spec.SPEC_VERSION},
            "machine": machine.to_json(),
            "block_ram_by_memory": blocks,
            "simulated": simulated,
            "rows": rows,
        }
        write_json(options.json, report)


if __name__ == "__main__":
    main()
