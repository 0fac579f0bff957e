"""Testbench of the AXI form: cocotbext-axi's masters, sources and sinks under the driver that users have.

The driver is blocking, so it and the scenarios below run in a thread that cocotb keeps in step with the simulator.
The job names one scenario; ``program.npz`` in the run's folder is the program. A scenario returns what it saw.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, ReadOnly, RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp, AxiStreamBus, AxiStreamFrame, AxiStreamSink
from cocotbext.axi import AxiStreamSource as Source

from rtl.bus import register_map
from rtl.driver import AcceleratorDriver, BusError
from rtl.loadable import LoadableProgram
from sim_tests import axi, harness

TIME_STEPS_PER_CYCLE = axi.CLOCK_PERIOD_NS * 1000


class SimulatedBus:
    """``rtl.driver.Bus`` in the simulator, with what a scenario needs beyond it.

    Parameters
    ----------
    dut : HierarchyObject
    pause : float
        Probability of a paused cycle on every channel, 0 .. 1 (exclusive); 0 never pauses.
    seed : int
    """

    def __init__(self, dut, pause: float, seed: int) -> None:  # type: ignore[no-untyped-def]
        self.dut = dut
        clocking = {"clock": dut.aclk, "reset": dut.aresetn, "reset_active_level": False}
        self.master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), **clocking)
        self.load = Source(AxiStreamBus.from_prefix(dut, "s_axis_load"), **clocking)
        self.image = Source(AxiStreamBus.from_prefix(dut, "s_axis_image"), **clocking)
        self.result = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis_result"), **clocking)
        self.result_cycles: list[int] = []
        write, read = self.master.write_if, self.master.read_if
        channels = (write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel)
        if pause:
            for index, channel in enumerate((*channels, self.load, self.image, self.result)):
                channel.set_pause_generator(pauses(pause, f"{seed} {index}"))

    @resume
    async def read(self, address: int) -> int:
        """See ``rtl.driver.Bus``; all but the last four methods below are those of the protocol."""
        answer = await self.master.read(address, register_map.REGISTER_BYTES)
        if answer.resp != AxiResp.OKAY:
            raise BusError(f"reading address 0x{address:x}: {answer.resp.name}")
        return int.from_bytes(answer.data, "little")

    @resume
    async def write(self, address: int, value: int) -> None:
        await self.master_write(address, value.to_bytes(register_map.REGISTER_BYTES, "little"))

    @resume
    async def send_program(self, words: np.ndarray) -> None:
        await self.load.send(words.astype("<u4").tobytes())
        await self.load.wait()

    def send_image(self, pixels: bytes) -> None:
        self.image.send_nowait(pixels)

    @resume
    async def receive_result(self) -> np.ndarray:
        frame = await self.result.recv()
        self.result_cycles.append(frame.sim_time_end // TIME_STEPS_PER_CYCLE)
        return np.frombuffer(bytes(frame.tdata), dtype="<i4")

    @resume
    async def wait_interrupt(self) -> None:
        if not self.dut.interrupt.value:
            await RisingEdge(self.dut.interrupt)

    @resume
    async def abort(self) -> None:
        for stream in (self.image, self.result):
            stream.assert_reset()
            stream.clear()
        await ClockCycles(self.dut.aclk, 2)

    async def master_write(self, address: int, data: bytes) -> None:
        """Write some bytes of a word."""
        answer = await self.master.write(address, data)
        if answer.resp != AxiResp.OKAY:
            raise BusError(f"writing address 0x{address:x}: {answer.resp.name}")

    @resume
    async def write_bytes(self, address: int, data: bytes) -> None:
        """Write fewer bytes than a word."""
        await self.master_write(address, data)

    @resume
    async def sleep(self, cycles: int) -> None:
        """Let cycles pass."""
        await ClockCycles(self.dut.aclk, cycles)

    @resume
    async def check(self, checked: bool) -> None:
        """Check the rule of channels or, as a result is cut off by a reset, look away."""
        self.dut.checking.value = checked

    @resume
    async def pause_results(self, paused: bool) -> None:
        """Take no results, or take them again."""
        self.result.pause = paused


def pauses(probability: float, seed: str) -> Iterator[bool]:
    """Yield whether to pause, cycle by cycle: single cycles and, now and then, a longer stretch."""
    rng = random.Random(seed)
    while True:
        paused = rng.random() < probability
        for _ in range(rng.choice((1, 1, 1, 1, 1, 12)) if paused else 1):
            yield paused


class Scenarios:
    """What the job can ask for. Each returns plain values and arrays for the caller to judge."""

    def __init__(self, bus: SimulatedBus, job: harness.Message) -> None:
        self.bus = bus
        self.values, self.arrays = job.values, job.arrays
        self.program = LoadableProgram.load(Path(os.environ[harness.JOB_VARIABLE]) / "program.npz")

    def one_by_one(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Every image at every assignment, waiting for the interrupt each time."""
        driver = AcceleratorDriver(self.bus)
        driver.load(self.program)
        driver.enable_interrupts(image_done=True)
        logits, counters, came, status = [], [], [], []
        for image in self.arrays["images"]:
            for name in self.program.slots:
                driver.select(name)
                driver.start(image)
                came.append(driver.wait())
                counters.append(vars(driver.counters()))
                logits.append(driver.result())
                status.append(driver.read("status"))
        return {"counters": counters, "came": came, "status": status}, {"logits": np.array(logits)}

    def back_to_back(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Many images at each assignment, sent ahead."""
        driver = AcceleratorDriver(self.bus)
        driver.load(self.program)
        logits, counters = [], []
        for name in self.program.slots:
            driver.select(name)
            logits.append(driver.run(self.arrays["images"]))
            counters.append(vars(driver.counters()))
        values = {"counters": counters, "result_cycles": self.bus.result_cycles, "status": driver.read("status")}
        return values, {"logits": np.array(logits)}

    def bad_accesses(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Every address and every register: who answers SLVERR, and that nothing happens then."""
        driver = AcceleratorDriver(self.bus)
        bus = self.bus
        bus.pause_results(True)
        addresses = [*range(0, 0x100, 4), 0x100, 0x800, 0xFFC]
        readable = {address: self._answers(bus.read, address) for address in addresses}
        before = driver.read("status") | vars(driver.counters())
        writable = {address: self._answers(bus.write, address, 0) for address in addresses}
        run, enable = (register_map.register(name).address for name in ("run", "interrupt_enable"))
        refused = {
            "slot": self._answers(bus.write, run, self.values["layer_slots"]),
            "half a command": self._answers(bus.write_bytes, run, b"\0\0"),
            "unaligned": self._answers(bus.write_bytes, enable + 1, b"\xff"),
        }
        enabled = [driver.read("interrupt_enable")]
        for data in (b"\x03", b"\x00"):
            bus.write_bytes(enable, data)
            enabled.append(driver.read("interrupt_enable"))
        driver.write("reset", machine=1)
        refused["in reset"] = self._answers(bus.write, run, 0)
        driver.reset()
        filled = [self._answers(bus.write, run, 0) for _ in range(register_map.COMMAND_QUEUE_DEPTH + 3)]
        full = driver.read("status")
        driver.reset()
        after = driver.read("status") | vars(driver.counters())
        values = {
            "readable": [address for address, answer in readable.items() if answer],
            "writable": [address for address, answer in writable.items() if answer],
            "refused": refused,
            "enabled": enabled,
            "filled": filled,
            "full": full,
            "before": before,
            "after": after,
        }
        return values, {}

    def odd_frames(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Several images in a frame, bytes that are not there, and an image that ends too early."""
        driver = AcceleratorDriver(self.bus)
        driver.load(self.program)
        driver.enable_interrupts(image_size_error=True)
        slot = next(iter(self.program.slots.values()))
        pixels = self.arrays["images"].transpose(0, 2, 3, 1).reshape(len(self.arrays["images"]), -1)
        rng = random.Random(self.values["seed"])
        together, keep = bytearray(), []
        for pixel in pixels[:3].tobytes():
            while rng.random() < 0.4:
                together.append(rng.randrange(256))
                keep.append(0)
            together.append(pixel)
            keep.append(1)
        self.bus.image.send_nowait(AxiStreamFrame(together, tkeep=keep))
        logits = []
        for _ in range(3):
            driver.write("run", slot=slot)
            logits.append(self.bus.receive_result())
        quiet = driver.read("interrupt_status")
        self.bus.image.send_nowait(pixels[0].tobytes()[: self.values["short_bytes"]])
        self.bus.image.send_nowait(pixels[1].tobytes())
        came = driver.wait()
        for _ in range(2):
            driver.write("run", slot=slot)
            logits.append(self.bus.receive_result())
        return {"quiet": quiet, "came": came, "end": driver.read("interrupt_status")}, {"logits": np.array(logits)}

    def reset_at_work(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Resets by register and, afterwards, by ARESETN, each in the middle of an image with others waiting."""
        driver = AcceleratorDriver(self.bus)
        driver.load(self.program)
        driver.select(next(iter(self.program.slots)))
        logits, busy, done = [], [], []
        for cycles in self.values["reset_cycles"]:
            for image in self.arrays["images"][:2]:
                driver.start(image)
            self.bus.sleep(cycles)
            busy.append(driver.read("status"))
            self.bus.check(False)
            driver.reset()
            self.bus.check(True)
            logits.append(driver.run(self.arrays["images"][2:4]))
            done.append(driver.counters().images_done)
        driver.start(self.arrays["images"][0])
        self.bus.sleep(cycles)
        hard_reset(self.bus)
        cleared = driver.read("status") | vars(driver.counters())
        driver = AcceleratorDriver(self.bus)
        driver.load(self.program)
        driver.select(next(iter(self.program.slots)))
        logits.append(driver.run(self.arrays["images"][2:4]))
        return {"busy": busy, "cleared": cleared, "done": done}, {"logits": np.array(logits)}

    def results_wait(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Nobody takes results, until two are held and a third image stalls."""
        driver = AcceleratorDriver(self.bus)
        driver.load(self.program)
        driver.select(next(iter(self.program.slots)))
        self.bus.pause_results(True)
        for image in self.arrays["images"][:3]:
            driver.start(image)
        while driver.counters().images_done < 2:
            self.bus.sleep(100)
        stalled = [driver.counters().stall_cycles]
        self.bus.sleep(self.values["stall_cycles"])
        stalled.append(driver.counters().stall_cycles)
        full = driver.read("status")
        self.bus.pause_results(False)
        logits = np.array([driver.result() for _ in range(3)])
        return {"full": full, "stalled": stalled}, {"logits": logits}

    def loading_waits(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """A program sent while images are computed is taken after the last of them."""
        driver = AcceleratorDriver(self.bus)
        driver.load(self.program)
        driver.select(next(iter(self.program.slots)))
        for image in self.arrays["images"][:3]:
            driver.start(image)
        self.bus.send_program(self.program.words)
        done = driver.counters().images_done
        return {"done": done}, {"logits": np.array([driver.result() for _ in range(3)])}

    @staticmethod
    def _answers(access, *arguments: Any) -> bool:  # type: ignore[no-untyped-def]
        try:
            access(*arguments)
        except BusError:
            return False
        return True


@resume
async def hard_reset(bus: SimulatedBus) -> None:
    """Reset by ARESETN."""
    await reset(bus.dut)
    bus.image.clear()
    bus.result.clear()


async def reset(dut) -> None:  # type: ignore[no-untyped-def]
    """Hold ARESETN low for some cycles; the checks of the stream rules look away."""
    dut.checking.value = 0
    dut.aresetn.value = 0
    await ClockCycles(dut.aclk, 4)
    dut.aresetn.value = 1
    await ClockCycles(dut.aclk, 2)
    dut.checking.value = 1


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def scenario(dut) -> None:  # type: ignore[no-untyped-def]
    """Run the job's scenario and hand back what it saw."""
    job = harness.job()
    Clock(dut.aclk, axi.CLOCK_PERIOD_NS, unit="ns").start()
    if "mutation" in job.values:
        dut.mutation.value = job.values["mutation"]
    dut.aresetn.value = 0
    bus = SimulatedBus(dut, job.values["pause"], job.values["seed"])
    await reset(dut)
    values, arrays = await bridge(getattr(Scenarios(bus, job), job.values["scenario"]))()
    await ReadOnly()
    for channel in axi.CHANNELS:
        violations = getattr(dut, f"{channel}__violations").value.to_unsigned()
        assert violations == 0, f"{channel} broke the rule of its channel in {violations} cycles"
    harness.finish(values, arrays)
