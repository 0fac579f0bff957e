"""How much of the array's peak a network uses, layer by layer: one image, no batching.

Utilization is the sum over layers of (MACs / peak MACs a cycle at the layer's own widths) divided by the cycles. The
row ``total`` has the cycles of everything: from the taking of the command and of the image's first byte (they come one
a cycle) over weight loads, switching, requantizing, pooling and descriptors to the last logit. Its ``stall_cycles``,
which are among its cycles, are those in which the machine waited for the image. ``total without image`` leaves them
out.

Without ``--rtl`` the cycles are ``hwsim.timing``'s. With it one image of ResNet-20 (random weights) and one of the
trained digits network run at every width in Verilog, and the cycles are those that the Verilog counted; every stored
code, every layer's cycles, and the counters of the machine must be what the model says. ``counted_by`` tells.

    python benchmarks/utilization.py --rtl --json benchmarks/utilization.json
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim import network_file, spec
from hwsim.assignments import uniform_assignments
from hwsim.estimate import COMMAND_CYCLES
from hwsim.machine import Machine
from hwsim.network import Assignment, Network, WeightLayer, uniform_assignment
from hwsim.precision import CATALOG
from hwsim.program import Program, build, fit_machine
from hwsim.random_network import random_images, resnet20
from hwsim.timing import image_load_cycles, image_timing
from hwsim.whole_file import write_json
from rtl.memory_plan import block_rams, memory_shapes
from sim_tests.shipped import NETWORKS, stored_images

SEED = 1
DIGITS = "digits-double-rounding"
ECP5_85_BLOCKS = 208


@dataclass(frozen=True)
class ImageCycles:
    """Cycles of one image at one assignment, run on an idle machine.

    Parameters
    ----------
    layers : mapping of str to int
        Of every layer.
    stall_cycles : int
        In which the machine waited for the image.
    elapsed_cycles : int
        From the taking of the command to the end of the last layer.
    counted_by : str
        ``timing`` or ``Verilog``.
    codes_compared : int
        Stored codes that were equal to the integer model's.
    """

    layers: Mapping[str, int]
    stall_cycles: int
    elapsed_cycles: int
    counted_by: str
    codes_compared: int = 0


def predicted(program: Program, assignment: Assignment) -> ImageCycles:
    """Return the cycles that ``hwsim.timing`` says."""
    timing = image_timing(program.machine, program.assignments[assignment.name])
    stall = image_load_cycles(program.machine, program.image)
    layers = {layer.name: layer.cycles for layer in timing.layers}
    return ImageCycles(layers, stall, stall + COMMAND_CYCLES + timing.cycles, "timing")


def measured(
    program: Program, assignment: Assignment, images: NDArray[np.uint8], *, quick: bool = False
) -> ImageCycles:
    """Run the first of some images in Verilog, and return the cycles that it counted.

    Raises
    ------
    AssertionError
        If a stored code or a layer's cycles differ from the model's.
    ValueError
        If the machine's counters are not what ``predicted`` says.
    """
    from sim_tests.checks import check
    from sim_tests.simulate import simulate

    name = assignment.name
    result = simulate(program.network, program.machine, [assignment], images[:1], quick=quick)
    compared = check(result, images[:1])
    layers = {layer: int(cycles[0]) for layer, cycles in result.cycles[name].items()}
    found = ImageCycles(
        layers, int(result.stall_cycles[name][0]), int(result.elapsed_cycles[name][0]), "Verilog", compared
    )
    require_equal(name, found, predicted(program, assignment))
    return found


def require_equal(name: str, found: ImageCycles, said: ImageCycles) -> None:
    """Raise ``ValueError`` unless every count of the machine is what was said."""
    for what in ("layers", "stall_cycles", "elapsed_cycles"):
        if getattr(found, what) != getattr(said, what):
            raise ValueError(f"{name}: {what} counted {getattr(found, what)}, predicted {getattr(said, what)}")


def rows_of(label: str, program: Program, bits: int, image: ImageCycles) -> list[dict[str, Any]]:
    """Return the rows of a network at one width: of every layer, and two of the whole image."""
    network, machine = program.network, program.machine
    assignment = program.assignments[f"W{bits}A{bits}"].assignment
    rows: list[dict[str, Any]] = []

    def add(layer: str, weight_bits: int | None, activation_bits: int, macs: int, ideal: float, **cycles: int) -> None:
        rows.append(
            {
                "network": label,
                "assignment": assignment.name,
                "layer": layer,
                "weight_bits": weight_bits,
                "activation_bits": activation_bits,
                "macs": macs,
                **cycles,
                "utilization": round(ideal / cycles["cycles"], 4),
                **memories(machine),
                "counted_by": image.counted_by,
            }
        )

    macs_total, ideal_total = 0, 0.0
    for layer in network.layers:
        widths = assignment.layers[layer.name]
        macs, ideal = 0, 0.0
        if isinstance(layer, WeightLayer):
            macs = network.macs(layer)
            ideal = macs / machine.macs_per_cycle(assignment.weight_bits(layer.name), widths.activation_bits)
        macs_total += macs
        ideal_total += ideal
        cycles = image.layers[layer.name]
        add(layer.name, widths.weight_bits, widths.activation_bits, macs, ideal, cycles=cycles, stall_cycles=0)
    whole = {"cycles": image.elapsed_cycles, "stall_cycles": image.stall_cycles}
    add("total", bits, bits, macs_total, ideal_total, **whole)
    without = {"cycles": image.elapsed_cycles - image.stall_cycles, "stall_cycles": 0}
    add("total without image", bits, bits, macs_total, ideal_total, **without)
    return rows


def memories(machine: Machine) -> dict[str, int]:
    """Return the bits of a machine's memories, and the ECP5 block RAMs that they take."""
    shapes = memory_shapes(machine)
    return {
        "memory_bits": sum(width * depth for group in shapes.values() for width, depth, _ in group),
        "block_ram": sum(block_rams(group) for group in shapes.values()),
    }


