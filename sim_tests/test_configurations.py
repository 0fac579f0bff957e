"""Machines of any widths and sizes, drawn by Hypothesis with networks that fit: whole runs, cycles included.

The first few run with the other tests; all of them, drawn from the same seed, with ``pytest -m verilator`` or
``-m thorough``. A failure prints the ``Case``, an expression: ``run(Case(...))`` does it again.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import hwsim.descriptors
import hwsim.image_layout
import hwsim.layer_geometry
import hwsim.machine
import hwsim.program
from hwsim import spec
from hwsim.image_layout import image_fields
from hwsim.machine import DATAPATHS, SMALLEST_SLOT_BITS, Machine
from hwsim.network import FLOOR, Assignment, Network, WeightLayer, assignment_from_weights, uniform_assignment
from hwsim.precision import WidthSet
from hwsim.program import build, describe, fit_machine, requirements
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
from hwsim.requantize import Affine, RequantizerFormat, search, search_logits
from sim_tests import simulate
from sim_tests.checks import check

DEFAULT_CASES = 8
ALL_CASES = 50
DRAWN = 90
"""Examples that Hypothesis may draw until there are enough cases."""

MAX_CELLS = {"planes": 512, "dsp": 256}
"""Lanes x columns of the largest machine drawn: larger ones take minutes to compile. Small ones are as frequent."""

MAX_BIPOLAR_CHANNELS = 16
"""Bipolar weights need channels in a multiple of ``Machine.channel_multiple``; more than so many are not drawn."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A machine, a network and how it is run.

    Parameters
    ----------
    machine : Machine
        Its memories are made as deep as the network needs, and ``spare_words`` deeper.
    spare_words : int
    weight_widths, activation_widths : WidthSet
        Widths that the assignments use, of the machine's; 8 bits are always possible.
    image_shape : tuple of int
    sketches : tuple of Sketch
    classes, seed, assignments, images : int
    idle, stall : float
    floors : bool
        Whether the layers switch by the floor rule.
    """

    machine: Machine
    spare_words: int
    weight_widths: WidthSet
    activation_widths: WidthSet
    image_shape: tuple[int, int, int]
    sketches: tuple[Sketch, ...]
    classes: int
    seed: int
    assignments: int
    images: int
    idle: float
    stall: float
    floors: bool

    def network(self) -> Network:
        """Return the network, stored at the highest width in use."""
        widths = WidthSet(tuple({*self.weight_widths, *self.activation_widths}))
        network = random_network(self.seed, widths, self.image_shape, self.sketches, self.classes)
        if not self.floors:
            return network
        layers = [
            dataclasses.replace(layer, switch_rule=FLOOR) if isinstance(layer, WeightLayer) else layer
            for layer in network
        ]
        return dataclasses.replace(network, layers=tuple(layers))

    def chosen(self, network: Network) -> list[Assignment]:
        """Return assignments with a random width for every layer's weights and every tensor's code."""
        rng = np.random.default_rng(self.seed)
        made = []
        for number in range(self.assignments):
            tensors = {layer.name: int(rng.choice(self.activation_widths.widths)) for layer in network}
            weights = {layer.name: int(rng.choice(self.weight_widths.widths)) for layer in network.weight_layers}
            made.append(assignment_from_weights(network, f"random-{number}", weights, tensors.__getitem__))
        return made

    def fitted(self, network: Network, assignments: list[Assignment]) -> Machine:
        """Return the machine with its memories."""
        needs = requirements(network, self.machine, assignments)
        depths = {name: max(2, need + self.spare_words) for name, need in needs.items()}
        depths["image_words"] = max(2, needs["image_words"])
        return dataclasses.replace(self.machine, **depths)


def powers_of_two(low: int, high: int) -> list[int]:
    return [1 << bits for bits in range(low.bit_length() - 1, high.bit_length()) if low <= 1 << bits <= high]


def subset(rng: Random, widths: Sequence[int]) -> WidthSet:
    return WidthSet(tuple(rng.sample(widths, rng.randint(1, len(widths)))))


def draw_machine(rng: Random) -> Machine:
    """Draw a machine that keeps the rules, its memories still of no matter what depth."""
    datapath = rng.choice(DATAPATHS)
    weight_widths, activation_widths = subset(rng, range(1, 9)), subset(rng, range(1, 9))
    cells = rng.choice(powers_of_two(16, MAX_CELLS[datapath]))
    lanes = rng.choice(powers_of_two(4, min(64, cells // 4)))
    columns = rng.randint(4, min(64, cells // lanes))
    banks = rng.choice(powers_of_two(max(1, lanes // 8), lanes))
    slots = [max(SMALLEST_SLOT_BITS[datapath], spec.slot_bits(bits)) for bits in (*activation_widths, 8)]
    requantizers = rng.choice(powers_of_two(1, min(16, lanes // banks * (8 // min(slots)))))
    port_bits = lanes // banks * columns
    unit_rows = rng.choice([rows for rows in (1, 2, 3, 4, 5, 8) if port_bits % rows == 0 and port_bits // rows <= 512])
    return Machine(
        weight_widths=weight_widths,
        activation_widths=activation_widths,
        lanes=lanes,
        columns=columns,
        banks=banks,
        requantizers=math.gcd(requantizers, math.gcd(lanes, columns)),
        weight_port_bits=port_bits // unit_rows,
        strip_pixels=rng.choice(powers_of_two(4, 128)),
        image_channels=rng.randint(1, 4),
        datapath=datapath,
        accumulator_bits=rng.choice((24, 25, 28, 32)),
        requantizer=RequantizerFormat(
            multiplier_bits=rng.randint(12, 24),
            skip_multiplier_bits=rng.randint(26, 40),
            addend_bits=rng.choice((48, 50, 56, 62)),
            shift_max=rng.randint(40, 52),
        ),
    )


def draw_sketches(rng: Random, image_shape: tuple[int, int, int], channels: Sequence[int]) -> tuple[Sketch, ...]:
    """Draw layers that fit an image; the first is no block, whose two readers of the image differ in their kernels."""
    _, height, width = image_shape
    layers: list[Sketch] = []
    current = 0
    for position in range(rng.randint(2, 5)):
        kinds = ["convolution"]
        if position:
            kinds += ["residual", "residual", "average", "maximum"]
        if position and height * width <= 16:
            kinds.append("hidden")
        kind = rng.choice(kinds)
        side = min(height, width)
        choice = list(channels)
        if kind == "residual" and isinstance(layers[-1], MaximumPool):
            # Max pooling stores no skip code, so what is added must be a projection.
            choice = [count for count in channels if count != current]
            if not choice:
                kind, choice = "convolution", list(channels)
        if kind not in ("average", "maximum"):
            current = rng.choice(choice)
        if kind == "hidden":
            layers.append(Hidden(features=current))
            height = width = 1
            continue
        if kind == "residual":
            stride = rng.randint(1, 2)
            layers.append(Residual(channels=current, stride=stride))
            height, width = -(-height // stride), -(-width // stride)
            continue
        stride, padding = rng.randint(1, 3), 0
        if kind == "average":
            kernel = (rng.randint(1, side),) * 2
            layers.append(AveragePool(kernel=kernel, stride=stride))
        elif kind == "maximum":
            size = rng.randint(1, min(4, side))
            kernel, padding = (size, size), rng.randint(0, size - 1)
            layers.append(MaximumPool(kernel=size, stride=stride, padding=padding))
        else:
            kernel = rng.randint(1, min(5, height)), rng.randint(1, min(5, width))
            padding = rng.randint(0, min(kernel) - 1)
            normal = rng.random() < 0.7
            layers.append(
                Convolution(channels=current, kernel=kernel, stride=stride, padding=padding, batch_norm=normal)
            )
        height = (height + 2 * padding - kernel[0]) // stride + 1
        width = (width + 2 * padding - kernel[1]) // stride + 1
    return tuple(layers)


def draw_case(rng: Random) -> Case:
    """Draw a machine, and a network and assignments that it should take."""
    machine = draw_machine(rng)
    weight_widths = subset(rng, machine.weight_widths.widths)
    activation_widths = subset(rng, machine.activation_widths.widths)
    channels: Sequence[int] = range(1, 15)
    if 1 in weight_widths:
        if machine.channel_multiple <= MAX_BIPOLAR_CHANNELS or len(weight_widths) == 1:
            channels = [machine.channel_multiple]
        else:
            weight_widths = WidthSet(weight_widths.widths[:-1])
    image_shape = rng.randint(1, 5), rng.randint(3, 9), rng.randint(3, 9)
    return Case(
        machine=machine,
        spare_words=rng.choice((0, 0, 1, 5)),
        weight_widths=weight_widths,
        activation_widths=activation_widths,
        image_shape=image_shape,
        sketches=draw_sketches(rng, image_shape, channels),
        classes=rng.randint(2, 11),
        seed=rng.randrange(1 << 16),
        assignments=rng.randint(1, 3),
        images=2,
        idle=rng.choice((0.0, 0.3)),
        stall=rng.choice((0.0, 0.3, 0.9)),
        floors=rng.random() < 0.2,
    )


@functools.cache
def drawn(count: int) -> tuple[list[Case], list[str]]:
    """Return so many cases whose programs fit, always the same ones, and why others were refused."""
    found: list[Case] = []
    refused: list[str] = []

    @settings(
        max_examples=DRAWN,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=True).map(draw_case))
    def collect(case: Case) -> None:
        if len(found) == count:
            return
        network = case.network()
        assignments = case.chosen(network)
        try:
            machine = case.fitted(network, assignments)
            for assignment in assignments:
                describe(network, machine, assignment)
        except ValueError as error:
            refused.append(rule_of(error))
        else:
            found.append(case)

    collect()
    assert len(found) == count
    return found, refused


def run(case: Case) -> int:
    """Run a case in the simulator and compare; return the codes compared."""
    network = case.network()
    assignments = case.chosen(network)
    machine = case.fitted(network, assignments)
    images = random_images(network.image_shape, case.images, seed=case.seed)
    result = simulate.simulate(
        network, machine, assignments, images, idle=case.idle, stall=case.stall, seed=case.seed, quick=True
    )
    return check(result, images)


REFUSALS = {
    "range": r"^\w+ must be \S+ \.\. \S+, not",
    "power of two": r"^\w+ must be a power of two, not",
    "datapath": r"^datapath must be",
    "requantizers divide": r"^requantizers must divide lanes and columns",
    "requantizers in a unit": r"^requantizers must be at most bank_lanes \* groups",
    "weight port": r"^weight_port_bits must divide bank_lanes \* columns",
    "sum": r"^accumulator_bits must be more than the \S+ bits of a sum",
    "weight width": r"on this machine the weight width must be one of",
    "activation width": r"reads \S+-bit activations, the machine has",
    "bipolar channels": r"bipolar weights need input channels in a multiple of",
    "accumulator": r"accumulators reach \S+ \.\. \S+ and need \S+ bits, the machine has",
    "memory": r"^the network needs \w+ = \S+, the machine has \S+: \S+ too few$",
    "image memory": r"^the network needs image_words = \S+, the machine has \S+$",
    "image readers": r"^layers that read the image must share kernel, stride and padding",
    "size": r"^layer \w+: [\w ]+ must be at most \S+, not",
    "row pitch": r"^tensor \w+: kernels .* read it and need different row pitches$",
    "requantizer sum": r"has no requantizer whose sum fits",
    "requantizer": r"has no requantizer whose multiplier fits \S+ bits and whose sum fits",
}
"""Everything that a machine or a program is refused for, by the sentence that says so."""

MISUSE = (r"^a record must have", r"must fit in \S+ bits", r"has no weights$", r"the program has no assignment")
MISUSE += (r"^a program must", r"is of another network$")
"""Other sentences in those modules: wrong calls, whatever the machine."""


def rule_of(error: ValueError) -> str:
    """Return the rule that a refusal names, or raise it again if it is none of the known ones."""
    rules = [rule for rule, pattern in REFUSALS.items() if re.search(pattern, str(error))]
    if len(rules) != 1:
        raise error
    return rules[0]


WIDTHS = WidthSet((8, 4))
SMALL_SKETCHES = (Convolution(channels=4), Residual(channels=4))
PLAIN = Machine(weight_widths=WIDTHS, activation_widths=WIDTHS)


def small_network(widths: WidthSet = WIDTHS, layers: tuple[Sketch, ...] = SMALL_SKETCHES) -> Network:
    return random_network(1, widths, (1, 5, 5), layers, classes=3)


def build_small(
    machine: Machine = PLAIN, network: Network | None = None, weight_bits: int = 8, code: int = 8
) -> object:
    """Build a small network's program, all memories but the given ones as deep as needed."""
    network = network or small_network()
    assignment = uniform_assignment(network, weight_bits, code)
    return build(network, fit_machine(network, [assignment], machine), [assignment])


