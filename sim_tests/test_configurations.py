"""Machines of any widths and sizes, drawn by Hypothesis with networks that fit: whole runs, cycles included.

Small ones run with the other tests, larger ones with ``pytest -m verilator`` or ``-m thorough``. They are the same ones
every time; ``--hypothesis-seed=NUMBER`` draws others. A failure prints the command that runs its case again.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, event, given, reject, seed, settings
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
        """Return assignments with a random width for every layer's weights and every tensor's code.

        The first layer whose widths are free is not at 8 bits, where there are others.
        """
        rng = np.random.default_rng(self.seed)
        layer = free_layers(network)[0]
        made = []
        for number in range(self.assignments):
            tensors = {layer.name: int(rng.choice(self.activation_widths.widths)) for layer in network}
            weights = {layer.name: int(rng.choice(self.weight_widths.widths)) for layer in network.weight_layers}
            tensors[layer.input] = int(rng.choice(narrow(self.activation_widths)))
            weights[layer.name] = int(rng.choice(narrow(self.weight_widths)))
            made.append(assignment_from_weights(network, f"random-{number}", weights, tensors.__getitem__))
        return made

    def fitted(self, network: Network, assignments: list[Assignment]) -> Machine:
        """Return the machine with its memories."""
        needs = requirements(network, self.machine, assignments)
        depths = {name: max(2, need + self.spare_words) for name, need in needs.items()}
        depths["image_words"] = max(2, needs["image_words"])
        return dataclasses.replace(self.machine, **depths)


def free_layers(network: Network) -> list[WeightLayer]:
    """Return the layers whose weights may have any width."""
    return [layer for layer in network.weight_layers if not network.is_pinned(layer)]


def narrow(widths: WidthSet) -> tuple[int, ...]:
    """Return the widths other than 8, or 8 if it is the only one."""
    return tuple(bits for bits in widths if bits != 8) or (8,)


def powers_of_two(low: int, high: int) -> list[int]:
    return [1 << bits for bits in range(low.bit_length() - 1, high.bit_length()) if low <= 1 << bits <= high]


@dataclass(frozen=True, kw_only=True)
class Region:
    """Machines of one datapath and about one size, and how many of them are drawn.

    Parameters
    ----------
    datapath : str
    cells : tuple of int
        Fewest and most lanes x columns.
    lanes : tuple of int
        Lanes that are drawn, those left out that leave no columns for so many cells.
    cases : int
    is_thorough : bool
        Whether its cases are left to ``-m verilator`` and ``-m thorough``.
    """

    datapath: str
    cells: tuple[int, int]
    lanes: tuple[int, ...] = (4, 8, 16, 32, 64)
    cases: int
    is_thorough: bool = True

    def __str__(self) -> str:
        lanes = "".join(f"-{count}-lanes" for count in self.lanes if len(self.lanes) == 1)
        return f"{self.datapath}-{self.cells[0]}-to-{self.cells[1]}{lanes}"

    def columns(self, lanes: int) -> range:
        """Return the columns that a machine of so many lanes may have here."""
        fewest, most = self.cells
        return range(max(4, -(-fewest // lanes)), min(64, most // lanes) + 1)


REGIONS = tuple(
    region
    for datapath in DATAPATHS
    for region in (
        Region(datapath=datapath, cells=(16, 64), cases=4, is_thorough=False),
        Region(datapath=datapath, cells=(65, 256), cases=12),
        Region(datapath=datapath, cells=(257, 511), cases=5),
        Region(datapath=datapath, cells=(512, 512), lanes=(32,), cases=2),
        Region(datapath=datapath, cells=(512, 512), lanes=(64,), cases=2),
    )
)
"""Hypothesis begins with the simplest case of each region: there every region has another."""

WIDTHS_FIRST_SIMPLEST = (4, 2, 8, 6, 3, 5, 7, 1)


def width_lists(fewest: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.sampled_from(WIDTHS_FIRST_SIMPLEST), min_size=fewest, max_size=8, unique=True)


@st.composite
def machines(draw: st.DrawFn, region: Region, weight_widths: WidthSet, activation_widths: WidthSet) -> Machine:
    """Draw a machine that keeps the rules, its memories still of no matter what depth."""
    lanes = draw(st.sampled_from([lanes for lanes in region.lanes if region.columns(lanes)]))
    columns = draw(st.sampled_from(region.columns(lanes)))
    banks = draw(st.sampled_from(powers_of_two(max(1, lanes // 8), lanes)))
    smallest = SMALLEST_SLOT_BITS[region.datapath]
    slots = [max(smallest, spec.slot_bits(bits)) for bits in (*activation_widths, 8)]
    requantizers = draw(st.sampled_from(powers_of_two(1, min(16, lanes // banks * (8 // min(slots))))))
    port_bits = lanes // banks * columns
    unit_rows = [rows for rows in (1, 2, 3, 4, 5, 8) if port_bits % rows == 0 and port_bits // rows <= 512]
    return Machine(
        weight_widths=weight_widths,
        activation_widths=activation_widths,
        lanes=lanes,
        columns=columns,
        banks=banks,
        requantizers=math.gcd(requantizers, math.gcd(lanes, columns)),
        weight_port_bits=port_bits // draw(st.sampled_from(unit_rows)),
        strip_pixels=draw(st.sampled_from(powers_of_two(4, 128))),
        image_channels=draw(st.integers(1, 4)),
        datapath=region.datapath,
        accumulator_bits=draw(st.sampled_from((24, 25, 28, 32))),
        requantizer=RequantizerFormat(
            multiplier_bits=draw(st.integers(12, 24)),
            skip_multiplier_bits=draw(st.integers(26, 40)),
            addend_bits=draw(st.sampled_from((48, 50, 56, 62))),
            shift_max=draw(st.integers(40, 52)),
        ),
    )


WEIGHT_KINDS = ("convolution", "residual", "hidden")


@st.composite
def sketch_lists(draw: st.DrawFn, image_shape: tuple[int, int, int], channels: Sequence[int]) -> tuple[Sketch, ...]:
    """Draw layers that fit an image.

    The first is no block, whose two readers of the image differ in their kernels. One after it has weights: with the
    first and the logits, which have 8 bits, that is one at least whose widths are free.
    """
    _, height, width = image_shape
    layers: list[Sketch] = []
    current = 0
    has_free_layer = False
    last = draw(st.integers(1, 4))
    for position in range(last + 1):
        kinds = ["convolution"]
        if position:
            kinds += ["residual", "average", "maximum"]
        if position and height * width <= 16:
            kinds.append("hidden")
        if position == last and not has_free_layer:
            kinds = [kind for kind in kinds if kind in WEIGHT_KINDS]
        kind = draw(st.sampled_from(kinds))
        side = min(height, width)
        choice = list(channels)
        if kind == "residual" and isinstance(layers[-1], MaximumPool):
            # Max pooling stores no skip code, so what is added must be a projection.
            choice = [count for count in channels if count != current]
            if not choice:
                kind, choice = "convolution", list(channels)
        has_free_layer |= position > 0 and kind in WEIGHT_KINDS
        if kind in WEIGHT_KINDS:
            current = draw(st.sampled_from(choice))
        if kind == "hidden":
            layers.append(Hidden(features=current))
            height = width = 1
            continue
        if kind == "residual":
            stride = draw(st.integers(1, 2))
            layers.append(Residual(channels=current, stride=stride))
            height, width = -(-height // stride), -(-width // stride)
            continue
        stride, padding = draw(st.integers(1, 3)), 0
        if kind == "average":
            kernel = (draw(st.integers(1, side)),) * 2
            layers.append(AveragePool(kernel=kernel, stride=stride))
        elif kind == "maximum":
            size = draw(st.integers(1, min(4, side)))
            kernel, padding = (size, size), draw(st.integers(0, size - 1))
            layers.append(MaximumPool(kernel=size, stride=stride, padding=padding))
        else:
            kernel = draw(st.integers(1, min(5, height))), draw(st.integers(1, min(5, width)))
            padding = draw(st.integers(0, min(kernel) - 1))
            normal = draw(st.sampled_from((True, True, False)))
            layers.append(
                Convolution(channels=current, kernel=kernel, stride=stride, padding=padding, batch_norm=normal)
            )
        height = (height + 2 * padding - kernel[0]) // stride + 1
        width = (width + 2 * padding - kernel[1]) // stride + 1
    return tuple(layers)


@st.composite
def cases(draw: st.DrawFn, region: Region) -> Case:
    """Draw widths, a machine that has them and perhaps others, and a network and assignments that it should take."""
    weight_widths, activation_widths = draw(width_lists(1)), draw(width_lists(1))
    machine = draw(
        machines(
            region,
            WidthSet(tuple({*weight_widths, *draw(width_lists(0))})),
            WidthSet(tuple({*activation_widths, *draw(width_lists(0))})),
        )
    )
    channels: Sequence[int] = range(1, 15)
    if 1 in weight_widths:
        if machine.channel_multiple <= MAX_BIPOLAR_CHANNELS or len(weight_widths) == 1:
            channels = [machine.channel_multiple]
        else:
            weight_widths.remove(1)
    image_shape = draw(st.tuples(st.integers(1, 5), st.integers(3, 9), st.integers(3, 9)))
    return Case(
        machine=machine,
        spare_words=draw(st.sampled_from((0, 0, 1, 5))),
        weight_widths=WidthSet(tuple(weight_widths)),
        activation_widths=WidthSet(tuple(activation_widths)),
        image_shape=image_shape,
        sketches=draw(sketch_lists(image_shape, channels)),
        classes=draw(st.integers(2, 11)),
        seed=draw(st.integers(0, (1 << 16) - 1)),
        assignments=draw(st.integers(1, 3)),
        images=2,
        idle=draw(st.sampled_from((0.0, 0.3))),
        stall=draw(st.sampled_from((0.0, 0.3, 0.9))),
        floors=draw(st.sampled_from((False, False, False, False, True))),
    )


def command(case: Case) -> str:
    """Return the shell command that runs a case again."""
    return f"python -c {shlex.quote(f'from sim_tests.test_configurations import *; run({case!r})')}"


def check_drawn(region: Region, number: str, check_case: Callable[[Case], None]) -> None:
    """Draw the cases of a region, no machine twice, and check each; the same number draws the same ones.

    Where a check fails, Hypothesis looks for a simpler case that fails, for no more than five minutes, and the error
    tells how to run that one.
    """
    passed: set[Machine] = set()
    has_failed = False

    @seed(f"{number} {region}")
    @settings(
        max_examples=region.cases,
        phases=[Phase.generate, Phase.shrink],
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(region))
    def check_one(case: Case) -> None:
        nonlocal has_failed
        assume(has_failed or case.machine not in passed)
        reject_if_refused(case)
        try:
            check_case(case)
        except Exception as error:
            has_failed = True
            error.add_note(f"Drawn with --hypothesis-seed={number}. To run this case again:\n{command(case)}")
            raise
        passed.add(case.machine)

    check_one()
    assert len(passed) == region.cases


def reject_if_refused(case: Case) -> None:
    """Have Hypothesis draw another case if the machine refuses this one's network for a known reason."""
    network = case.network()
    assignments = case.chosen(network)
    try:
        machine = case.fitted(network, assignments)
        for assignment in assignments:
            describe(network, machine, assignment)
    except ValueError as error:
        event(rule_of(error))
        reject()


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


