"""The accelerator behind the wrapper: built once per machine, with everything it stores recorded."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from hwsim.machine import Machine
from sim_tests import harness, toggles, wrapper
from sim_tests.design import Design, from_component
from sim_tests.wrapper import Recorder

INPUT_STREAMS = ("load", "run", "image")
STREAMS = (*INPUT_STREAMS, "result")


@functools.lru_cache(maxsize=4)
def design_of(machine: Machine, target: str = "portable") -> Design:
    """Return the Verilog of the accelerator for one of ``rtl.targets.TARGETS``, models of its cells, and its ports."""
    from rtl import verilog
    from rtl.accelerator import Accelerator
    from rtl.targets import CELL_MODELS, PORTABLE, TARGETS

    design = from_component(Accelerator(machine), verilog.NAME, target=TARGETS[target])
    if target == PORTABLE.name:
        return design
    return dataclasses.replace(design, verilog=design.verilog + CELL_MODELS.read_text())


FEEDER_WAITS = "dut.weight_feeder.fsm_state == 1 && !dut.weight_feeder.tile_ready"
"""In the cycles of its state "WAIT TILE" in which the next tile of weights is not staged, the feeder does nothing."""


def recorders(design: Design) -> dict[str, Recorder]:
    """Return what is recorded: commands and logits taken, words stored, layers done, cycles of waiting for weights."""

    def group(name: str, valid: str, *fields: str) -> Recorder:
        return Recorder(name, valid, tuple(design.port(field) for field in fields))

    groups = (
        group("command", "run__valid && run__ready", "run__payload"),
        group("result", "result__valid && result__ready", "result__payload"),
        group("code", "|trace_code_enable", "trace_code_enable", "trace_code_address", "trace_code_data"),
        group("skip", "trace_skip_enable", "trace_skip_address", "trace_skip_data"),
        group("layer", "trace_layer_done", "trace_layer_slot", "cycles", "stall_cycles", "weight_planes_read"),
        group("wait", FEEDER_WAITS),
    )
    return {recorder.name: recorder for recorder in groups}


def build(design: Design, cache: Path = harness.CACHE, *, quick: bool = False) -> harness.Build:
    """Return the simulator of an accelerator; ``quick`` as for ``harness.build``."""
    text = wrapper.write(design.name, design.ports, recorders=tuple(recorders(design).values()))
    counted = toggles.is_marked(design)
    sources = {"design.v": design.verilog, "testbench.v": toggles.OFF * counted + text}
    return harness.build(sources, wrapper.TOP, cache=cache, quick=quick, toggles=counted)
