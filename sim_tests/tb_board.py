"""Testbench of the board: the users' driver at the other end of the serial line.

The driver is blocking, so it and the scenarios below run in a thread that cocotb keeps in step with the simulator.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.task import bridge, resume
from cocotb.triggers import Event, SimTimeoutError, Timer, ValueChange, with_timeout
from cocotb.utils import get_sim_time

from rtl.board import link_protocol
from rtl.board.link_protocol import Operation
from rtl.board.serial_bus import LinkError, SerialBus
from rtl.bus import register_map
from rtl.driver import AcceleratorDriver, BusError
from rtl.loadable import LoadableProgram
from sim_tests import board, harness


class SimulatedLine:
    """``rtl.board.serial_bus.Transport`` at the pins.

    Parameters
    ----------
    dut : HierarchyObject
    cycles_per_bit : int
    error_rate : float
        Probability of a wrong byte, in both directions: a bit flipped, a stop bit low (only to the board), a byte lost
        or one too many.
    seed : int
    """

    def __init__(self, dut, cycles_per_bit: int, error_rate: float, seed: int) -> None:  # type: ignore[no-untyped-def]
        self.dut = dut
        self.baud = round(1e9 / (board.CLOCK_PERIOD_NS * cycles_per_bit))
        self.error_rate = error_rate
        self.errors = 0
        self._rng = random.Random(seed)
        self._received = bytearray()
        self._came = Event()
        self._task = cocotb.start_soon(self._receive())

    def now_s(self) -> float:
        """See ``Transport``, as ``write``, ``read`` and ``discard``."""
        return get_sim_time("ns") * 1e-9

    @resume
    async def write(self, data: bytes) -> None:
        for byte in data:
            for part, stop in self._disturbed(byte):
                await self._send(part, stop)

    @resume
    async def write_raw(self, items: list[tuple[int, int]]) -> None:
        """Send (byte, stop bit) as they are."""
        for byte, stop in items:
            await self._send(byte, stop)

    @resume
    async def read(self, timeout_s: float) -> bytes:
        if not self._received:
            self._came.clear()
            try:
                await with_timeout(self._came.wait(), max(1, round(timeout_s * 1e9)), "ns")
            except SimTimeoutError:
                return b""
        data = bytes(self._received)
        self._received.clear()
        return data

    @resume
    async def discard(self) -> None:
        self._received.clear()

    @resume
    async def sleep(self, cycles: int) -> None:
        """Let cycles pass."""
        await Timer(cycles * board.CLOCK_PERIOD_NS, "ns")

    @resume
    async def press(self, cycles: int) -> None:
        """Hold the button for some cycles."""
        self.dut.button.value = 1
        await Timer(cycles * board.CLOCK_PERIOD_NS, "ns")
        self.dut.button.value = 0
        await Timer(8 * board.CLOCK_PERIOD_NS, "ns")

    @resume
    async def lights(self) -> list[int]:
        """Return whether a request was answered, and whether a broken frame came."""
        return [int(self.dut.light_answered.value), int(self.dut.light_broken.value)]

    def _disturbed(self, byte: int, *, can_break_stop: bool = True) -> list[tuple[int, int]]:
        if self._rng.random() >= self.error_rate:
            return [(byte, 1)]
        self.errors += 1
        kind = self._rng.choice(("flip", "lose", "add", "stop") if can_break_stop else ("flip", "lose", "add"))
        if kind == "flip":
            return [(byte ^ 1 << self._rng.randrange(8), 1)]
        if kind == "stop":
            return [(byte, 0)]
        return [] if kind == "lose" else [(byte, 1), (self._rng.randrange(256), 1)]

    async def _send(self, byte: int, stop: int) -> None:
        self.dut.send_data.value = byte
        self.dut.send_stop.value = stop
        self.dut.send.value = not int(self.dut.send.value)
        await ValueChange(self.dut.sent)

    async def _receive(self) -> None:
        while True:
            await ValueChange(self.dut.received_count)
            for part, _ in self._disturbed(int(self.dut.received_data.value), can_break_stop=False):
                self._received.append(part)
            self._came.set()


class Scenarios:
    """What the job can ask for. Each returns plain values and arrays for the caller to judge."""

    def __init__(self, line: SimulatedLine, job: harness.Message) -> None:
        self.line = line
        self.values, self.arrays = job.values, job.arrays
        self.program = LoadableProgram.load(Path(os.environ[harness.JOB_VARIABLE]) / "program.npz")

    def bus(self) -> SerialBus:
        """Return a new host's end of the link."""
        return SerialBus(self.line, self.values["timeout_s"], self.values["part_bytes"])

    def images_at_assignments(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Load, run every image at every assignment, change it after each; then many images sent ahead."""
        bus = self.bus()
        driver = AcceleratorDriver(bus)
        driver.load(self.program)
        driver.enable_interrupts(image_done=True)
        logits, counters, came = [], [], []
        for image in self.arrays["images"]:
            for name in self.program.slots:
                driver.select(name)
                driver.start(image)
                came.append(driver.wait())
                counters.append(vars(driver.counters()))
                logits.append(driver.result())
        ahead = driver.run(self.arrays["images"])
        assert bus.answer is not None
        values = {
            "counters": counters,
            "came": came,
            "repeated": bus.repeated,
            "broken": bus.answer.broken_frames,
            "errors": self.line.errors,
            "lights": self.line.lights(),
        }
        return values, {"logits": np.array(logits), "ahead": ahead}

    def broken_frames(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What is broken is dropped, counted, and does nothing; the next request is answered."""
        bus = self.bus()
        enable = register_map.register("interrupt_enable").address
        bus.write(enable, 1)

        def write(value: int, sequence: int = 77) -> bytes:
            body = bytes([sequence, Operation.WRITE, enable & 255, enable >> 8, value, 0, 0, 0])
            return link_protocol.frame(body)

        def sent(data: bytes, wrong_stop: int | None = None) -> list[tuple[int, int]]:
            return [(byte, int(at != wrong_stop)) for at, byte in enumerate(data)]

        good = write(3)
        cases = {
            "framing error in the sequence": sent(good, 1),
            "framing error in the value": sent(good, 5),
            "framing error in the CRC": sent(good, len(good) - 2),
            "truncated": sent(good[:7]),
            "truncated, then ended": sent(good[:7] + good[-1:]),
            "a bit flipped": sent(good[:5] + bytes([good[5] ^ 16]) + good[6:]),
            "a wrong escape": sent(good[:5] + bytes([link_protocol.ESC, 0]) + good[6:]),
            "ends in an escape": sent(good[:-1] + bytes([link_protocol.ESC, link_protocol.END])),
            "no operation": sent(link_protocol.frame(bytes([77]))),
            "too long": sent(link_protocol.frame(bytes(link_protocol.BODY_BYTES_MAX))),
            "noise": sent(b"\x00\xff\x55"),
        }
        seen = {}
        for name, items in cases.items():
            before = bus.request(Operation.STATUS).broken_frames
            self.line.write_raw(items)
            value = bus.read(enable)
            assert bus.answer is not None
            seen[name] = [value, bus.answer.broken_frames - before, bus.repeated]
        lights = self.line.lights()
        self.line.write_raw(sent(good))
        return {"seen": seen, "lights": lights, "after": bus.read(enable)}, {}

    def requests(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """A request that comes twice is executed once; what does not exist is refused; nothing waits for ever."""
        bus = self.bus()
        driver = AcceleratorDriver(bus)
        identification, enable = (
            register_map.register(name).address for name in ("identification", "interrupt_enable")
        )
        values: dict[str, Any] = {
            "slverr": [self._answers(bus.read, 0xFFC), self._answers(bus.write, identification, 0)]
        }
        refused = [(9, b""), (Operation.READ, b"\0"), (Operation.WRITE, bytes(5)), (Operation.LOAD, bytes(6))]
        refused += [(Operation.STATUS, b"\0"), (Operation.RESULT, b"\0")]
        values["refused"] = [self._answers(bus.request, *arguments) for arguments in refused]
        values["no program"] = bus.request(Operation.IMAGE, bytes(8)).count
        values["no result"] = len(bus.request(Operation.RESULT).data)
        driver.load(self.program)
        driver.select(next(iter(self.program.slots)))
        image = self.arrays["images"][0]
        pixels = image.transpose(1, 2, 0).tobytes()
        # An image in many requests, each of them sent twice; then its run, also twice.
        for at in range(0, len(pixels), 16):
            operation = Operation.IMAGE_END if at + 16 >= len(pixels) else Operation.IMAGE
            self._twice(bus, operation, pixels[at : at + 16])
        run = register_map.register("run")
        self._twice(bus, Operation.WRITE, bytes([run.address, 0, *run.pack(slot=0).to_bytes(4, "little")]))
        words = []
        while True:
            answer = self._twice(bus, Operation.RESULT, b"")
            words += np.frombuffer(answer.data, dtype="<i4").tolist()
            if answer.status >> link_protocol.Status.RESULT_END & 1:
                break
        values["counters"] = vars(driver.counters())
        values["status"] = driver.read("status")
        values["interrupts"] = driver.read("interrupt_status")
        bus.write(enable, 3)
        self.line.press(20)
        values["after button"] = [bus.read(enable), *self.line.lights()]
        return values, {"logits": np.array(words)}

    def _twice(self, bus: SerialBus, operation: Operation, arguments: bytes):  # type: ignore[no-untyped-def]
        answer = bus.request(operation, arguments)
        frame = link_protocol.frame(bytes([bus._sequence, operation]) + arguments)
        self.line.write(frame)
        again = bus._answer(len(frame), operation)
        assert again is not None and (again.status, again.count, again.data) == (
            answer.status,
            answer.count,
            answer.data,
        ), "the second answer must be the first"
        return answer

    @staticmethod
    def _answers(access, *arguments: Any) -> str:  # type: ignore[no-untyped-def]
        try:
            access(*arguments)
        except LinkError:
            return "refused"
        except BusError:
            return "SLVERR"
        return "done"


@cocotb.test(timeout_time=500, timeout_unit="ms")
async def scenario(dut) -> None:  # type: ignore[no-untyped-def]
    """Run the job's scenario and hand back what it saw."""
    job = harness.job()
    dut.stretch_ppm.value = job.values["stretch_ppm"]
    if "mutation" in job.values:
        dut.mutation.value = job.values["mutation"]
    await Timer(10 * board.CLOCK_PERIOD_NS, "ns")
    line = SimulatedLine(dut, job.values["cycles_per_bit"], job.values["error_rate"], job.values["seed"])
    values, arrays = await bridge(getattr(Scenarios(line, job), job.values["scenario"]))()
    assert int(dut.received_errors.value) == 0, "the board sent bytes without a stop bit"
    harness.finish(values, arrays)