def build_in(**fields: int) -> object:
    network = small_network()
    assignments = [uniform_assignment(network, 8)]
    return build(network, dataclasses.replace(fit_machine(network, assignments, PLAIN), **fields), assignments)


def two_pitches() -> Network:
    other = Convolution(channels=4, kernel=5, input="conv1", skip="other")
    return small_network(layers=(Convolution(channels=4), Convolution(channels=4, name="other"), other))


def steep(alpha: float) -> Affine:
    """Return what a layer computes of one channel, so steep that a narrow requantizer cannot."""
    high = 255 if alpha < 10 else 2**31 - 1
    return Affine(alpha=np.array([alpha]), kappa=np.zeros(1), beta=np.zeros(1), low=min(0, 254 - high), high=high)


REFUSED: dict[str, Callable[[], object]] = {
    "range": lambda: dataclasses.replace(PLAIN, columns=3),
    "power of two": lambda: dataclasses.replace(PLAIN, lanes=12),
    "datapath": lambda: dataclasses.replace(PLAIN, datapath="analogue"),
    "requantizers divide": lambda: dataclasses.replace(PLAIN, columns=6),
    "requantizers in a unit": lambda: dataclasses.replace(PLAIN, banks=16, requantizers=8, weight_port_bits=8),
    "weight port": lambda: dataclasses.replace(PLAIN, weight_port_bits=24),
    "sum": lambda: dataclasses.replace(PLAIN, accumulator_bits=12),
    "weight width": lambda: build_small(network=small_network(WidthSet((8, 3))), weight_bits=3),
    "activation width": lambda: build_small(network=small_network(WidthSet((8, 3))), code=3),
    "bipolar channels": lambda: build_small(
        Machine(weight_widths=WidthSet((8, 1)), activation_widths=WIDTHS),
        small_network(WidthSet((8, 1)), (Convolution(channels=5), Convolution(channels=4))),
        weight_bits=1,
    ),
    "accumulator": lambda: build_in(accumulator_bits=14),
    "memory": lambda: build_in(staging_words=1),
    "image memory": lambda: image_fields(small_network(), dataclasses.replace(PLAIN, image_words=2)),
    "image readers": lambda: build_small(
        network=small_network(
            layers=(
                Convolution(channels=4),
                Convolution(channels=4, kernel=1, input="image", relu=False, name="shortcut"),
                Convolution(channels=4, input="conv1", skip="shortcut"),
            )
        )
    ),
    "size": lambda: build_small(network=small_network(layers=(Convolution(channels=4), Hidden(features=1024)))),
    "row pitch": lambda: build_small(network=two_pitches(), code=4),
    "requantizer sum": lambda: search(
        steep(5.0), np.array([-(2**29)]), np.array([2**29]), (0, 0), RequantizerFormat(addend_bits=16)
    ),
    "requantizer": lambda: search_logits(
        steep(2.0**15), np.array([-9]), np.array([9]), RequantizerFormat(multiplier_bits=6)
    ),
}


