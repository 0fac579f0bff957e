"""Whole networks on the accelerator in Verilator: every stored tensor and every layer's cycles, at every assignment."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys

import numpy as np
import pytest
from amaranth.hdl import Signal

import rtl.accelerator
from hwsim.assignments import mixed_assignments, standard_assignments, uniform_assignments
from hwsim.machine import DATAPATHS, MEMORY_NAMES, Machine
from hwsim.network import FLOOR, Network, WeightLayer, uniform_assignment
from hwsim.precision import CATALOG, WidthSet
from hwsim.program import build, fit_machine, requirements
from hwsim.random_network import (
    SMALL,
    AveragePool,
    Convolution,
    Hidden,
    MaximumPool,
    Residual,
    random_images,
    random_network,
)
from rtl.activation_streamer import ActivationStreamer
from rtl.drain import Drain
from rtl.max_pool import MaxPool
from rtl.tests.mutation import chosen_mutants
from rtl.weight_loader import WeightLoader
from sim_tests import accelerator, harness, simulate
from sim_tests.checks import check
from sim_tests.design import Design, from_component
from sim_tests.simulate import SimulationResult

pytestmark = pytest.mark.verilator

STANDARD = CATALOG["8-6-4-2"]

VARIED = (
    Convolution(channels=8, kernel=5, stride=2),
    MaximumPool(kernel=3, stride=2, padding=1),
    Convolution(channels=20, kernel=(1, 3), padding=0, batch_norm=False),
    Residual(channels=20),
    Convolution(channels=40, kernel=1),
    AveragePool(kernel=2),
    Hidden(features=24),
)
"""Kernels that are not square, max and average pooling, biases, more channels than lanes or columns, odd sizes."""

SMALL_NETWORK = random_network(7, STANDARD, (1, 8, 8), SMALL)
VARIED_NETWORK = random_network(8, STANDARD, (3, 18, 13), VARIED, classes=5)


def machine_for(networks: list[Network], machine: Machine) -> Machine:
    """Return ``machine`` with memories deep enough for each of the networks at its standard assignments."""
    machine = dataclasses.replace(machine, image_channels=max(min(4, network.image_shape[0]) for network in networks))
    needs = [requirements(network, machine, standard_assignments(network)) for network in networks]
    depths = {name: 1 << max(1, (max(need[name] for need in needs) - 1).bit_length()) for name in MEMORY_NAMES}
    return dataclasses.replace(machine, **depths)


STANDARD_MACHINE = machine_for(
    [SMALL_NETWORK, VARIED_NETWORK], Machine(weight_widths=STANDARD, activation_widths=STANDARD)
)


def tiny_machine(network: Network) -> Machine:
    return machine_for(
        [network],
        Machine(
            weight_widths=network.width_set,
            activation_widths=network.width_set,
            lanes=4,
            columns=4,
            requantizers=1,
            weight_port_bits=4,
            strip_pixels=8,
        ),
    )


NESTED = (
    Convolution(channels=4),
    Convolution(channels=4),
    Convolution(channels=4, skip="conv2"),
    Convolution(channels=4, skip="conv1"),
    Residual(channels=6, stride=2),
    MaximumPool(stride=1),
)
"""Two skip codes alive at once, a projected add, overlapping pooling windows."""

NESTED_NETWORK = random_network(9, STANDARD, (1, 5, 5), NESTED)
NESTED_MACHINE = machine_for(
    [NESTED_NETWORK],
    Machine(
        weight_widths=STANDARD,
        activation_widths=STANDARD,
        lanes=8,
        columns=4,
        banks=1,
        requantizers=1,
        weight_port_bits=32,
        strip_pixels=4,
    ),
)
"""Banks of more lanes than are requantized at once, and strips so short that the accumulators' hazard counts."""
OTHER_WIDTH_SETS = [widths for widths in CATALOG.values() if widths != STANDARD] + [WidthSet((5, 3, 1))]


