"""Proofs of the result buffer: its stream keeps the rules, its halves never run over or under."""

from __future__ import annotations

from amaranth.hdl import Signal

from rtl.leaves.memory import TwoCycleMemory
from rtl.proofs.bench import Bench
from rtl.proofs.machine import SMALL
from rtl.proofs.proof import Mutant, Proof
from rtl.proofs.stream import check_stream
from rtl.result_buffer import ResultBuffer


def keeps_rules(component):
    bench = Bench(component(SMALL))
    m, dut = bench.m, bench.component
    used, word, lane, wait = (bench.internal(f"dut.{name}") for name in ("used", "word", "lane", "wait"))
    logits = bench.view("dut.logits")
    index = word * SMALL.requantizers + lane
    write_half = bench.internal("dut.memory.write_address") != dut.write_address
    read_half = bench.internal("dut.memory.read_address") != word

    # The machine writes logits, and says that they are complete, only after it has seen a free half.
    bench.assume(~(dut.done | dut.write_enable) | dut.free)
    bench.assume(dut.write_address < SMALL.result_words)
    bench.assume_constant(dut.classes)
    bench.assume((dut.classes > 0) & (dut.classes <= SMALL.result_words * SMALL.requantizers))

    sent = Signal()
    m.d.comb += sent.eq(dut.o.valid & dut.o.ready & dut.o.payload.last)
    check_stream(bench, dut.o, "o")
    bench.check(used <= 2, "no more halves used than there are")
    bench.implies(sent, used != 0, "none released that is not used")
    bench.implies(used == 1, write_half != read_half, "the half read is not the half written")
    bench.implies(used != 1, write_half == read_half, "both are the same half when both are free, or none is")
    bench.implies(~bench.in_state("dut", "IDLE"), used != 0, "reads only what is there")
    bench.implies(dut.write_enable & (used != 0), write_half != read_half, "nothing is written where it is read")
    bench.check(bench.internal("dut.memory.write_address") < 2 * SMALL.result_words, "write address")
    bench.check(bench.internal("dut.memory.read_address") < 2 * SMALL.result_words, "read address")

    active = ~bench.in_state("dut", "IDLE")
    bench.implies(bench.after(1), logits.is_single == (dut.classes == 1), "whether there is one logit only is known")
    bench.implies(active, index + logits.left == dut.classes, "the logits that are left follow those before")
    bench.implies(active, logits.left != 0, "no more logits than classes")
    bench.implies(active, logits.is_last == (logits.left == 1), "the last logit is the one that is marked")
    bench.implies(bench.in_state("dut", "READ"), wait <= TwoCycleMemory.LATENCY, "wait")

    # Each logit leaves once, in order.
    following = Signal.like(index, name="following")
    with m.If(sent):
        m.d.sync += following.eq(0)
    with m.Elif(dut.o.valid & dut.o.ready):
        m.d.sync += following.eq(following + 1)
    bench.implies(active, following == index, "in order")
    bench.implies(~active, following == 0, "in order, the first first")
    return bench


PROOFS = (
    Proof(
        "result_buffer.keeps_rules",
        "the result stream holds valid and payload until taken, sends every logit once and in order; the two halves "
        "never run over or under, are never read and written at once, and every address is in range",
        ResultBuffer,
        keeps_rules,
        depth=6,
        mutant_depth=16,
        mutants=(
            Mutant("self.free.eq(used != 2)", "self.free.eq(1)"),
            Mutant("m.d.comb += self.o.valid.eq(1)", "m.d.comb += self.o.valid.eq(~self.o.ready)"),
            Mutant("wait.eq(TwoCycleMemory.LATENCY)]\n                with", "wait.eq(0)]\n                with"),
            Mutant("read_half.eq(~read_half)", "read_half.eq(read_half)"),
            Mutant("lane == machine.requantizers - 1", "lane == machine.requantizers"),
        ),
    ),
)
