"""Run a design without streams on columns of inputs: one row a cycle, every output recorded every cycle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sim_tests import harness, wrapper
from sim_tests.design import Design, side_by_side

TEST_MODULE = "sim_tests.tb_player"
DRAIN_CYCLES = 32


def play(
    design: Design,
    columns: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    *,
    quick: bool = True,
    cache: Path = harness.CACHE,
) -> dict[str, np.ndarray]:
    """Return the outputs in every cycle from that of the first row on.

    Row i is on the inputs at rising clock edge i; entry i of an output is its value just before edge i, so a path
    without registers has its result in entry i, and one of latency L in entry i + L.

    Parameters
    ----------
    design : Design
    columns : mapping of str to ndarray
        A column for every input port; see ``wrapper.Player.encode``. The last row stays until the end.
    outputs : sequence of str
        Output ports to record.
    quick : bool
        As for ``harness.build``.
    cache : Path
        Folder of builds.

    Returns
    -------
    dict of str to ndarray, shape (rows + at least DRAIN_CYCLES, ...)
        See ``wrapper.Recorder.decode``.
    """
    player = wrapper.Player("stimulus", tuple(port for port in design.ports if port.direction == "input"))
    recorder = wrapper.Recorder("outputs", "play && stimulus__started", tuple(design.port(name) for name in outputs))
    text = wrapper.write(
        design.name,
        design.ports,
        players=(player,),
        recorders=(recorder,),
        has_reset=design.has_reset,
        has_clock=design.has_clock,
    )
    simulator = harness.build({"design.v": design.verilog, "testbench.v": text}, wrapper.TOP, cache=cache, quick=quick)
    job = harness.Message({"players": ["stimulus"], "drain_cycles": DRAIN_CYCLES})
    result = harness.run(simulator, TEST_MODULE, job, files={"stimulus.play": player.encode(columns)})
    recorded = recorder.decode(result.recorded["outputs"])
    rows = len(next(iter(columns.values())))
    if len(recorded["cycle"]) < rows + DRAIN_CYCLES:
        raise harness.SimulationError(f"{design.name}: only {len(recorded['cycle'])} cycles were recorded")
    return recorded


def play_side_by_side(
    designs: Sequence[Design], columns: Mapping[str, np.ndarray], outputs: Sequence[str], *, cache: Path = harness.CACHE
) -> list[dict[str, np.ndarray]]:
    """Return what ``play`` returns, for each of several designs with the same ports, from one build and one run."""
    names = [f"{output}_{index}" for index in range(len(designs)) for output in outputs]
    recorded = play(side_by_side(designs), columns, names, cache=cache)
    return [
        {"cycle": recorded["cycle"], **{output: recorded[f"{output}_{index}"] for output in outputs}}
        for index in range(len(designs))
    ]
