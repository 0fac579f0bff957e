"""A deep memory made of shallower ones: segments of consecutive words, chosen by the upper bits of an address."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import or_

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.delay import delay

GATHERED_SEGMENTS = 2
"""Segments between whose outputs and a register there are gates, where a stack has such registers."""


@dataclass(frozen=True)
class Segment:
    """Some of a memory's words.

    Parameters
    ----------
    start : int
        First word; a multiple of ``words``.
    words : int
        Words, a power of two, at least 2; the last ones may lie beyond the memory's.
    """

    start: int
    words: int

    @property
    def address_bits(self) -> int:
        """Address bits within the segment."""
        return self.words.bit_length() - 1

    def holds(self, address: Value) -> Value:
        """Return whether a word of the memory lies in the segment."""
        return address[self.address_bits :] == self.start >> self.address_bits


def segments_of(sizes: Iterable[int]) -> tuple[Segment, ...]:
    """Return segments of these many words, one after another, the largest first, so that each begins at a multiple."""
    segments: list[Segment] = []
    start = 0
    for words in sorted(sizes, reverse=True):
        segments.append(Segment(start, words))
        start += words
    return tuple(segments)


class MemoryStack(wiring.Component):
    """The two-cycle memory, as a stack of two-cycle memories.

    A write reaches the segment that holds the word, a read all of them, so that nothing but wires is ahead of a large
    memory's blocks; which segment is meant travels with the read for both cycles and lets that segment's word through.

    Parameters
    ----------
    width, depth, granularity : int
        See ``rtl.leaves.memory.TwoCycleMemory``.
    segments : sequence of Segment
        Cover the words.
    make : callable
        Returns the memory of a segment: the members of ``TwoCycleMemory``, and its latency.
    gathers : bool
        Put a register behind every ``GATHERED_SEGMENTS`` segments, for a cycle more of latency, and registers ahead of
        what is written, for a cycle more until it is.

    Members
    -------
    write_address, write_data, write_enable, read_address, read_enable, read_data
        See ``rtl.leaves.memory.TwoCycleMemory``.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        granularity: int,
        segments: Iterable[Segment],
        make: Callable[[Segment], wiring.Component],
        gathers: bool = False,
    ) -> None:
        self.gathers = gathers
        self.segments = tuple(segments)
        self.make = make
        super().__init__(members(width, depth, granularity))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # One bit for each segment: decoded ahead of the data, so that only gates are behind them.
        chosen, shown = Signal(len(self.segments), reset_less=True), Signal(len(self.segments), reset_less=True)
        with m.If(self.read_enable):
            m.d.sync += chosen.eq(Cat(segment.holds(self.read_address) for segment in self.segments))
        m.d.sync += shown.eq(chosen)

        def due(value: Value, name: str) -> Value:
            return delay(m, value, int(self.gathers), name, reset_less=True)

        write_address, write_data = due(self.write_address, "write_address"), due(self.write_data, "write_data")
        words = []
        for index, segment in enumerate(self.segments):
            part = self.make(segment)
            m.submodules[f"segment_{index}"] = part
            written = segment.holds(self.write_address).replicate(len(self.write_enable))
            m.d.comb += [
                part.write_address.eq(write_address),
                part.write_data.eq(write_data),
                part.write_enable.eq(due(self.write_enable & written, f"write_{index}")),
                part.read_address.eq(self.read_address),
                part.read_enable.eq(self.read_enable),
            ]
            words.append(part.read_data & shown[index].replicate(len(self.read_data)))
        if self.gathers:
            gathered = [
                Signal(len(self.read_data), name=f"gathered_{first}", reset_less=True)
                for first in range(0, len(words), GATHERED_SEGMENTS)
            ]
            m.d.sync += [
                register.eq(functools.reduce(or_, words[index * GATHERED_SEGMENTS : (index + 1) * GATHERED_SEGMENTS]))
                for index, register in enumerate(gathered)
            ]
            words = list(gathered)
        m.d.comb += self.read_data.eq(functools.reduce(or_, words))
        return m


def members(width: int, depth: int, granularity: int) -> dict[str, wiring.Member]:
    """Return the members of a memory of one write port and one read port."""
    return {
        "write_address": In(range(depth)),
        "write_data": In(width),
        "write_enable": In(width // granularity),
        "read_address": In(range(depth)),
        "read_enable": In(1),
        "read_data": Out(width),
    }
