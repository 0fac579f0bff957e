"""Functional coverage: which kinds of layers, at which widths, ran in the simulator and equalled the integer model.

``SUPPORT`` is the table of what this project vouches for; ``COVERING`` are small networks whose layers, over every pair
of widths, hit all of it on one machine of 4 lanes and 4 columns. A bin counts as hit only if every stored tensor of its
run was equal.

    python -m sim_tests.coverage --json build/coverage.json      # make coverage
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwsim.machine import Machine
from hwsim.network import IMAGE, Assignment, AveragePool2d, Linear, MaxPool2d, Network, WeightLayer, uniform_assignment
from hwsim.precision import WidthSet
from hwsim.program import requirements, window
from hwsim.random_network import AveragePool, Convolution, Hidden, MaximumPool, Sketch, random_images, random_network
from sim_tests import simulate
from sim_tests.simulate import SimulationResult

WIDTHS = WidthSet(tuple(range(1, 9)))
EVERY = WIDTHS.widths
NO_WEIGHTS = (0,)


@dataclass(frozen=True, order=True)
class Bin:
    """One way in which a layer can run.

    Parameters
    ----------
    kind : str
        ``image`` (a convolution of the image), ``convolution``, ``linear``, ``logits``, ``average`` or ``maximum``.
    kernel : tuple of int
        Height and width; of a linear layer those of its input.
    stride, padding : int
    weight_bits, activation_bits : int
        0 weight bits for pooling.
    skip : str
        ``none``, ``identity`` (adds an unsigned skip code, made with a ReLU) or ``projection`` (a signed one).
    """

    kind: str
    kernel: tuple[int, int]
    stride: int
    padding: int
    weight_bits: int
    activation_bits: int
    skip: str

    def __str__(self) -> str:
        shape = f"{self.kernel[0]}x{self.kernel[1]} stride {self.stride} padding {self.padding}"
        widths = f"W{self.weight_bits}A{self.activation_bits}" if self.weight_bits else f"A{self.activation_bits}"
        return f"{self.kind} {shape} {widths}" + (f" + {self.skip}" if self.skip != "none" else "")


@dataclass(frozen=True, kw_only=True)
class Support:
    """A row of the support table: all combinations of its entries.

    Parameters
    ----------
    kind : str
    shapes : tuple of ((int, int), int, int)
        Kernel, stride and padding.
    weight_widths, activation_widths : tuple of int
    skips : tuple of str
    """

    kind: str
    shapes: tuple[tuple[tuple[int, int], int, int], ...]
    weight_widths: tuple[int, ...] = (8,)
    activation_widths: tuple[int, ...] = (8,)
    skips: tuple[str, ...] = ("none",)

    def bins(self) -> set[Bin]:
        """Return the bins of the row."""
        return {
            Bin(self.kind, *shape, weight_bits, activation_bits, skip)
            for shape, weight_bits, activation_bits, skip in itertools.product(
                self.shapes, self.weight_widths, self.activation_widths, self.skips
            )
        }


SUPPORT = (
    Support(kind="image", shapes=(((1, 1), 1, 0), ((3, 3), 1, 1), ((3, 3), 1, 0), ((3, 3), 2, 1), ((5, 5), 2, 2))),
    Support(
        kind="convolution",
        shapes=(
            *(((1, 1), stride, 0) for stride in (1, 2)),
            *(((2, 2), stride, 0) for stride in (1, 2)),
            *(((1, 3), stride, 0) for stride in (1, 2)),
            *(((3, 3), stride, padding) for stride in (1, 2) for padding in (0, 1)),
            *(((5, 5), stride, padding) for stride in (1, 2) for padding in (0, 2)),
        ),
        weight_widths=EVERY,
        activation_widths=EVERY,
        skips=("none", "identity", "projection"),
    ),
    Support(
        kind="linear",
        shapes=(((1, 1), 1, 0), ((2, 2), 1, 0)),
        weight_widths=EVERY,
        activation_widths=EVERY,
    ),
    Support(kind="logits", shapes=(((1, 1), 1, 0),)),
    Support(
        kind="average",
        shapes=(((2, 2), 1, 0), ((2, 2), 2, 0), ((3, 3), 1, 0)),
        weight_widths=NO_WEIGHTS,
        activation_widths=EVERY,
    ),
    Support(
        kind="maximum",
        shapes=(
            *(((2, 2), stride, 0) for stride in (1, 2)),
            *(((3, 3), stride, padding) for stride in (1, 2) for padding in (0, 1)),
        ),
        weight_widths=NO_WEIGHTS,
        activation_widths=EVERY,
    ),
)
"""What the suite vouches for. Kernels up to 31 and other strides run the same way; their sizes are drawn at random in
``test_configurations``. Weights and activations of the first and the last layer have 8 bits."""


def supported() -> set[Bin]:
    """Return every bin that the support table allows."""
    return set().union(*(row.bins() for row in SUPPORT))


def bin_of(network: Network, assignment: Assignment, name: str) -> Bin:
    """Return the bin of one layer at an assignment."""
    layer = network.layer(name)
    kernel, stride, padding = window(network, layer)
    activation_bits = assignment.activation_bits(name)
    if not isinstance(layer, WeightLayer):
        kind = "average" if isinstance(layer, AveragePool2d) else "maximum"
        assert kind == "average" or isinstance(layer, MaxPool2d)
        return Bin(kind, kernel, stride, padding, 0, activation_bits, "none")
    kind = "linear" if isinstance(layer, Linear) else "convolution"
    kind = "image" if layer.input == IMAGE else "logits" if layer.makes_logits else kind
    skip = "none"
    if layer.skip is not None:
        skip = "projection" if network.skip_range(layer.skip)[0] < 0 else "identity"
    return Bin(kind, kernel, stride, padding, assignment.weight_bits(name), activation_bits, skip)


def hits(result: SimulationResult, images: np.ndarray) -> Counter[Bin]:
    """Return the bins of what ran and was equal to the integer model, and how many layers hit each."""
    compared = simulate.compare(result, images)
    hit: Counter[Bin] = Counter()
    for name, part in result.program.assignments.items():
        if compared[name].equal:
            hit.update(bin_of(result.program.network, part.assignment, layer.name) for layer in result.program.network)
    return hit


CHANNELS = 8
"""Of every tensor: what bipolar weights need on a machine with 1-bit activations and one lane a bank."""

Shape = tuple[tuple[int, int], int, int]


def pairs(shapes: Sequence[Shape], relu: bool) -> list[Sketch]:
    """Return, for each shape, two convolutions that read the same: the first is added to the second."""
    made: list[Sketch] = []
    source = "conv1"
    for index, (kernel, stride, padding) in enumerate(shapes):
        common = {"channels": CHANNELS, "kernel": kernel, "stride": stride, "padding": padding, "input": source}
        made.append(Convolution(**common, relu=relu, name=f"added{index}"))  # type: ignore[arg-type]
        source = f"sum{index}"
        made.append(Convolution(**common, skip=f"added{index}", name=source))  # type: ignore[arg-type]
    return made


CHAINS: tuple[tuple[int, Shape, tuple[Shape, ...]], ...] = (
    (
        7,
        ((3, 3), 1, 1),
        (((1, 1), 1, 0), ((3, 3), 1, 1), ((5, 5), 1, 2), ((3, 3), 2, 1), ((3, 3), 1, 0), ((2, 2), 1, 0)),
    ),
    (7, ((1, 1), 1, 0), (((1, 3), 1, 0), ((5, 5), 1, 0), ((1, 1), 2, 0))),
    (9, ((3, 3), 1, 0), (((5, 5), 2, 2), ((1, 3), 2, 0))),
    (13, ((5, 5), 2, 2), (((5, 5), 2, 0), ((2, 2), 2, 0))),
    (13, ((3, 3), 2, 1), (((3, 3), 2, 0),)),
)
"""Side of the image, shape of the first layer (which leaves 7 x 7), and the shapes that follow."""

POOLS: tuple[tuple[Sketch, ...], ...] = (
    (
        MaximumPool(kernel=2, stride=1),
        MaximumPool(kernel=3, stride=1, padding=1),
        AveragePool(kernel=2, stride=1),
        MaximumPool(kernel=3, stride=1),
        MaximumPool(kernel=3, stride=2, padding=1),
        Hidden(features=CHANNELS),
        Hidden(features=CHANNELS),
    ),
    (MaximumPool(kernel=3, stride=2), AveragePool(kernel=3, stride=1)),
    (AveragePool(kernel=2, stride=2), MaximumPool(kernel=2, stride=2)),
)


def covering_networks() -> list[Network]:
    """Return small networks whose layers, at every pair of widths, are all that ``SUPPORT`` allows."""
    made = []
    for relu in (True, False):
        for side, (kernel, stride, padding), shapes in CHAINS:
            first = Convolution(channels=CHANNELS, kernel=kernel, stride=stride, padding=padding)
            sketches = (first, *pairs(shapes, relu), AveragePool())
            made.append(random_network(len(made), WIDTHS, (1, side, side), sketches, classes=2))
    for pools in POOLS:
        sketches = (Convolution(channels=CHANNELS), *pools)
        if not isinstance(pools[-1], Hidden):
            sketches = (*sketches, AveragePool())
        made.append(random_network(len(made), WIDTHS, (1, 7, 7), sketches, classes=2))
    return made


def every_pair(network: Network) -> list[Assignment]:
    """Return an assignment for each pair of widths."""
    return [uniform_assignment(network, *pair) for pair in itertools.product(EVERY, repeat=2)]


def covering_machine(networks: Iterable[Network]) -> Machine:
    """Return a machine of 4 lanes and 4 columns that takes each network at every pair of widths."""
    machine = Machine(
        weight_widths=WIDTHS,
        activation_widths=WIDTHS,
        lanes=4,
        columns=4,
        requantizers=4,
        weight_port_bits=4,
        strip_pixels=16,
    )
    depths: dict[str, int] = {}
    for network in networks:
        for name, need in requirements(network, machine, every_pair(network)).items():
            depths[name] = max(depths.get(name, 2), need)
    return Machine(**{**vars(machine), **depths})


def covered(networks: Sequence[Network], machine: Machine) -> Counter[Bin]:
    """Run networks at every pair of widths; return the bins hit."""
    hit: Counter[Bin] = Counter()
    for network in networks:
        images = random_images(network.image_shape, 1, seed=3)
        hit.update(hits(simulate.simulate(network, machine, every_pair(network), images, idle=0.1, stall=0.1), images))
    return hit


def report(hit: Mapping[Bin, int]) -> dict[str, object]:
    """Return what ``main`` writes: counts, and the names of the bins that nothing hit."""
    allowed = supported()
    kinds = {
        row.kind: {"bins": len(row.bins()), "hit": sum(hit.get(each, 0) > 0 for each in row.bins())} for row in SUPPORT
    }
    return {
        "bins": len(allowed),
        "hit": len(allowed & {each for each, count in hit.items() if count}),
        "kinds": kinds,
        "never_exercised": [str(each) for each in sorted(allowed) if not hit.get(each)],
        "beyond_the_table": [str(each) for each in sorted(set(hit) - allowed)],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the covering networks, print what was hit, and return 1 if something never was."""
    parser = argparse.ArgumentParser(prog="python -m sim_tests.coverage", description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", default=Path("build") / "coverage.json")
    options = parser.parse_args(arguments)
    networks = covering_networks()
    told = report(covered(networks, covering_machine(networks)))
    lines = [f"functional coverage: {told['hit']} of {told['bins']} bins"]
    lines += [f"  {kind}: {counts['hit']} of {counts['bins']}" for kind, counts in told["kinds"].items()]  # type: ignore[attr-defined]
    lines += [f"  never exercised: {name}" for name in told["never_exercised"]]  # type: ignore[attr-defined]
    print("\n".join(lines))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    for path, text in (
        (options.json, json.dumps(told, indent=1)),
        (options.json.with_suffix(".txt"), "\n".join(lines)),
    ):
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(text + "\n")
        os.replace(temporary, path)
    return 1 if told["never_exercised"] else 0


if __name__ == "__main__":
    sys.exit(main())
