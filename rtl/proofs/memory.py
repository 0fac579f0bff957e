"""Proofs of the memory: the portable form keeps what was written, and so does a stack of such memories."""

from __future__ import annotations

import functools

from amaranth.hdl import Const, Mux, Signal

from rtl.leaves.memory import GatheredMemory, TwoCycleMemory
from rtl.leaves.memory_stack import MemoryStack, segments_of
from rtl.proofs.bench import Bench
from rtl.proofs.proof import Mutant, Proof

WIDTH, GRANULARITY, DEPTH = 6, 3, 5
SEGMENTS = segments_of((4, 2, 2))
STACK_DEPTH = 7


def keeps_words(component):
    """Of the portable memory."""
    bench = Bench(component(WIDTH, DEPTH, GRANULARITY))
    check_words(bench, DEPTH, lambda address: bench.stored("dut.store", address))
    return bench


def stack_keeps_words(component, *, gathers=False):
    """Of a stack of portable memories."""
    bench = Bench(component(WIDTH, STACK_DEPTH, GRANULARITY, SEGMENTS, segment_memory, gathers))

    def stored(address):
        word = Const(0, WIDTH)
        for index, segment in enumerate(SEGMENTS):
            here = bench.stored(f"dut.segment_{index}.store", address[: segment.address_bits])
            end = segment.start + segment.words
            word = Mux((address >= segment.start) & (address < end), here, word)
        return word

    check_words(bench, STACK_DEPTH, stored, GatheredMemory if gathers else TwoCycleMemory)
    return bench


def segment_memory(segment):
    """Return a proved memory for a segment."""
    return TwoCycleMemory(WIDTH, segment.words, GRANULARITY)


def check_words(bench, depth, stored, kind=TwoCycleMemory):
    """One word, any of them, followed through every write; whoever reads it gets it, ``kind.LATENCY`` cycles later."""
    m, dut = bench.m, bench.component
    latency = kind.LATENCY
    bench.assume((dut.write_address < depth) & (dut.read_address < depth))
    address = bench.any_constant(range(depth), "address")
    bench.assume(address < depth)
    word = Signal(WIDTH, reset_less=True)
    written = (dut.write_address, dut.write_enable, dut.write_data)
    write_address, write_enable, write_data = (bench.past(value, kind.WRITE_DELAY) for value in written)
    for part in range(WIDTH // GRANULARITY):
        bits = slice(part * GRANULARITY, (part + 1) * GRANULARITY)
        with m.If((write_address == address) & write_enable[part]):
            m.d.sync += word[bits].eq(write_data[bits])
    bench.check(stored(address) == word, "the word as it was written")
    reads = dut.read_enable & (dut.read_address == address)
    bench.implies(bench.past(reads, latency), dut.read_data == bench.past(word, latency), "the word as it is read")
    idle = bench.past(~dut.read_enable, latency) & bench.after(latency, resets=False)
    bench.implies(idle, dut.read_data == bench.past(dut.read_data), "the word read last is kept")


PROOFS = (
    Proof(
        "memory.portable_keeps_words",
        f"the two-cycle memory ({DEPTH} words of {WIDTH} bits in parts of {GRANULARITY}) gives the word as last "
        "written before it was read, two cycles later, and keeps what it gave: every address and write enable",
        TwoCycleMemory,
        keeps_words,
        depth=4,
        mutants=(
            Mutant("write.en.eq(self.write_enable)", "write.en.eq(self.write_enable.any())"),
            Mutant("read.addr.eq(self.read_address)", "read.addr.eq(self.read_address ^ 1)"),
        ),
    ),
    Proof(
        "memory.stack_keeps_words",
        f"the same of {STACK_DEPTH} words in a stack of such memories of "
        f"{', '.join(str(segment.words) for segment in SEGMENTS)} words",
        MemoryStack,
        stack_keeps_words,
        depth=4,
        mutants=(
            Mutant("self.write_enable & written", "self.write_enable"),
            Mutant("with m.If(self.read_enable):", "with m.If(1):"),
            Mutant("m.d.sync += shown.eq(chosen)", "m.d.comb += shown.eq(chosen)"),
        ),
    ),
    Proof(
        "memory.gathered_stack_keeps_words",
        "the same with registers ahead of and behind the segments: three cycles, and one until a word is written",
        MemoryStack,
        functools.partial(stack_keeps_words, gathers=True),
        depth=5,
        mutants=(
            Mutant("m.d.sync += shown.eq(chosen)", "m.d.comb += shown.eq(chosen)"),
            Mutant("words = list(gathered)", "words.extend(gathered)"),
            Mutant("part.write_data.eq(write_data)", "part.write_data.eq(self.write_data)"),
        ),
    ),
)
