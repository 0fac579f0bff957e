"""Testbench of the harness's own test: words through a one-register stage that adds 1."""

from __future__ import annotations

import cocotb
import numpy as np

from sim_tests import harness, streams
from sim_tests.scoreboard import Scoreboard


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def relay(dut) -> None:  # type: ignore[no-untyped-def]
    """Send and receive at once, with the job's idle and stall probabilities."""
    values = harness.job().values
    words = np.random.default_rng(values["seed"]).integers(0, 256, values["words"])
    source = streams.StreamSource(dut, "i", idle=values["idle"], seed=values["seed"])
    sink = streams.StreamSink(dut, "o", stall=values["stall"], seed=values["seed"])
    await streams.reset(dut)
    start = dut.cycle.value.to_unsigned()
    sending = cocotb.start_soon(source.send(words))
    received = np.array(await sink.receive(len(words)))
    await sending
    board = Scoreboard("relay")
    board.compare(received, (words + 1) % 256, "words", ("word",))
    board.finish()
    moved = streams.check_streams(dut, ("i", "o"))
    harness.finish({"moved": moved, "cycles": dut.cycle.value.to_unsigned() - start}, {"received": received})