@pytest.fixture
def number(request):
    return request.config.getoption("--hypothesis-seed") or "0"


drawn_regions = pytest.mark.parametrize(
    "region",
    [pytest.param(region, id=str(region), marks=[pytest.mark.thorough] * region.is_thorough) for region in REGIONS],
)


@pytest.mark.verilator
@drawn_regions
def test_a_drawn_machine_runs_as_the_integer_model(region, number):
    def check_case(case: Case) -> None:
        assert run(case) > 0

    check_drawn(region, number, check_case)


@drawn_regions
def test_a_drawn_machine_is_worth_its_simulation(region, number):
    """Each runs a layer at other widths than the 8 bits of the first and the last, unless 8 bits are all it has."""
    drawn: list[Case] = []

    def check_case(case: Case) -> None:
        network = case.network()
        assert case.machine.datapath == region.datapath
        assert region.cells[0] <= case.machine.lanes * case.machine.columns <= region.cells[1]
        for assignment in case.chosen(network):
            layers = [layer.name for layer in free_layers(network)]
            assert len(case.weight_widths) == 1 or {assignment.weight_bits(name) for name in layers} != {8}
            assert len(case.activation_widths) == 1 or {assignment.activation_bits(name) for name in layers} != {8}
        drawn.append(case)

    check_drawn(region, number, check_case)
    assert sum(case.weight_widths.widths == (8,) for case in drawn) <= region.cases // 4


