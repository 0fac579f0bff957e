"""Functional coverage: the covering networks hit every supported bin, and only what was equal counts."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import Counter

import pytest

from hwsim.machine import DATAPATHS
from hwsim.random_network import random_images
from sim_tests import accelerator, coverage, simulate, toggles
from sim_tests.design import Design
from sim_tests.toggles import Excuse

networks = functools.cache(coverage.covering_networks)


def test_the_covering_networks_have_every_supported_bin():
    supported = coverage.supported()
    meant = {
        coverage.bin_of(datapath, network, assignment, layer.name)
        for datapath in DATAPATHS
        for network in networks()
        for assignment in coverage.every_pair(network)
        for layer in network
    }
    assert len(supported) == 2 * 2894
    assert supported <= meant


def test_a_report_names_what_was_never_exercised():
    missing = coverage.Bin("dsp", "convolution", (3, 3), 2, 1, 5, 3, "projection")
    bins = Counter(dict.fromkeys(coverage.supported() - {missing}, 1) | {missing: 0})
    changes = Counter({"drain.done 0->1": 2, "drain.done 1->0": 0, "drain.stuck 0->1": 0, "drain.stuck 1->0": 0})
    told = coverage.report(coverage.Coverage(bins, changes))
    assert told["never_exercised"] == ["dsp: convolution 3x3 stride 2 padding 1 W5A3 + projection"]
    assert told["bins"] == told["hit"] + 1
    assert told["never_toggled"] == ["drain.stuck"] and told["bits"] == told["bits_toggled"] + 1
    lines = coverage.lines_of(told)
    assert "  never toggled: drain.stuck" in lines and lines[0] == "functional coverage: 5787 of 5788 bins"
    assert coverage.report(coverage.Coverage(Counter(), Counter()))["hit"] == 0


def test_coverage_is_complete_with_every_bin_and_every_bit_but_those_excused_and_no_more(monkeypatch):
    monkeypatch.setattr(coverage, "EXCUSES", (Excuse(r"drain\.(group|word)", "one group"),))
    bins = Counter(dict.fromkeys(coverage.supported(), 1))

    def told(bins: Counter, **changes: int) -> dict:
        return coverage.report(coverage.Coverage(bins, Counter({f"drain.{bit} 0->1": n for bit, n in changes.items()})))

    good = told(bins, done=1, group=0)
    assert coverage.is_complete(good) and good["never_toggled_for_a_reason"] == {"drain.group": "one group"}
    assert "  never toggled: drain.group (one group)" in coverage.lines_of(good)
    faults = {
        "never_exercised": (told(bins - Counter([max(bins)]), done=1, group=0), str(max(bins))),
        "never_toggled": (told(bins, done=0, group=0), "drain.done"),
        "toggled_though_excused": (told(bins, word=1, group=0), "drain.word"),
        "idle_excuses": (told(bins, done=1), r"drain\.(group|word)"),
    }
    for fault, (report, name) in faults.items():
        assert {each for each in faults if report[each]} == {fault} and report[fault] == [name]
        assert not coverage.is_complete(report)
        assert any(line.endswith(f": {name}") for line in coverage.lines_of(report))


def test_an_excuse_is_for_the_bits_it_names_and_must_be_needed():
    excuses = (Excuse(r"drain\.group", "one group"), Excuse(r"drain\.x", "not needed"))
    left, idle = toggles.unexcused(["drain.group", "drain.groups"], excuses)
    assert left == ["drain.groups"] and idle == [excuses[1]]


def test_marks_are_around_what_counts_and_nowhere_else():
    verilog = """
module top(clk, load__valid, data);
  input clk;
  input load__valid;
  input [7:0] data;
endmodule
module \\top.sequencer (clk, layer_start);
  input clk;
  input layer_start;
  wire [2:0] \\layer.units ;
  reg [1:0] fsm_state = 2'h0;
  reg [7:0] slot;
  wire \\$1 ;
endmodule
"""
    text = toggles.marked(Design("top", verilog, ())).verilog
    assert text.startswith(toggles.OFF)
    marks = re.findall(rf"{re.escape(toggles.ON)}\n *(.*?)\n{re.escape(toggles.OFF)}", text)
    assert marks == [
        "input load__valid;",
        "input layer_start;",
        "reg [1:0] fsm_state = 2'h0;",
        "reg [2:0] \\started.layer.units = 0;",
    ]
    assert text.count(toggles.ON) == len(marks)
    assert "if (layer_start) \\started.layer.units <= \\layer.units ;" in text


@pytest.mark.verilator
def test_only_runs_that_were_equal_count_and_bits_that_changed():
    network = networks()[-1]
    assignments = coverage.every_pair(network)[::9]
    images = random_images(network.image_shape, 1, seed=3)
    machine = coverage.covering_machine([network], "planes")
    design = toggles.marked(accelerator.design_of(machine))
    result = simulate.simulate(network, machine, assignments, images, quick=True, design=design)
    hit = coverage.hits(result, images)
    assert sorted({each.activation_bits for each in hit if each.kind == "maximum"}) == list(range(1, 9))
    assert sum(hit.values()) == len(assignments) * len(network.layers)

    stored = {name: dict(tensors) for name, tensors in result.stored.items()}
    stored["W3A3"]["conv1", "code"] = stored["W3A3"]["conv1", "code"] ^ 1
    changed = coverage.hits(dataclasses.replace(result, stored=stored), images)
    assert {each for each in hit if not changed[each]} == {each for each in hit if each.activation_bits == 3}

    changes = toggles.bits(result.toggles)
    assert len(changes) > 500
    assert changes["max_pool.fsm_state[0]"] and changes["load__valid"] and changes["sequencer.layer_start"]
    # Eight assignments of the same layers, each of which has one max pooling and takes logits to the result stream.
    assert result.toggles["max_pool.done 0->1"] == result.toggles["sequencer.result_done 0->1"] == len(assignments)
    assert result.toggles["sequencer.started.layer.is_max_pool 0->1"] == len(assignments)
    assert {"sequencer.started.layer.adds", "drain.skip_write_enable"} <= set(toggles.never(result.toggles))


@pytest.mark.verilator
@pytest.mark.thorough
def test_every_supported_bin_is_hit():
    found = coverage.Coverage(Counter(), Counter())
    for part in coverage.covered_in_all():
        found.bins.update(part.bins)
        found.toggles.update(part.toggles)
    told = coverage.report(found)
    assert told["never_exercised"] == []
    assert told["never_toggled"] == []
    assert told["toggled_though_excused"] == []
    assert told["idle_excuses"] == []
    assert coverage.is_complete(told)
