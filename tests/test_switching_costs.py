"""A change of width between layers costs nothing but waits for weights; see ``benchmarks/switching.py``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks import switching
from benchmarks.switching import Run
from hwsim.machine import Machine
from hwsim.random_network import SMALL, random_assignment, random_network
from sim_tests import accelerator, toggles

NETWORK = random_network(7, switching.WIDTHS, (1, 8, 8), SMALL)
MACHINE = Machine.sized(switching.WIDTHS, switching.WIDTHS, 8, 4)


def with_switch_cost(run: Run) -> Run:
    """Return a run in which a layer whose weights have another width than those before takes a cycle more."""
    cycles, before = dict(run.cycles), None
    for name, weight_bits, _ in run.keys:
        cycles[name] += before is not None and weight_bits != before
        before = weight_bits
    return dataclasses.replace(run, cycles=cycles)


def test_a_layer_of_resnet20_takes_its_own_cycles_whatever_stands_around_it() -> None:
    told = switching.report(20, 0)
    assert [found["weight_port_bits"] for found in told["compared"]] == [64, 32]
    for found in told["compared"]:
        assert found["largest_deviation_without_waits"] == 0
        assert found["load_wait_cycles"][0] > 0
    assert told["compared"][0]["largest_wait_of_cycles"] < 0.005
    assert told["compared"][0]["largest_difference_of_cycles"] < 0.005
    assert {row["assignment"] for row in told["rows"]} == {"W8A8", "W6A6", "W4A4", "W2A2"}


def test_the_committed_figures_were_counted_in_verilog_too() -> None:
    told = json.loads(Path(switching.__file__).with_suffix(".json").read_text())
    counted = [(found["network"], found["counted_by"]) for found in told["compared"]]
    assert counted == [("resnet20", "timing")] * 2 + [("resnet20", "Verilog"), ("small", "Verilog")]
    assert [found["largest_deviation_without_waits"] for found in told["compared"]] == [0] * 4
    for row in told["rows"]:
        assert row["cycles"] == row["cycles_of_layers_without_waits"] + row["load_wait_cycles"]


def test_a_cycle_for_every_change_of_width_would_be_noticed() -> None:
    uniform_runs = [switching.predicted_run(MACHINE, assignment) for assignment in switching.uniform(NETWORK)]
    mixed_runs = [switching.predicted_run(MACHINE, random_assignment(NETWORK, seed)) for seed in range(4)]
    assert switching.compare(uniform_runs, mixed_runs)["largest_deviation_without_waits"] == 0
    costly = [with_switch_cost(run) for run in mixed_runs]
    assert switching.compare(uniform_runs, costly)["largest_deviation_without_waits"] == 1


def test_waits_that_are_not_told_would_be_noticed() -> None:
    """Runs of one width wait too, if their port is narrow enough: as they are, they disagree."""
    machine = dataclasses.replace(MACHINE, weight_port_bits=2)
    runs = [switching.predicted_run(machine, assignment) for assignment in switching.uniform(NETWORK)]
    untold = [dataclasses.replace(run, waits=dict.fromkeys(run.waits, 0)) for run in runs]
    with pytest.raises(ValueError, match=r"took \d+ cycles, and \d+ in"):
        switching.own_cycles(untold)


@pytest.mark.verilator
def test_in_verilog_too_and_narrow_weights_read_one_plane_more_than_they_have() -> None:
    summary, rows, read = switching.measured(NETWORK, MACHINE, 2, quick=True)
    assert summary["largest_deviation_without_waits"] == 0 and summary["codes_compared"] > 10_000
    for row in rows:
        assert row["cycles"] == row["cycles_of_layers_without_waits"] + row["load_wait_cycles"]
    assert {row["weight_bits"]: row["planes_read_per_row"] for row in read} == {8: 8, 6: 7, 4: 5, 2: 3}


PAYS_FOR_A_SWITCH = """= ! words_left & (paid | \\layer.passes == passes_before);
  reg paid = 0;
  reg [3:0] passes_before = 0;
  always @(posedge clk) begin
    paid <= ! words_left;
    if (layer_start) passes_before <= \\layer.passes ;
  end
"""
"""A sequencer that starts a layer a cycle later if its weights have another number of planes than those before."""


@pytest.mark.verilator
@pytest.mark.thorough
def test_verilog_that_takes_a_cycle_for_every_change_of_width_is_noticed() -> None:
    machine, _, _ = switching.resident(NETWORK, MACHINE, 2)
    design = accelerator.design_of(machine)
    sequencer = next(found[0] for found in toggles.MODULE.finditer(design.verilog) if found[1].endswith(".sequencer"))
    design = design.mutated(sequencer, sequencer.replace("= ! words_left;", PAYS_FOR_A_SWITCH))
    with pytest.raises(ValueError, match=r"took \d+ cycles, and \d+ in"):
        switching.measured(NETWORK, MACHINE, 2, quick=True, design=design)
