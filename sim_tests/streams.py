"""cocotb drivers of valid/ready streams behind the wrapper, with seeded random idle and back-pressure.

They act at the falling edge and sleep while nothing moves, so a machine that computes for a thousand cycles costs no
Python. The rule of streams itself is checked by the wrapper in every cycle (``check_streams``).
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from cocotb.handle import HierarchyObject
from cocotb.triggers import FallingEdge, ValueChange


class StreamSource:
    """Sends words into the input stream ``name`` of the design.

    Parameters
    ----------
    dut : HierarchyObject
        The wrapper.
    name : str
    idle : float
        Probability of a cycle without a word before each word, 0 .. 1 (exclusive).
    seed : int
    """

    def __init__(self, dut: HierarchyObject, name: str, *, idle: float = 0.0, seed: int = 0) -> None:
        _check_probability(idle, "idle")
        self._clock = dut.clk
        self._valid = getattr(dut, f"{name}__valid")
        self._payload = getattr(dut, f"{name}__payload")
        self._transfers = getattr(dut, f"{name}__transfers")
        self._idle = idle
        self._random = random.Random(f"{name} {seed}")

    async def send(self, words: Iterable[int]) -> int:
        """Send words in order; return how many once the last one was taken."""
        sent = 0
        for word in words:
            await self._wait_idle()
            before = self._transfers.value.to_unsigned()
            self._payload.value = int(word)
            self._valid.value = 1
            await FallingEdge(self._clock)
            if self._transfers.value.to_unsigned() == before:
                await ValueChange(self._transfers)
                await FallingEdge(self._clock)
            sent += 1
        self._valid.value = 0
        return sent

    async def _wait_idle(self) -> None:
        while self._idle and self._random.random() < self._idle:
            self._valid.value = 0
            await FallingEdge(self._clock)


class StreamSink:
    """Takes words from the output stream ``name`` of the design.

    Parameters
    ----------
    dut : HierarchyObject
        The wrapper.
    name : str
    stall : float
        Probability of a cycle that is not ready before each word, 0 .. 1 (exclusive).
    seed : int
    """

    def __init__(self, dut: HierarchyObject, name: str, *, stall: float = 0.0, seed: int = 0) -> None:
        _check_probability(stall, "stall")
        self._clock = dut.clk
        self._ready = getattr(dut, f"{name}__ready")
        self._taken = getattr(dut, f"{name}__taken")
        self._transfers = getattr(dut, f"{name}__transfers")
        self._stall = stall
        self._random = random.Random(f"{name} {seed}")

    async def receive(self, count: int) -> list[int]:
        """Return the next ``count`` words."""
        words: list[int] = []
        while len(words) < count:
            while self._stall and self._random.random() < self._stall:
                await FallingEdge(self._clock)
            before = self._transfers.value.to_unsigned()
            self._ready.value = 1
            await FallingEdge(self._clock)
            if self._transfers.value.to_unsigned() == before:
                await ValueChange(self._transfers)
                await FallingEdge(self._clock)
            words.append(self._taken.value.to_unsigned())
            self._ready.value = 0
        return words


async def reset(dut: HierarchyObject, cycles: int = 2) -> None:
    """Hold the design in reset for some cycles, all inputs of streams low, and return at a falling edge."""
    await FallingEdge(dut.clk)
    dut.rst.value = 1
    for _ in range(cycles):
        await FallingEdge(dut.clk)
    dut.rst.value = 0


def check_streams(dut: HierarchyObject, names: Iterable[str]) -> dict[str, int]:
    """Return how many words each stream moved.

    Raises
    ------
    AssertionError
        If valid fell or a payload changed before the word was taken.
    """
    moved = {}
    for name in names:
        violations = getattr(dut, f"{name}__violations").value.to_unsigned()
        assert violations == 0, f"stream {name} broke its rule in {violations} cycles"
        moved[name] = getattr(dut, f"{name}__transfers").value.to_unsigned()
    return moved


def _check_probability(value: float, what: str) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{what} must be a probability of 0 up to, not including, 1, not {value!r}")