@pytest.mark.parametrize("rule", REFUSALS)
def test_what_a_machine_cannot_do_is_refused_with_a_sentence(rule):
    with pytest.raises(ValueError) as refusal:
        REFUSED[rule]()
    assert rule_of(refusal.value) == rule


def test_the_machine_that_the_refusals_vary_is_not_refused():
    build_small()
    assert sorted(REFUSED) == sorted(REFUSALS)
    with pytest.raises(ValueError, match="something else"):
        rule_of(ValueError("something else"))


REFUSING = {
    hwsim.machine: 6,
    hwsim.program: 6,
    hwsim.layer_geometry: 1,
    hwsim.image_layout: 1,
    hwsim.descriptors: 1,
}
"""Modules that refuse what a machine cannot do, and how often each does at least."""


@pytest.mark.parametrize(("module", "fewest"), REFUSING.items(), ids=[module.__name__ for module in REFUSING])
def test_every_refusal_in_the_source_has_a_rule(module, fewest):
    """Whoever adds a refusal adds its rule to ``REFUSALS`` and what reaches it to ``REFUSED``."""
    raised = [
        node.exc.args[0]
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func) == "ValueError"
    ]
    assert len(raised) >= fewest
    for message in raised:
        parts = message.values if isinstance(message, ast.JoinedStr) else [message]
        sentence = "".join(str(part.value) if isinstance(part, ast.Constant) else "0" for part in parts)
        if not any(re.search(pattern, sentence) for pattern in MISUSE):
            rule_of(ValueError(sentence))


@pytest.mark.verilator
@pytest.mark.parametrize(
    "index",
    [pytest.param(index, marks=[] if index < DEFAULT_CASES else pytest.mark.thorough) for index in range(ALL_CASES)],
)
def test_a_drawn_machine_runs_as_the_integer_model(index):
    case = drawn(DEFAULT_CASES if index < DEFAULT_CASES else ALL_CASES)[0][index]
    try:
        assert run(case) > 0
    except Exception as error:
        raise AssertionError(f"run({case!r})") from error
