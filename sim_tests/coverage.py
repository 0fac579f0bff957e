"""Functional coverage: which kinds of layers, at which widths, ran in the simulator and equalled the integer model.

``SUPPORT`` is the table of what this project vouches for; ``covering_networks`` are small networks whose layers, over
every pair of widths, hit all of it on two machines of 4 lanes and 4 columns, one of each datapath. A bin counts as hit
only if every stored tensor of its run was equal.

In the same runs, and in those of networks of large sizes, Verilator counts the toggles of descriptors, state machines,
handshakes and control signals (``sim_tests.toggles``); those that never change are named, each with its reason out of
``EXCUSES``. It is a failure if a bin is never hit, a bit never toggles without an excuse, or an excuse is not needed.

    python -m sim_tests.coverage --json build/coverage.json      # make coverage
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.assignments import standard_assignments
from hwsim.layer_geometry import window
from hwsim.machine import DATAPATHS, Machine
from hwsim.network import IMAGE, Assignment, AveragePool2d, Linear, MaxPool2d, Network, WeightLayer, uniform_assignment
from hwsim.precision import WidthSet
from hwsim.program import requirements
from hwsim.random_network import (
    AveragePool,
    Convolution,
    Hidden,
    MaximumPool,
    Residual,
    Sketch,
    random_images,
    random_network,
)
from hwsim.whole_file import write_bytes, write_json
from sim_tests import accelerator, simulate, toggles
from sim_tests.simulate import SimulationResult
from sim_tests.toggles import Excuse

WIDTHS = WidthSet(tuple(range(1, 9)))
EVERY = WIDTHS.widths
NO_WEIGHTS = (0,)


@dataclass(frozen=True, order=True)
class Bin:
    """One way in which a layer can run.

    Parameters
    ----------
    datapath : str
        Of the machine.
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

    datapath: str
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
        skip = f" + {self.skip}" if self.skip != "none" else ""
        return f"{self.datapath}: {self.kind} {shape} {widths}{skip}"


