"""Estimates against counts made by hand, against built programs, and against what the hardware counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim import estimate, spec
from hwsim.assignments import select_assignments, standard_assignments, uniform_assignments
from hwsim.machine import Machine
from hwsim.network import Assignment, BatchNorm, Conv2d, Linear, Network, OutputScales, uniform_assignment
from hwsim.precision import CATALOG, WidthSet
from hwsim.program import build, fit_machine
from hwsim.random_network import SMALL, random_network, resnet20
from hwsim.timing import image_load_cycles, image_timing


def _batch_norm(channels: int) -> BatchNorm:
    ones = np.ones(channels, np.float32)
    return BatchNorm(gamma=ones, beta=ones, mean=ones, variance=ones, epsilon=1e-5)


def _conv(name: str, source: str, widths: WidthSet, stored_bits: int, batch_norms: tuple[int, ...]) -> Conv2d:
    low, high = spec.signed_low(stored_bits), spec.signed_high(stored_bits)
    channels = 1 if source == "image" else 4
    codes = np.random.default_rng(len(name)).integers(low, high + 1, (4, channels, 3, 3)).astype(np.int8)
    return Conv2d(
        name=name,
        input=source,
        codes=codes,
        stored_bits=stored_bits,
        weight_scale=np.ones(4, np.float32),
        batch_norms={bits: _batch_norm(4) for bits in batch_norms},
        relu=True,
        output=OutputScales(code=dict.fromkeys({*widths, 8}, 1.0)),
        padding=1,
    )


def chain(widths: WidthSet, inner_layers: int) -> Network:
    """A stem, ``inner_layers`` 3x3 convolutions of 4 channels on a 4 x 4 image, and a head of 5 logits."""
    layers: list[Conv2d | Linear] = [_conv("stem", "image", widths, 8, (8,))]
    for index in range(inner_layers):
        layers.append(_conv(f"conv{index}", layers[-1].name, widths, widths.highest, widths.widths))
    layers.append(
        Linear(
            name="head",
            input=layers[-1].name,
            codes=np.zeros((5, 64), np.int8),
            stored_bits=8,
            weight_scale=np.ones(5, np.float32),
            bias=np.zeros(5, np.float32),
            output=OutputScales(logit=1.0),
        )
    )
    return Network(width_set=widths, image_shape=(1, 4, 4), layers=tuple(layers))


def test_storage_of_a_network_counted_by_hand() -> None:
    stored = estimate.storage(chain(WidthSet((8, 4, 2)), 1))
    stem, inner, head = 4 * 9, 4 * 4 * 9, 5 * 64
    assert stored.weights == stem + inner + head
    assert stored.stored_once_bits == 8 * (stem + inner + head)
    assert stored.float_bits == 32 * (stem + inner + head)
    assert stored.model_per_width_bits == 8 * (stem + head) + (8 + 4 + 2) * inner
    assert stored.float_ratio == 4
    stem_parameters = 4 + (4 * 4 + 1) + 3
    inner_parameters = 4 + 3 * (4 * 4 + 1) + 3
    head_parameters = 5 + 5 + 1
    assert stored.parameter_bits == 32 * (stem_parameters + inner_parameters + head_parameters)


def test_a_narrower_set_is_stored_narrower() -> None:
    network = chain(WidthSet((4, 3, 2)), 2)
    pinned, inner = 4 * 9 + 5 * 64, 2 * 4 * 4 * 9
    assert estimate.storage(network).stored_once_bits == 8 * pinned + 4 * inner
    assert estimate.storage(network).model_per_width_bits == 8 * pinned + (4 + 3 + 2) * inner


@pytest.mark.parametrize(("bits", "planes"), [(8, 8), (6, 7), (4, 5), (2, 3)])
def test_weight_bits_read_are_the_planes_of_the_switch(bits: int, planes: int) -> None:
    network = chain(WidthSet((8, 6, 4, 2)), 3)
    pinned, inner = 4 * 9 + 5 * 64, 3 * 4 * 4 * 9
    read = estimate.weight_bits_read(network, uniform_assignment(network, bits))
    assert read == 8 * pinned + planes * inner


def test_the_floor_rule_reads_no_rounding_plane() -> None:
    layer = chain(WidthSet((8, 4)), 1).weight_layers[1]
    assert estimate.layer_weight_bits_read(layer, 4) == 5 * layer.codes.size
    assert estimate.layer_weight_bits_read(replace(layer, switch_rule="floor"), 4) == 4 * layer.codes.size


@pytest.mark.parametrize("widths", CATALOG.values(), ids=CATALOG)
def test_no_width_reads_more_than_is_stored(widths: WidthSet) -> None:
    network = chain(widths, 2)
    reads = [estimate.weight_bits_read(network, uniform_assignment(network, bits)) for bits in widths]
    assert reads == sorted(reads, reverse=True)
    assert reads[0] == estimate.storage(network).stored_once_bits


def test_bit_products_follow_both_widths() -> None:
    network = chain(WidthSet((8, 4)), 1)
    pinned, inner = 4 * 9 * 16 + 5 * 64, 4 * 4 * 9 * 16
    assert estimate.macs(network) == pinned + inner

    def counted(weight_bits: int, activation_bits: int) -> int:
        assignment: Assignment = uniform_assignment(network, weight_bits, activation_bits)
        return estimate.bit_products(network, assignment)

    assert counted(8, 8) == 64 * (pinned + inner)
    assert counted(4, 8) == 64 * pinned + 32 * inner
    assert counted(4, 4) == 64 * pinned + 16 * inner


@pytest.mark.parametrize(("weight_bits", "activation_bits", "rate"), [(8, 8, 16), (2, 8, 64), (8, 2, 64), (4, 4, 64)])
def test_ideal_cycles_follow_the_widths_of_each_layer(weight_bits: int, activation_bits: int, rate: int) -> None:
    widths = WidthSet((8, 4, 2))
    network = chain(widths, 1)
    machine = Machine(weight_widths=widths, activation_widths=widths, lanes=16, columns=8)
    assignment = uniform_assignment(network, weight_bits, activation_bits)
    assert estimate.ideal_cycles(network, machine, assignment, "conv0") == 4 * 4 * 9 * 16 / rate
    assert estimate.ideal_cycles(network, machine, assignment, "stem") == 4 * 9 * 16 / 16


def _machine(widths: WidthSet, **options: Any) -> Machine:
    return Machine(weight_widths=widths, activation_widths=widths, lanes=16, columns=8, **options)


@pytest.mark.parametrize("widths", CATALOG.values(), ids=CATALOG)
def test_cycles_and_weight_traffic_are_the_built_programs(widths: WidthSet) -> None:
    network = random_network(3, widths, (2, 8, 8), SMALL)
    assignments = standard_assignments(network)
    machine = fit_machine(network, assignments, _machine(widths))
    program = build(network, machine, assignments)
    for assignment in assignments:
        found = estimate.estimate(network, machine, assignment)
        timing = image_timing(machine, program.assignments[assignment.name])
        assert [(layer.name, layer.cycles, layer.array_cycles) for layer in found.layers] == [
            (layer.name, layer.cycles, layer.array_cycles) for layer in timing.layers
        ]
        assert found.cycles == timing.cycles
        assert found.image_load_cycles == image_load_cycles(machine, program.image)
        assert found.traffic.weight_bits == program.weight_bits_read(assignment.name)
        assert found.macs == estimate.macs(network)
    assert estimate.table_bits(network, machine, assignments) == program.table_bits


@pytest.mark.parametrize("bits", [8, 4])
def test_traffic_of_a_layer_counted_by_hand(bits: int) -> None:
    # 4 channels in 1 unit of 4 lanes, 9 taps; 16 pixels in 2 strips; 4 channels in one tile of 8 columns.
    network = chain(WidthSet((8, 4)), 1)
    machine = _machine(WidthSet((8, 4)), strip_pixels=8)
    found = estimate.estimate(network, machine, uniform_assignment(network, bits))
    layer = found.layers[1]
    assert layer.name == "conv0"
    per_lane = 8 // bits
    indices = 9 * 8  # channels are padded to what fills a unit at the narrowest slot
    plane_bits = indices * 8
    units = 9 * 2 // per_lane
    assert layer.traffic == estimate.Traffic(
        weight_bits=plane_bits * (8 if bits == 8 else 5),
        staged_bits=plane_bits * bits,
        array_weight_bits=plane_bits * bits * 2,
        activation_bits_read=bits * 16 * units * 32,
        activation_bits_written=16 * 2 * 32,  # 8 bits for the head
        table_bits=2 * 4 * machine.table_layout.bits,
    )
    assert layer.weight_port_cycles == layer.traffic.weight_bits // 32
    assert layer.requantizer_cycles == 16
    assert layer.array_cycles == bits * 16 * -(-units // 4)
    assert layer.bound == "array"
    assert layer.macs == 4 * 4 * 9 * 16 and layer.peak_macs_per_cycle == 16 * 8 * per_lane / bits
    assert layer.utilization == layer.ideal_cycles / layer.cycles


@pytest.mark.parametrize("bits", [8, 4])
def test_the_dsp_datapath_takes_as_many_planes_in_fewer_passes(bits: int) -> None:
    network = chain(WidthSet((8, 4)), 1)
    assignment = uniform_assignment(network, bits)
    planes, dsp = (
        estimate.estimate(network, _machine(WidthSet((8, 4)), datapath=path), assignment).layers[1]
        for path in ("planes", "dsp")
    )
    assert dsp.traffic.activation_bits_read * bits == planes.traffic.activation_bits_read
    assert dsp.traffic.array_weight_bits == planes.traffic.array_weight_bits
    assert dsp.traffic.weight_bits == planes.traffic.weight_bits


def test_time_follows_the_clock() -> None:
    network = chain(WidthSet((8, 4)), 1)
    found = estimate.estimate(network, _machine(WidthSet((8, 4))), uniform_assignment(network, 4))
    assert found.interval_cycles == found.cycles + 1 > found.image_load_cycles
    assert found.latency_cycles == found.cycles + found.image_load_cycles
    assert found.images_per_s(1e6) * found.interval_cycles == pytest.approx(1e6)
    assert found.latency_s(1e6) == pytest.approx(found.latency_cycles / 1e6)
    assert found.macs_per_s(2e6) == pytest.approx(2e6 * found.macs / found.interval_cycles)


def test_ways_of_keeping_count_tables_everywhere_and_parameters_with_float_weights() -> None:
    network = chain(WidthSet((8, 4, 2)), 1)
    machine, assignments = _machine(WidthSet((8, 4, 2))), uniform_assignments(network)
    stored = estimate.storage(network)
    once, apart, real = estimate.ways_of_keeping(network, machine, assignments)
    # Entries of 2 layers of 4 channels and one of 5, in groups of 4, and one entry more for each.
    tables = 3 * (4 + 1 + 4 + 1 + 8 + 1) * machine.table_layout.bits
    assert once.total_bits == stored.stored_once_bits + tables
    assert apart.total_bits == stored.model_per_width_bits + tables
    assert real.total_bits == stored.float_bits + stored.parameter_bits + tables


def test_cycles_of_resnet20_are_those_counted_in_verilog() -> None:
    measured = json.loads((Path(__file__).resolve().parents[2] / "benchmarks" / "utilization.json").read_text())
    machine = Machine.from_json(measured["machines"]["resnet20"]["machine"])
    network = resnet20(1, CATALOG["8-6-4-2"])
    assert set(measured["simulated"]["resnet20"]) == {"W8A8", "W6A6", "W4A4", "W2A2"}
    rows = [row for row in measured["rows"] if row["network"] == "resnet20" and row["counted_by"] == "Verilog"]
    for name, simulated in measured["simulated"]["resnet20"].items():
        (assignment,) = select_assignments(network, name)
        found = estimate.estimate(network, machine, assignment)
        assert found.cycles == simulated["cycles"]
        layers = {row["layer"]: row["cycles"] for row in rows if row["assignment"] == name}
        assert {layer.name: layer.cycles for layer in found.layers}.items() <= layers.items()
