"""Packets of the load stream reach their memories whole and in order; empty ones and what is beyond change nothing."""

from __future__ import annotations

import random

import pytest
from amaranth.hdl import Fragment
from amaranth.sim import Simulator

from hwsim.machine import LOAD_COUNT_BITS, LOAD_TARGETS, LOAD_WORD_BITS, Machine
from hwsim.precision import CATALOG
from rtl.accelerator import Accelerator
from rtl.load_port import LoadPort, record_bits, record_counts, record_words
from rtl.proofs.bench import locals_of
from rtl.tests.mutation import mutant

MACHINE = Machine(weight_widths=CATALOG["8-4-2"], activation_widths=CATALOG["8-4-2"])
Write = tuple[str, int, int]


def packets(seed: int, counts: list[int]) -> tuple[list[int], list[Write]]:
    """Return the words of packets of so many records each, and what is to be written: (target, address, record).

    They begin anywhere in their target, so that the last ones may lie beyond it, or far beyond.
    """
    rng = random.Random(seed)
    words, writes = [], []
    for count in counts:
        target = rng.choice(list(LOAD_TARGETS))
        start = rng.choice([rng.randrange(record_counts(MACHINE)[target]), record_counts(MACHINE)[target], 1 << 31])
        words += [LOAD_TARGETS[target] << LOAD_COUNT_BITS | count, start]
        for index in range(count):
            record = rng.getrandbits(record_bits(MACHINE)[target])
            if start + index < record_counts(MACHINE)[target]:
                writes.append((target, start + index, record))
            words += [record >> LOAD_WORD_BITS * at & 0xFFFFFFFF for at in range(record_words(MACHINE)[target])]
    return words, writes


def written(kind: type, words: list[int], seed: int) -> list[Write]:
    """Send the words with pauses; return what a load port wrote."""
    port = kind(MACHINE)
    seen: list[Write] = []
    rng = random.Random(seed)

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        left = list(words)
        idle = 0
        while idle < 8:
            sends = bool(left) and rng.random() < 0.7
            ctx.set(port.i.valid, sends)
            ctx.set(port.i.payload, left[0] if sends else rng.getrandbits(LOAD_WORD_BITS))
            if sends and ctx.get(port.i.ready):
                left.pop(0)
            await ctx.tick()
            for target in LOAD_TARGETS:
                if ctx.get(getattr(port, f"{target}_write")):
                    seen.append((target, ctx.get(port.address), ctx.get(getattr(port, f"{target}_data"))))
            idle = idle + 1 if not left else 0

    simulator = Simulator(port)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return seen


def test_the_memories_hold_as_many_records_as_the_port_writes() -> None:
    with locals_of("elaborate") as found:
        accelerator = Accelerator(MACHINE)
        Fragment.get(accelerator, None)
    names = found[id(accelerator)]
    for target, count in record_counts(MACHINE).items():
        if target != "image":
            assert names[target].depth == max(2, count)


COUNTS = [3, 0, 1, 0, 0, 2, 5, 1, 4, 0]


@pytest.mark.parametrize("seed", range(4))
def test_records_are_written_where_their_packets_say(seed: int) -> None:
    words, expected = packets(seed, COUNTS)
    assert written(LoadPort, words, seed) == expected


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("with m.If(records.left == 0):", "with m.If(0):"),
        ("write.eq(next_address < count)", "write.eq(1)"),
        ("next_address.eq(next_address + 1)", "next_address.eq(next_address)"),
        ("*words.begin(words_of_target),\n                            *records", "*records"),
    ],
)
def test_a_wrong_load_port_is_caught(right: str, wrong: str) -> None:
    words, expected = packets(1, COUNTS)
    assert written(mutant(LoadPort, right, wrong), words, 1) != expected