@dataclass(frozen=True, kw_only=True)
class Support:
    """A row of the support table: all combinations of its entries, on each datapath.

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
            Bin(datapath, self.kind, *shape, weight_bits, activation_bits, skip)
            for datapath, shape, weight_bits, activation_bits, skip in itertools.product(
                DATAPATHS, self.shapes, self.weight_widths, self.activation_widths, self.skips
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


def bin_of(datapath: str, network: Network, assignment: Assignment, name: str) -> Bin:
    """Return the bin of one layer at an assignment."""
    layer = network.layer(name)
    kernel, stride, padding = window(network, layer)
    activation_bits = assignment.activation_bits(name)
    if not isinstance(layer, WeightLayer):
        kind = "average" if isinstance(layer, AveragePool2d) else "maximum"
        assert kind == "average" or isinstance(layer, MaxPool2d)
        return Bin(datapath, kind, kernel, stride, padding, 0, activation_bits, "none")
    kind = "linear" if isinstance(layer, Linear) else "convolution"
    kind = "image" if layer.input == IMAGE else "logits" if layer.makes_logits else kind
    skip = "none"
    if layer.skip is not None:
        skip = "projection" if network.skip_range(layer.skip)[0] < 0 else "identity"
    return Bin(datapath, kind, kernel, stride, padding, assignment.weight_bits(name), activation_bits, skip)


def hits(result: SimulationResult, images: np.ndarray) -> Counter[Bin]:
    """Return the bins of what ran and was equal to the integer model, and how many layers hit each."""
    compared = simulate.compare(result, images)
    hit: Counter[Bin] = Counter()
    for name, part in result.program.assignments.items():
        if compared[name].equal:
            program = result.program
            hit.update(
                bin_of(program.machine.datapath, program.network, part.assignment, layer.name)
                for layer in program.network
            )
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
        # More logits than requantizers: two words of them.
        made.append(random_network(len(made), WIDTHS, (1, 7, 7), sketches, classes=5))
    return made


def every_pair(network: Network) -> list[Assignment]:
    """Return an assignment for each pair of widths."""
    return [uniform_assignment(network, *pair) for pair in itertools.product(EVERY, repeat=2)]


def covering_machine(networks: Iterable[Network], datapath: str) -> Machine:
    """Return a machine of 4 lanes and 4 columns that takes each network at every pair of widths."""
    machine = Machine(
        weight_widths=WIDTHS,
        activation_widths=WIDTHS,
        lanes=4,
        columns=4,
        requantizers=4,
        weight_port_bits=4,
        strip_pixels=16,
        datapath=datapath,
    )
    return as_deep_as_needed(machine, [(network, every_pair(network)) for network in networks])


def as_deep_as_needed(machine: Machine, runs: Iterable[tuple[Network, Sequence[Assignment]]]) -> Machine:
    """Return the machine with memories for each network at its assignments."""
    depths: dict[str, int] = {}
    for network, assignments in runs:
        for name, need in requirements(network, machine, assignments).items():
            depths[name] = max(depths.get(name, 2), need)
    return replace(machine, **depths)


SIZE_WIDTHS = WidthSet((8, 5, 2))


NESTED: tuple[Sketch, ...] = (
    Convolution(channels=4),
    Convolution(channels=4, skip="conv2"),
    Convolution(channels=4, skip="conv1"),
)
"""Two skip codes alive at once."""


def large_networks() -> list[Network]:
    """Return networks with a wide image, a high one, large kernels, many channels: cheap, but for one size."""
    strided = {"channels": 4, "stride": 31, "padding": 0}
    last = AveragePool()
    pointwise = Convolution(channels=4, kernel=1)
    sketches: tuple[tuple[WidthSet, tuple[int, int, int], tuple[Sketch, ...], int], ...] = (
        (SIZE_WIDTHS, (3, 3, 960), (Convolution(channels=4), Convolution(**strided, kernel=(3, 31)), last), 2),
        (SIZE_WIDTHS, (2, 960, 3), (Convolution(channels=4), Convolution(**strided, kernel=(31, 3)), last), 2),
        (SIZE_WIDTHS, (1, 49, 49), (Convolution(channels=4, kernel=17, stride=31, padding=16), pointwise, last), 600),
        (
            WidthSet(SIZE_WIDTHS.widths[1:]),
            (1, 61, 57),
            (Convolution(channels=4), Residual(channels=4), MaximumPool(kernel=31, stride=30, padding=28), last),
            421,
        ),
        (SIZE_WIDTHS, (1, 9, 11), (Convolution(channels=4, kernel=13, padding=12), *NESTED, last), 2),
        (SIZE_WIDTHS, (1016, 2, 2), (pointwise, Hidden(features=1020), Hidden(features=8)), 2),
        (SIZE_WIDTHS, (524, 1, 2), (pointwise, last), 2),
        (SIZE_WIDTHS, (4, 1, 1), (pointwise, last), 1),
        (SIZE_WIDTHS, (1, 5, 5), (pointwise, *NESTED, last), 2),
        (SIZE_WIDTHS, (1, 3, 4), (pointwise, *NESTED, last), 2),
    )
    return [
        random_network(index, widths, shape, layers, classes=classes)
        for index, (widths, shape, layers, classes) in enumerate(sketches)
    ]


def large_machine(networks: Iterable[Network]) -> Machine:
    """Return a machine for ``large_networks``, with more of everything that the covering ones have one of."""
    machine = Machine(
        weight_widths=SIZE_WIDTHS,
        activation_widths=SIZE_WIDTHS,
        lanes=8,
        columns=8,
        banks=4,
        requantizers=1,
        weight_port_bits=8,
        strip_pixels=16,
        image_channels=3,
    )
    return as_deep_as_needed(machine, [(network, standard_assignments(network)) for network in networks])


@dataclass(frozen=True)
class Coverage:
    """What was hit, and what toggled.

    Parameters
    ----------
    bins : Counter of Bin
    toggles : Counter of str
        See ``toggles.decode``.
    """

    bins: Counter[Bin]
    toggles: Counter[str]


def covered(machine: Machine, runs: Iterable[tuple[Network, Sequence[Assignment]]]) -> Coverage:
    """Run networks; return the bins hit and the toggles."""
    found = Coverage(Counter(), Counter())
    design = toggles.marked(accelerator.design_of(machine))
    for network, assignments in runs:
        images = random_images(network.image_shape, 1, seed=3)
        result = simulate.simulate(network, machine, assignments, images, idle=0.1, stall=0.1, design=design)
        found.bins.update(hits(result, images))
        found.toggles.update(result.toggles)
    return found


def covered_in_all() -> Iterator[Coverage]:
    """Yield the coverage of every machine and its networks."""
    networks = covering_networks()
    for datapath in DATAPATHS:
        machine = covering_machine(networks, datapath)
        yield covered(machine, [(network, every_pair(network)) for network in networks])
    networks = large_networks()
    yield covered(large_machine(networks), [(network, standard_assignments(network)) for network in networks])


EXCUSES: tuple[Excuse, ...] = (
    Excuse(r"image_loader\.byte", "images of one channel on a machine that takes one"),
    Excuse(r"image_loader\.geometry\.steps\[9\]", "512 steps of a tap and more are not simulated"),
    Excuse(
        r"image_loader\.geometry\.(row_step\[1[01]\]|window_step\[(9|1[01])\]|window_row_step\[11\])",
        "as wide as an address of a raw image, of which the steps simulated are a small part",
    ),
    Excuse(
        r"image_loader\.geometry\.(windows_held\[1[01]\]|windows_lead\[([6-9]|1[0-2])\])",
        "as wide as a number of image words; so many windows of one word are not simulated",
    ),
    Excuse(r"sequencer\.started\.layer\.tiles\[[89]\]", "at most 1023 channels, in tiles of four or more"),
    Excuse(r"sequencer\.started\.layer\.output_pixels\[1[2-9]\]", "maps of 4,096 pixels and more are not simulated"),
    Excuse(r"sequencer\.started\.layer\.output_start\[[01]\]", "tensors begin in the first of four banks"),
    Excuse(
        r"sequencer\.started\.layer\.(pixel_step\[1[0-4]\]|kernel_row_step\[13\]|output_start\[14\])",
        "as wide as a unit address; no pixel or row is so long, no tensor begins so far",
    ),
    Excuse(
        r"sequencer\.started\.layer\.output_row_gap\[([2-9]|1[0-4])\]",
        "as wide as a unit address; rows end in a gap of at most three units",
    ),
    Excuse(r"sequencer\.started\.layer\.skip_(output_)?start\[[01]\]", "skip codes of four words a pixel"),
    Excuse(
        r"sequencer\.started\.layer\.skip_(output_)?start\[1[1-3]\]",
        "the skip memory is as deep as one large tensor needs; of two at once the second begins below 2,048",
    ),
    Excuse(r"sequencer\.started\.layer\.skip_table_start\[[01]\]", "layers of four or eight channels add"),
    Excuse(
        r"sequencer\.started\.layer\.staging_start\[([0-24-9]|1[0-3])\]",
        "only pooling begins elsewhere than at 0: at 8, the rows of its plane",
    ),
    Excuse(
        r"(sequencer\.started\.layer\.plane_step|weight_loader\.entry\.tile_rows)\[([01]|1[1-4])\]",
        "planes of a tile have a multiple of four rows, and fewer than 2,048",
    ),
    Excuse(
        r"weight_loader\.entry\.staging_start\[([01]|14)\]",
        "planes of a tile have a multiple of four rows; the last begins below 16,384",
    ),
    Excuse(r"weight_loader\.entry\.tiles\[[89]\]", "at most 1023 channels, in tiles of four or more"),
    Excuse(
        r"weight_loader\.entry\.weight_start\[([0-2]|14)\]",
        "weights of a layer take a multiple of eight words; none begins from 16,384 to 32,767",
    ),
    Excuse(r"drain\.(group|arrived_group_[12])", "where one bit counts the groups of requantizers, there is one group"),
)
"""Bits of the machines of this module that never change, and why. No others do, and none of these changes."""


def report(found: Coverage) -> dict[str, object]:
    """Return what ``main`` writes: counts, and the names of the bins never hit and of the bits that never toggled."""
    allowed = supported()
    hit = found.bins
    kinds = {
        row.kind: {"bins": len(row.bins()), "hit": sum(hit.get(each, 0) > 0 for each in row.bins())} for row in SUPPORT
    }
    still = toggles.never(found.toggles)
    left, idle = toggles.unexcused(still, EXCUSES)
    return {
        "bins": len(allowed),
        "hit": len(allowed & {each for each, count in hit.items() if count}),
        "kinds": kinds,
        "never_exercised": [str(each) for each in sorted(allowed) if not hit.get(each)],
        "beyond_the_table": [str(each) for each in sorted(set(hit) - allowed)],
        "bits": len(toggles.bits(found.toggles)),
        "bits_toggled": len(toggles.bits(found.toggles)) - len(still),
        "never_toggled": left,
        "never_toggled_for_a_reason": {
            bit: excuse.reason for excuse in EXCUSES for bit in still if re.fullmatch(excuse.bits, bit)
        },
        "toggled_though_excused": [
            bit
            for bit, count in sorted(toggles.bits(found.toggles).items())
            if count and any(re.fullmatch(excuse.bits, bit) for excuse in EXCUSES)
        ],
        "idle_excuses": [excuse.bits for excuse in idle],
    }


def lines_of(told: Mapping[str, Any]) -> list[str]:
    """Return a report as text."""
    lines = [f"functional coverage: {told['hit']} of {told['bins']} bins"]
    lines += [f"  {kind}: {counts['hit']} of {counts['bins']}" for kind, counts in told["kinds"].items()]
    lines += [f"  never exercised: {name}" for name in told["never_exercised"]]
    lines.append(f"toggle coverage: {told['bits_toggled']} of {told['bits']} bits of descriptors and control signals")
    lines += [f"  never toggled: {name}" for name in told["never_toggled"]]
    lines += [f"  never toggled: {name} ({reason})" for name, reason in told["never_toggled_for_a_reason"].items()]
    lines += [f"  toggled, though excused: {name}" for name in told["toggled_though_excused"]]
    lines += [f"  an excuse for no bit: {bits}" for bits in told["idle_excuses"]]
    return lines


def is_complete(told: Mapping[str, Any]) -> bool:
    """Return whether every bin was hit, and every bit toggled but those excused, each with an excuse that it needs."""
    faults = ("never_exercised", "never_toggled", "toggled_though_excused", "idle_excuses")
    return not any(told[name] for name in faults)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the covering networks, print what was hit and toggled, and return 1 if something is missing."""
    parser = argparse.ArgumentParser(prog="python -m sim_tests.coverage", description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", default=Path("build") / "coverage.json")
    options = parser.parse_args(arguments)
    found = Coverage(Counter(), Counter())
    for part in covered_in_all():
        found.bins.update(part.bins)
        found.toggles.update(part.toggles)
    told = report(found)
    text = "\n".join(lines_of(told))
    print(text)
    write_json(options.json, told)
    write_bytes(options.json.with_suffix(".txt"), (text + "\n").encode())
    return 0 if is_complete(told) else 1


if __name__ == "__main__":
    sys.exit(main())
