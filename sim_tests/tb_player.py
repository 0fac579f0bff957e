"""Testbench without streams: play the stimulus files into the design, while the wrapper records."""

from __future__ import annotations

from pathlib import Path

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge

from sim_tests import harness, streams


@cocotb.test()
async def play(dut) -> None:  # type: ignore[no-untyped-def]
    """Reset, play everything, let the pipeline drain, and hand the number of cycles back."""
    job = harness.job()
    assert all(Path(name + ".play").stat().st_size for name in job.values["players"]), "there is nothing to play"
    await streams.reset(dut)
    dut.play.value = 1
    await RisingEdge(dut.played)
    await ClockCycles(dut.clk, job.values["drain_cycles"])
    await FallingEdge(dut.clk)
    harness.finish({"cycles": dut.cycle.value.to_unsigned()})