def networks() -> dict[str, tuple[Network, NDArray[np.uint8]]]:
    """Return each network with its images."""
    resnet = resnet20(SEED, CATALOG["8-6-4-2"])
    digits = network_file.load(NETWORKS / f"{DIGITS}.safetensors")
    return {
        "resnet20": (resnet, random_images(resnet.image_shape, 1, 5)),
        DIGITS: (digits, stored_images(digits)[0]),
    }


def main() -> None:
    """Print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--lanes", type=int, default=32)
    parser.add_argument("--columns", type=int, default=16)
    parser.add_argument("--requantizers", type=int, default=8)
    parser.add_argument("--strip-pixels", type=int, default=128)
    parser.add_argument("--rtl", action="store_true", help="count the cycles in Verilog")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    machines: dict[str, Any] = {}
    simulated: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for label, (network, images) in networks().items():
        widths = network.width_set
        sizes = {"requantizers": options.requantizers, "strip_pixels": options.strip_pixels}
        sized = Machine.sized(widths, widths, options.lanes, options.columns, **sizes)
        machine = fit_machine(network, uniform_assignments(network), sized)
        program = build(network, machine, uniform_assignments(network))
        blocks = {name: block_rams(shapes) for name, shapes in memory_shapes(machine).items()}
        machines[label] = {"machine": machine.to_json(), "block_ram_by_memory": blocks}
        print(f"{label} on {machine.lanes} lanes x {machine.columns} columns, {machine.requantizers} requantizers:")
        print(f"  block RAMs of an ECP5-85 ({ECP5_85_BLOCKS}): {sum(blocks.values())} = {blocks}")
        for bits in widths:
            assignment = uniform_assignment(network, bits)
            image = measured(program, assignment, images) if options.rtl else predicted(program, assignment)
            rows += rows_of(label, program, bits, image)
            for row in rows[-2:]:
                share = f"{row['cycles']:>9,} cycles {100 * row['utilization']:5.1f} %"
                print(f"  {row['assignment']} {row['layer']:19} {share}, counted by {row['counted_by']}")
            if options.rtl:
                told = {"codes_compared": image.codes_compared, "mismatches": 0, "cycles": sum(image.layers.values())}
                simulated.setdefault(label, {})[assignment.name] = told
                print(f"  {assignment.name} in Verilog: {image.codes_compared:,} codes and all cycles equal")
    if options.json:
        report = {
            "date": datetime.date.today().isoformat(),
            "command": " ".join(["python", "benchmarks/utilization.py", *sys.argv[1:]]),
            "versions": {"python": platform.python_version(), "numpy": version("numpy"), "spec": spec.SPEC_VERSION},
            "machines": machines,
            "simulated": simulated,
            "rows": rows,
        }
        write_json(options.json, report)


if __name__ == "__main__":
    main()