@pytest.mark.parametrize(("idle", "stall"), [(0.0, 0.0), (0.3, 0.0), (0.3, 0.9)])
def test_every_stored_tensor_and_cycle_at_every_assignment(idle, stall):
    images = random_images(SMALL_NETWORK.image_shape, 4, seed=1)
    result = simulate.simulate(
        SMALL_NETWORK,
        STANDARD_MACHINE,
        standard_assignments(SMALL_NETWORK),
        images,
        idle=idle,
        stall=stall,
        seed=5,
    )
    assert len(result.program.assignments) == 6
    assert check(result, images) > 60_000


@pytest.mark.parametrize("stall", [0.0, 0.95])
def test_every_kind_of_layer(stall):
    images = random_images(VARIED_NETWORK.image_shape, 3, seed=2)
    result = simulate.simulate(
        VARIED_NETWORK, STANDARD_MACHINE, standard_assignments(VARIED_NETWORK), images, idle=0.5, stall=stall, seed=6
    )
    assert check(result, images) > 30_000


def test_a_network_that_switches_by_floor():
    """Half of its layers do; the weights differ from those of the rounding switch at every narrow width."""
    layers = [
        dataclasses.replace(layer, switch_rule=FLOOR) if isinstance(layer, WeightLayer) and index % 4 < 3 else layer
        for index, layer in enumerate(SMALL_NETWORK)
    ]
    network = dataclasses.replace(SMALL_NETWORK, layers=tuple(layers))
    images = random_images(network.image_shape, 1, seed=9)
    narrow = uniform_assignments(network)[2:]
    result = simulate.simulate(network, STANDARD_MACHINE, narrow, images)
    assert check(result, images) > 4_000
    rounding = build(SMALL_NETWORK, result.program.machine, uniform_assignments(SMALL_NETWORK)[2:])
    for assignment in narrow:
        name = assignment.name
        assert result.program.weight_planes_read(name) < rounding.weight_planes_read(name)
        weights = [
            program.layer_integers(network.layers[1].name, name).weights for program in (result.program, rounding)
        ]
        assert (weights[0] != weights[1]).any()


def test_a_result_that_nobody_takes_stalls_the_machine_and_changes_nothing():
    """So slow a sink that both halves of the result memory fill up: only the stall counter may notice."""
    images = random_images(SMALL_NETWORK.image_shape, 2, seed=3)
    assignments = [uniform_assignments(SMALL_NETWORK)[-1]]
    slow = simulate.simulate(SMALL_NETWORK, STANDARD_MACHINE, assignments, np.repeat(images, 3, axis=0), stall=0.9995)
    check(slow, np.repeat(images, 3, axis=0))
    assert slow.stall_cycles[assignments[0].name][3:].min() > 1000


@pytest.mark.parametrize("interrupt_cycles", [3, 40, 3000, 9000])
def test_a_reset_in_the_middle_of_a_layer_leaves_nothing_behind(interrupt_cycles):
    images = random_images(SMALL_NETWORK.image_shape, 2, seed=4)
    result = simulate.simulate(
        SMALL_NETWORK,
        STANDARD_MACHINE,
        standard_assignments(SMALL_NETWORK)[:2],
        images,
        interrupt_cycles=interrupt_cycles,
    )
    check(result, images)


@pytest.mark.parametrize(
    "memory", sorted(requirements(SMALL_NETWORK, NESTED_MACHINE, standard_assignments(SMALL_NETWORK)))
)
def test_a_program_too_large_is_refused_before_anything_is_built(memory, monkeypatch):
    monkeypatch.setattr(accelerator, "build", None)
    assignments = uniform_assignments(SMALL_NETWORK)[:1]
    need = requirements(SMALL_NETWORK, STANDARD_MACHINE, assignments)[memory]
    have = need // 2 if memory == "image_words" else need - 1
    machine = dataclasses.replace(STANDARD_MACHINE, **{memory: have})
    images = random_images(SMALL_NETWORK.image_shape, 1, seed=1)
    with pytest.raises(ValueError, match=rf"{memory}|{memory.replace('_', ' ')}") as refusal:
        simulate.simulate(SMALL_NETWORK, machine, assignments, images)
    assert str(need) in str(refusal.value) and str(have) in str(refusal.value)


