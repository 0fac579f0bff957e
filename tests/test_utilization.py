"""Utilization: its rows add up and are what the Verilog counts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import utilization
from hwsim.assignments import uniform_assignments
from hwsim.estimate import COMMAND_CYCLES, estimate
from hwsim.machine import Machine
from hwsim.network import uniform_assignment
from hwsim.precision import CATALOG
from hwsim.program import Program, build, fit_machine
from hwsim.random_network import SMALL, random_images, random_network

WIDTHS = CATALOG["8-6-4-2"]
NETWORK = random_network(7, WIDTHS, (1, 8, 8), SMALL)
ASSIGNMENTS = uniform_assignments(NETWORK)
COLUMNS = {"network", "layer", "weight_bits", "activation_bits", "macs", "cycles", "stall_cycles", "utilization"}
COLUMNS |= {"memory_bits", "block_ram", "counted_by", "assignment"}


@pytest.fixture(scope="module")
def program() -> Program:
    machine = fit_machine(NETWORK, ASSIGNMENTS, Machine.sized(WIDTHS, WIDTHS, 8, 4))
    return build(NETWORK, machine, ASSIGNMENTS)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(utilization.__file__).with_suffix(".json").read_text())
    return content


def test_totals_are_the_sums_of_their_layers_and_hold_the_image(program: Program) -> None:
    for bits in WIDTHS:
        assignment = uniform_assignment(NETWORK, bits)
        image = utilization.predicted(program, assignment)
        *layers, total, without = utilization.rows_of("small", program, bits, image)
        assert [row["layer"] for row in layers] == [layer.name for layer in NETWORK.layers]
        assert (total["layer"], without["layer"]) == ("total", "total without image")
        assert total["stall_cycles"] == image.stall_cycles > 64
        cycles = sum(row["cycles"] for row in layers) + COMMAND_CYCLES
        assert (without["cycles"], total["cycles"]) == (cycles, cycles + image.stall_cycles)
        assert total["macs"] == without["macs"] == sum(row["macs"] for row in layers)
        found = estimate(NETWORK, program.machine, assignment)
        ideal = sum(layer.ideal_cycles for layer in found.layers)
        assert total["utilization"] == round(ideal / total["cycles"], 4) < without["utilization"]
        assert all(set(row) == COLUMNS for row in (*layers, total, without))
        assert {(row["memory_bits"], row["block_ram"]) for row in (*layers, total, without)} == {
            tuple(utilization.memories(program.machine).values())
        }


def test_a_counter_that_differs_is_refused(program: Program) -> None:
    said = utilization.predicted(program, ASSIGNMENTS[0])
    utilization.require_equal("W8A8", said, said)
    stalled = dataclasses.replace(said, stall_cycles=said.stall_cycles + 1)
    with pytest.raises(ValueError, match="W8A8: stall_cycles counted"):
        utilization.require_equal("W8A8", stalled, said)
    late = dataclasses.replace(said, elapsed_cycles=said.elapsed_cycles + 1)
    with pytest.raises(ValueError, match="W8A8: elapsed_cycles counted"):
        utilization.require_equal("W8A8", late, said)


@pytest.mark.verilator
def test_the_verilog_counts_what_is_predicted(program: Program) -> None:
    images = random_images(NETWORK.image_shape, 1, 5)
    for assignment in (ASSIGNMENTS[0], ASSIGNMENTS[-1]):
        found = utilization.measured(program, assignment, images, quick=True)
        said = utilization.predicted(program, assignment)
        assert found == dataclasses.replace(said, counted_by="Verilog", codes_compared=found.codes_compared)
        assert found.codes_compared > 1_000


def test_the_committed_rows_were_counted_in_verilog_and_reach_what_is_asked(report: dict[str, Any]) -> None:
    assert all(set(row) == COLUMNS and row["counted_by"] == "Verilog" for row in report["rows"])
    totals = {
        (row["network"], row["assignment"]): row["utilization"] for row in report["rows"] if row["layer"] == "total"
    }
    for name, least in {"W8A8": 0.85, "W6A6": 0.80, "W4A4": 0.65, "W2A2": 0.50}.items():
        assert totals["resnet20", name] >= least
        assert totals[utilization.DIGITS, name] > 0
    blocks = {row["block_ram"] for row in report["rows"]}
    assert max(blocks) <= utilization.ECP5_85_BLOCKS
