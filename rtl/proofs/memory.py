"""Proof of the memory: the portable form keeps what was written."""

from __future__ import annotations

from amaranth.hdl import Signal

from rtl.leaves.memory import TwoCycleMemory
from rtl.proofs.bench import Bench
from rtl.proofs.proof import Mutant, Proof

WIDTH, GRANULARITY, DEPTH = 6, 3, 5


def keeps_words(component):
    """One word, any of them, followed through every write; whoever reads it gets it, two cycles later."""
    bench = Bench(component(WIDTH, DEPTH, GRANULARITY))
    m, dut = bench.m, bench.component
    bench.assume((dut.write_address < DEPTH) & (dut.read_address < DEPTH))
    address = bench.any_constant(range(DEPTH), "address")
    bench.assume(address < DEPTH)
    word = Signal(WIDTH, reset_less=True)
    for part in range(WIDTH // GRANULARITY):
        bits = slice(part * GRANULARITY, (part + 1) * GRANULARITY)
        with m.If((dut.write_address == address) & dut.write_enable[part]):
            m.d.sync += word[bits].eq(dut.write_data[bits])
    bench.check(bench.stored("dut.store", address) == word, "the word as it was written")
    reads = dut.read_enable & (dut.read_address == address)
    bench.implies(
        bench.past(reads, dut.LATENCY), dut.read_data == bench.past(word, dut.LATENCY), "the word as it is read"
    )
    idle = bench.past(~dut.read_enable, dut.LATENCY) & bench.after(dut.LATENCY, resets=False)
    bench.implies(idle, dut.read_data == bench.past(dut.read_data), "the word read last is kept")
    return bench


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
)
