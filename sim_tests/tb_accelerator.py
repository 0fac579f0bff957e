"""Testbench of the accelerator: load the program, send commands and images, take the logits.

The job's arrays are ``load_words`` (uint32), ``slots`` (one for each run) and ``pixels`` (runs, bytes); its values are
``classes``, ``idle``, ``stall``, ``seed``, ``max_cycles``, ``interrupt_cycles`` and ``inputs``. If ``interrupt_cycles``
is not None, the first run is begun, left alone for so many cycles, and the machine is reset before all runs are done
from the start, with the program it already has. ``inputs`` are values of further input ports, held from the beginning.
"""

from __future__ import annotations

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, SimTimeoutError, Timer, with_timeout

from sim_tests import harness, streams
from sim_tests.accelerator import STREAMS
from sim_tests.wrapper import CLOCK_PERIOD_NS

SETTLE_CYCLES = 64


class Testbench:
    """Drivers of the accelerator's streams."""

    def __init__(self, dut, job: harness.Message) -> None:  # type: ignore[no-untyped-def]
        self.dut = dut
        self.job = job
        values = job.values
        self.sources = {
            name: streams.StreamSource(dut, name, idle=values["idle"], seed=values["seed"])
            for name in ("load", "run", "image")
        }
        self.sink = streams.StreamSink(dut, "result", stall=values["stall"], seed=values["seed"])

    async def load(self) -> None:
        """Load the program."""
        await self.sources["load"].send(self.job.arrays["load_words"])

    async def run_all(self, runs: int) -> list[int]:
        """Run so many images; return the words of the result stream."""
        job = self.job
        cocotb.start_soon(self.sources["run"].send(job.arrays["slots"][:runs]))
        cocotb.start_soon(self.sources["image"].send(job.arrays["pixels"][:runs].ravel()))
        return await self.sink.receive(runs * job.values["classes"])

    async def interrupt(self, cycles: int) -> None:
        """Begin the first run, and wait ``cycles`` cycles after its command was taken; its image may be half sent."""
        image = cocotb.start_soon(self.sources["image"].send(self.job.arrays["pixels"][0]))
        await self.sources["run"].send(self.job.arrays["slots"][:1])
        await Timer(cycles * CLOCK_PERIOD_NS, unit="ns")
        await FallingEdge(self.dut.clk)
        image.cancel()
        self.dut.image__valid.value = 0
        assert self.dut.busy.value == 1, "the machine was to be interrupted at work, but was idle"


@cocotb.test()
async def run_images(dut) -> None:  # type: ignore[no-untyped-def]
    """Run all images and hand the logits back; what was stored is in the recordings."""
    job = harness.job()
    runs = len(job.arrays["slots"])
    assert runs, "there is nothing to run"
    testbench = Testbench(dut, job)
    for name, value in job.values["inputs"].items():
        getattr(dut, name).value = value
    await streams.reset(dut)
    await testbench.load()
    before = streams.check_streams(dut, STREAMS)
    assert before == {**dict.fromkeys(STREAMS, 0), "load": len(job.arrays["load_words"])}, f"streams moved {before}"
    if job.values["interrupt_cycles"] is not None:
        await testbench.interrupt(job.values["interrupt_cycles"])
        await streams.reset(dut)
        before = streams.check_streams(dut, STREAMS)
    start = dut.cycle.value.to_unsigned()
    try:
        words = await with_timeout(testbench.run_all(runs), job.values["max_cycles"] * CLOCK_PERIOD_NS, "ns")
    except SimTimeoutError:
        taken = {name: getattr(dut, f"{name}__transfers").value.to_unsigned() - before[name] for name in STREAMS}
        raise AssertionError(
            f"not finished after {job.values['max_cycles']} cycles: busy {dut.busy.value}, layer slot "
            f"{dut.trace_layer_slot.value.to_unsigned()}, words taken {taken}"
        ) from None
    await Timer(SETTLE_CYCLES * CLOCK_PERIOD_NS, unit="ns")
    assert dut.busy.value == 0, "the machine is still busy after its last result"
    assert dut.result__valid.value == 0, "the machine has more results than classes"
    moved = {name: count - before[name] for name, count in streams.check_streams(dut, STREAMS).items()}
    expected = {
        "load": 0,
        "run": runs,
        "image": job.arrays["pixels"].size,
        "result": runs * job.values["classes"],
    }
    assert moved == expected, f"streams moved {moved} words, not {expected}"
    harness.finish(
        {"start_cycle": start, "end_cycle": dut.cycle.value.to_unsigned()}, {"results": np.array(words, dtype=np.int64)}
    )
