"""Proofs of the memory in ECP5's block RAMs: what is written is read, in every shape of block and in stacks of them.

The model of the cell holds thousands of words, so these are bounded: any accesses in the first cycles, from any
contents.
"""

from __future__ import annotations

import functools

from amaranth.hdl import Cat, Signal
from amaranth.lib import wiring

from rtl.leaves.block_ram_ecp5 import SHAPES, BlockRam, stack
from rtl.leaves.memory import GatheredMemory, TwoCycleMemory
from rtl.leaves.memory_stack import MemoryStack, Segment
from rtl.proofs.bench import Bench
from rtl.proofs.proof import Mutant, Proof
from rtl.targets import CELL_MODELS, ECP5

CYCLES = 7


def one_shape(component: type[BlockRam], words: int, width: int, granularity: int) -> Bench:
    return reads_what_was_written(component(width, words, granularity, words), words, TwoCycleMemory)


def several_shapes(
    component: type[MemoryStack], kind: type[TwoCycleMemory], width: int, depth: int, granularity: int
) -> Bench:
    def block_ram(segment: Segment) -> BlockRam:
        return BlockRam(width, segment.words, granularity, segment.words)

    segments = stack(width, depth, granularity)
    gathers = kind is GatheredMemory
    return reads_what_was_written(component(width, depth, granularity, segments, block_ram, gathers), depth, kind)


def reads_what_was_written(memory: wiring.Component, depth: int, kind: type[TwoCycleMemory]) -> Bench:
    """State that any word reads as last written, and that the word read last is kept; ``kind`` has the latencies."""
    bench = Bench(memory, target=ECP5, resets=False)
    m = bench.m
    width = len(memory.write_data)
    address = bench.any_constant(len(memory.read_address), "followed")
    bench.assume(address < depth)
    written = (memory.write_address, memory.write_enable, memory.write_data)
    write_address, write_enable, write_data = (bench.past(value, kind.WRITE_DELAY) for value in written)
    enables = Cat(enable.replicate(width // len(write_enable)) for enable in write_enable)
    writes = (write_address == address) & write_enable.any()
    # Bits that were never written may be anything.
    word, known = Signal(width), Signal(width)
    with m.If(writes):
        m.d.sync += [word.eq((word & ~enables) | (write_data & enables)), known.eq(known | enables)]
    reads = memory.read_enable & (memory.read_address == address)
    # A word that is read while it is written is undefined.
    bench.assume(~(reads & writes))
    wrong = (memory.read_data ^ bench.past(word, kind.LATENCY)) & bench.past(known, kind.LATENCY)
    bench.implies(bench.past(reads, kind.LATENCY), wrong == 0, "the word as it is read")
    idle = bench.past(~memory.read_enable, kind.LATENCY) & bench.after(kind.LATENCY)
    bench.implies(idle, memory.read_data == bench.past(memory.read_data), "the word read last is kept")
    return bench


CLAIM = "any word reads as last written, and the word read last is kept: every address, write enable and content"

BLOCK_MUTANTS = (
    Mutant("[Const(0, 1)] * low + list(self.read_address)", "[Const(0, 1)] * low + list(self.read_address ^ 1)"),
    Mutant('"i_CEB": self.read_enable', '"i_CEB": Const(1, 1)'),
)
BYTE_MUTANTS = (Mutant("BYTE_BITS = 9", "BYTE_BITS = 12"),)
STACK_MUTANTS = (
    Mutant("self.write_enable & written", "self.write_enable"),
    Mutant("m.d.sync += shown.eq(chosen)", "m.d.comb += shown.eq(chosen)"),
)


def proofs() -> tuple[Proof, ...]:
    """Return the proofs of every shape and of two stacks."""
    made = []
    for words, bits in SHAPES.items():
        granularity = min(bits, 9)
        made.append(
            Proof(
                f"block_ram.{words}x{bits}_reads_what_was_written",
                f"{CLAIM}, a DP16KD of {words} words of {bits} bits in parts of {granularity}",
                BlockRam,
                functools.partial(one_shape, words=words, width=bits, granularity=granularity),
                depth=CYCLES,
                bounded=True,
                mutants=BLOCK_MUTANTS + (BYTE_MUTANTS if bits > granularity else ()),
                cells=CELL_MODELS,
                arrays=True,
            )
        )
    for kind, width, depth, granularity in (
        (TwoCycleMemory, 9, 2500, 9),
        (GatheredMemory, 4, 8500, 4),
    ):
        made.append(
            Proof(
                f"block_ram.stack_{width}x{depth}_reads_what_was_written",
                f"{CLAIM}, {depth} words of {width} bits in parts of {granularity}, in "
                f"{len(stack(width, depth, granularity))} segments of DP16KD, {kind.LATENCY} cycles",
                MemoryStack,
                functools.partial(several_shapes, kind=kind, width=width, depth=depth, granularity=granularity),
                depth=CYCLES,
                bounded=True,
                mutants=STACK_MUTANTS,
                cells=CELL_MODELS,
                arrays=True,
            )
        )
    return tuple(made)


PROOFS = proofs()
