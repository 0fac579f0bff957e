"""Proof of the sequencer: it fetches no descriptor beyond those that there are."""

from __future__ import annotations

from rtl.leaves.memory import TwoCycleMemory
from rtl.multiple import multiple
from rtl.proofs.bench import Bench
from rtl.proofs.machine import SMALL
from rtl.proofs.proof import Mutant, Proof
from rtl.sequencer import Sequencer

WORDS = SMALL.layer_layout.load_words


def addresses_in_range(component):
    """A command names a slot that there is, and the last slot holds the last layer of its assignment."""
    bench = Bench(component(SMALL))
    dut = bench.component
    address, reads_left = bench.internal("dut.address"), bench.internal("dut.reads_left")
    bench.assume(dut.run.payload < SMALL.layer_slots)
    is_last = bench.view("dut.fetched").is_last
    bench.assume(~(dut.layer_done & (dut.slot == SMALL.layer_slots - 1)) | is_last)

    fetches = bench.in_state("dut", "FETCH")
    reads = fetches & (reads_left != 0)
    bench.implies(reads, dut.layers_address < SMALL.layer_slots * WORDS, "address in range")
    bench.implies(~bench.in_state("dut", "IDLE"), dut.slot < SMALL.layer_slots, "slot")
    bench.implies(fetches, reads_left <= WORDS, "reads left")
    bench.implies(fetches, address + reads_left == multiple(dut.slot + 1, WORDS), "the words of the slot")
    on_the_way = sum(bench.past_reset(reads, cycles) for cycles in range(1, TwoCycleMemory.LATENCY + 1))
    words_left = bench.internal("dut.words_left")
    bench.implies(fetches, words_left == reads_left + on_the_way, "words left")
    bench.implies(~fetches, on_the_way == 0, "all words have arrived")
    done = bench.in_state("dut", "START", "LAYER")
    bench.implies(done, (address == multiple(dut.slot + 1, WORDS)) & (reads_left == 0), "then those of the next")
    return bench


PROOFS = (
    Proof(
        "sequencer.addresses_in_range",
        f"descriptors of {SMALL.layer_slots} slots of {WORDS} words: every word that is read is there, and is of the "
        "slot that is due",
        Sequencer,
        addresses_in_range,
        depth=3,
        mutant_depth=2 * WORDS + 10,
        mutants=(
            Mutant("address.eq(multiple(self.slot, words))", "address.eq(multiple(self.slot, words + 1))"),
            Mutant("reads_left.eq(reads_left - 1)]", "reads_left.eq(reads_left)]"),
            Mutant("with m.If(fetched.is_last):", "with m.If(0):"),
        ),
    ),
)