def test_a_changed_weight_in_the_load_stream_is_noticed(monkeypatch):
    """The machine computes with what it was sent, and the comparison looks at it."""
    images = random_images(SMALL_NETWORK.image_shape, 1, seed=1)
    program = build(SMALL_NETWORK, STANDARD_MACHINE, standard_assignments(SMALL_NETWORK))
    words = program.load_words()
    weights = len(program.weight_words) * -(-STANDARD_MACHINE.weight_word_bits // 32)
    changed = words.copy()
    changed[len(words) - weights] ^= 1  # the sign of one weight of the first layer
    monkeypatch.setattr(type(program), "load_words", lambda self: changed)
    result = simulate.simulate(SMALL_NETWORK, STANDARD_MACHINE, standard_assignments(SMALL_NETWORK), images)
    for comparison in simulate.compare(result, images).values():
        assert not comparison.equal
        assert comparison.first is not None and comparison.first.tensor == SMALL_NETWORK.layers[0].name


MUTATION = Signal(5, name="mutation")
"""Input port of the small machine that chooses which one thing is wrong with it; 0 is none."""

MUTATIONS = {
    "sign of the skip code": (Drain, "layer.skip_is_signed", "choose(1, layer.skip_is_signed, ~layer.skip_is_signed)"),
    "a cycle too many": (
        Drain,
        "settle.begin(output_latency() + 1)",
        "settle.begin(choose(2, output_latency() + 1, output_latency() + 2))",
    ),
    "padding at the right": (
        ActivationStreamer,
        "(x < layer.input_width)",
        "choose(3, x < layer.input_width, 1)",
    ),
    "rounding of the switch": (WeightLoader, "entry.rounds", "choose(4, entry.rounds, 0)"),
    "sign of the top plane": (
        ActivationStreamer,
        "step.subtracts.eq(this_pass.subtracts)",
        "step.subtracts.eq(choose(5, this_pass.subtracts, 0))",
    ),
    "order of the logits": (
        Drain,
        "self.result_address.eq(first.result_address)",
        "self.result_address.eq(choose(6, first.result_address, 0))",
    ),
    "place of the skip code": (
        Drain,
        "skip_read_start.eq(layer.skip_start + channel_group)",
        "skip_read_start.eq(choose(7, layer.skip_start, 0) + channel_group)",
    ),
    "lanes of a code": (Drain, "(written.lane_run == run)", "(choose(8, written.lane_run, 0) == run)"),
    "hazard of the accumulators": (
        ActivationStreamer,
        "age.begin(self.hazard_cycles)",
        "age.begin(choose(9, self.hazard_cycles, 2))",
    ),
    "row stride": (
        ActivationStreamer,
        'current["next_y"] + layer.stride',
        'current["next_y"] + choose(10, layer.stride, 1)',
    ),
    "carry between the groups of a slot": (MaxPool, "top | (same & bottom)", "top | (same & choose(11, bottom, 0))"),
    "first tap of a pooling window": (MaxPool, "Mux(first, 0, held)", "Mux(choose(12, first, 0), 0, held)"),
}


@functools.cache
def design_with_mutations() -> Design:
    """Return the small machine with all mutations built in: one build serves them all."""
    edits: dict[type, dict[str, str]] = {}
    for component, right, wrong in MUTATIONS.values():
        edits.setdefault(component, {})[right] = wrong
    with pytest.MonkeyPatch.context() as patch:
        for component, changes in edits.items():
            mutants = chosen_mutants(sys.modules[component.__module__], changes, MUTATION)
            patch.setattr(rtl.accelerator, component.__name__, mutants[component.__name__])
        return from_component(rtl.accelerator.Accelerator(NESTED_MACHINE), "accelerator_with_mutations", [MUTATION])


def run_mutation(number: int) -> tuple[SimulationResult, np.ndarray]:
    images = random_images(NESTED_NETWORK.image_shape, 2, seed=5)
    result = simulate.simulate(
        NESTED_NETWORK,
        NESTED_MACHINE,
        standard_assignments(NESTED_NETWORK)[1:],
        images,
        idle=0.2,
        stall=0.2,
        design=design_with_mutations(),
        inputs={"mutation": number},
        max_cycles=500_000,
        quick=True,
    )
    return result, images


def test_nested_adds_on_a_narrow_machine():
    result, images = run_mutation(0)
    assert check(result, images) > 1_000


@pytest.mark.parametrize("datapath", DATAPATHS)
def test_the_cells_of_an_ecp5(datapath):
    """Carry cells, block RAMs and multipliers, as models of ours: their fidelity to silicon is unproven."""
    network = random_network(12, CATALOG["8-4-2"], (2, 7, 6), DIGITS, classes=3)
    assignments = standard_assignments(network)
    options = {"lanes": 8, "columns": 4, "banks": 4, "requantizers": 2, "weight_port_bits": 4, "strip_pixels": 64}
    machine = Machine(
        weight_widths=network.width_set, activation_widths=network.width_set, datapath=datapath, **options
    )
    machine = fit_machine(network, assignments, machine)
    design = accelerator.design_of(machine, "ecp5")
    instances = {cell: design.verilog.count(f"\n  {cell} #(") for cell in ("CCU2C", "DP16KD", "MULT18X18D")}
    assert all(instances.values()), instances
    images = random_images(network.image_shape, 2, seed=8)
    result = simulate.simulate(network, machine, assignments, images, idle=0.2, stall=0.2, design=design, quick=True)
    assert check(result, images) > 1_000 * len(assignments)


@pytest.mark.slow
@pytest.mark.parametrize("widths", OTHER_WIDTH_SETS, ids=str)
def test_a_tiny_machine_of_another_width_set(widths):
    # Bipolar weights need channels in a multiple of the lanes.
    sketches = (Convolution(channels=8), Residual(channels=8, stride=2), MaximumPool())
    network = random_network(10, widths, (2, 7, 6), sketches, classes=3)
    images = random_images(network.image_shape, 3, seed=6)
    assignments = standard_assignments(network)
    machine = tiny_machine(network)
    result = simulate.simulate(network, machine, assignments, images, idle=0.2, stall=0.2, quick=True)
    assert check(result, images) > 500 * len(assignments)


DIGITS = (
    Convolution(channels=8),
    Residual(channels=8, stride=2),
    MaximumPool(stride=1),
    AveragePool(kernel=2),
    Hidden(features=12),
)
DIGITS_NETWORK = random_network(11, WidthSet((8, 6, 3, 1)), (2, 7, 6), DIGITS, classes=3)
"""One to four digits of a weight, digits with planes left over, bipolar weights, 1-bit activations."""


def test_digits_of_the_dsp_datapath_at_every_pair_of_widths():
    widths = DIGITS_NETWORK.width_set
    options = {"lanes": 8, "columns": 4, "banks": 4, "requantizers": 2, "weight_port_bits": 4, "strip_pixels": 16}
    assignments = [
        *(uniform_assignment(DIGITS_NETWORK, *pair) for pair in itertools.product(widths, widths)),
        *mixed_assignments(DIGITS_NETWORK),
    ]
    machine = Machine(weight_widths=widths, activation_widths=widths, datapath="dsp", **options)
    machine = fit_machine(DIGITS_NETWORK, assignments, machine)
    assert machine.slots == (8, 4, 2)
    images = random_images(DIGITS_NETWORK.image_shape, 2, seed=7)
    result = simulate.simulate(DIGITS_NETWORK, machine, assignments, images, idle=0.2, stall=0.2, quick=True)
    passes = {fields["passes"] for part in result.program.assignments.values() for fields in part.layers}
    assert passes == {0, 1, 2, 3, 4}
    assert check(result, images) > 15_000


@pytest.mark.parametrize("number", range(1, len(MUTATIONS) + 1), ids=list(MUTATIONS))
def test_a_wrong_accelerator_is_caught(number):
    with pytest.raises(AssertionError, match=r"codes? differs?|A\d, \w+\n|were never written"):
        check(*run_mutation(number))


def test_a_machine_that_hangs_is_reported():
    images = random_images(SMALL_NETWORK.image_shape, 1, seed=5)
    with pytest.raises(harness.SimulationError, match=r"not finished after 9000 cycles: busy 1, layer slot"):
        simulate.simulate(
            SMALL_NETWORK, STANDARD_MACHINE, standard_assignments(SMALL_NETWORK)[:1], images, max_cycles=9_000
        )