def test_the_regions_are_many_cases_of_each_datapath_and_reach_the_large_machines():
    for thorough, cases_each in ((False, 4), (True, 21)):
        for datapath in DATAPATHS:
            chosen = [each for each in REGIONS if each.is_thorough == thorough and each.datapath == datapath]
            assert sum(region.cases for region in chosen) == cases_each
            assert not thorough or {(32, 16), (64, 8)} <= {
                (lanes, columns) for each in chosen for lanes in each.lanes for columns in each.columns(lanes)
            }


def test_a_failing_case_is_made_simpler_and_told_with_the_command_that_runs_it(monkeypatch):
    module = sys.modules["sim_tests.test_configurations"]
    monkeypatch.setattr(module, "reject_if_refused", lambda case: None)

    def check_case(case: Case) -> None:
        assert len(case.sketches) < 3 and case.machine.columns < 7

    with pytest.raises(AssertionError) as failure:
        check_drawn(REGIONS[0], "0", check_case)
    (note,) = [note for note in failure.value.__notes__ if "--hypothesis-seed=0" in note]
    python, option, code = shlex.split(note.splitlines()[1])
    assert (python, option) == ("python", "-c")
    again: list[Case] = []
    monkeypatch.setattr(module, "run", again.append)
    exec(code, {})
    (case,) = again
    with pytest.raises(AssertionError):
        check_case(case)
    assert len(case.sketches) == 2 or case.machine.columns == 4
