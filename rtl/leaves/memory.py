"""The memory of every store in the machine: one write port, one read port, two or three cycles from address to data."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth.hdl import Module, Signal, Value, unsigned
from amaranth.lib import memory, wiring

from rtl.checks import check_count
from rtl.delay import delay
from rtl.leaves import block_ram_ecp5
from rtl.leaves.memory_stack import members
from rtl.targets import target_of

MAX_DEPTH = 1 << 20
MAX_WIDTH_BITS = 1 << 14


class TwoCycleMemory(wiring.Component):
    """Memory with a synchronous read followed by an output register, so that block RAM does not set the clock.

    Latency: ``LATENCY`` = 2 cycles from ``read_address`` to ``read_data``. Throughput: one read and one write a cycle.

    A read sees every write of an earlier cycle. A read of the word that is written in the same cycle returns the old
    word in portable logic, and is undefined in ECP5's block RAM: callers never do that. ``read_data`` keeps the word
    last read until the next read arrives; it is 0 before the first. A reset does not change the contents.

    Parameters
    ----------
    width : int
        Bits of a word.
    depth : int
        Words, at least 2. Reading past the last word returns an undefined word in hardware; callers never do.
    granularity : int, optional
        Bits that share a write enable; divides ``width``. The whole word if not given.
    init : iterable of int, optional
        First words at power-up, the others are 0.

    Members
    -------
    write_address : In(range(depth))
    write_data : In(width)
    write_enable : In(width / granularity)
        Bit i writes bits ``i * granularity .. (i + 1) * granularity - 1``.
    read_address : In(range(depth))
    read_enable : In(1)
    read_data : Out(width)
    """

    LATENCY = 2
    WRITE_DELAY = 0

    def __init__(
        self, width: int, depth: int, granularity: int | None = None, init: Iterable[int] | None = None
    ) -> None:
        self.width = check_count(width, 1, MAX_WIDTH_BITS, "width of a memory")
        self.depth = check_count(depth, 2, MAX_DEPTH, "depth of a memory")
        self.granularity = check_count(
            width if granularity is None else granularity, 1, self.width, "granularity of a memory"
        )
        if self.width % self.granularity:
            raise ValueError(f"granularity must divide the width of {self.width} bits, not be {self.granularity}")
        self.init = [] if init is None else list(init)
        if len(self.init) > self.depth:
            raise ValueError(f"a memory of {self.depth} words must have no more initial words, not {len(self.init)}")
        for word in self.init:
            check_count(word, 0, (1 << self.width) - 1, "an initial word of a memory")
        super().__init__(members(self.width, self.depth, self.granularity))

    def uses_block_ram(self, platform: object) -> bool:
        """Return whether it is made of ECP5 block RAMs: deep enough for them, and empty at first."""
        return target_of(platform).block_ram and self.depth >= block_ram_ecp5.DEPTH_MIN and not self.init

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.uses_block_ram(platform):
            m.submodules.blocks = blocks = block_ram_ecp5.build(self.width, self.depth, self.granularity)
            for name, member in self.signature.members.items():
                inner, outer = getattr(blocks, name), getattr(self, name)
                m.d.comb += inner.eq(outer) if member.flow == wiring.In else outer.eq(inner)
            return m
        m.submodules.store = store = memory.Memory(shape=unsigned(self.width), depth=self.depth, init=self.init)
        write = store.write_port(granularity=None if self.granularity == self.width else self.granularity)
        read = store.read_port(domain="sync")
        # Block RAMs cannot reset the words they hold, and their output registers need no reset.
        output = Signal(self.width, reset_less=True)
        m.d.comb += [
            write.addr.eq(self.write_address),
            write.data.eq(self.write_data),
            write.en.eq(self.write_enable),
            read.addr.eq(self.read_address),
            read.en.eq(self.read_enable),
            self.read_data.eq(output),
        ]
        m.d.sync += output.eq(read.data)
        return m


class GatheredMemory(TwoCycleMemory):
    """The two-cycle memory with one register more each way, for memories of so many blocks that they lie far apart.

    Latency: ``LATENCY`` = 3 cycles, and a write takes place ``WRITE_DELAY`` = 1 cycle after its own; all else,
    parameters and members too, as ``TwoCycleMemory``.
    """

    LATENCY = TwoCycleMemory.LATENCY + 1
    WRITE_DELAY = 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        blocks: wiring.Component
        output: Value
        write: list[Value] = [self.write_address, self.write_data, self.write_enable]
        if self.uses_block_ram(platform):
            blocks = block_ram_ecp5.build(self.width, self.depth, self.granularity, gathers=True)
            output = blocks.read_data
        else:
            blocks = TwoCycleMemory(self.width, self.depth, self.granularity, self.init)
            output = Signal(self.width, reset_less=True)
            m.d.sync += output.eq(blocks.read_data)
            write = [
                delay(m, value, self.WRITE_DELAY, f"write_{at}", reset_less=True) for at, value in enumerate(write)
            ]
        m.submodules.blocks = blocks
        m.d.comb += [
            blocks.write_address.eq(write[0]),
            blocks.write_data.eq(write[1]),
            blocks.write_enable.eq(write[2]),
            blocks.read_address.eq(self.read_address),
            blocks.read_enable.eq(self.read_enable),
            self.read_data.eq(output),
        ]
        return m
