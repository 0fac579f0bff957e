# amaranth: UnusedElaboratable=no
"""The two-cycle memory against a dictionary of words, cycle by cycle."""

import random

import pytest
from amaranth.hdl import Module, Signal

from rtl.leaves.memory import GatheredMemory, TwoCycleMemory
from rtl.tests import simulate


def expected(words, width, granularity, init=(), write_delay=0):
    """Return read_data in the cycle LATENCY after each of ``words``: a read sees every write of an earlier cycle.

    Writes are ``write_delay`` cycles late.
    """
    contents, latch, seen = dict(enumerate(init)), 0, []
    writes = [*[dict.fromkeys(words[0], 0)] * write_delay, *words]
    for read, write in zip(words, writes, strict=False):
        word = {name: (write if name.startswith("write") else read)[name] for name in read}
        if word["read_enable"]:
            latch = contents.get(word["read_address"], 0)
        seen.append({"read_data": latch})
        for part in range(width // granularity):
            if word["write_enable"] >> part & 1:
                mask = ((1 << granularity) - 1) << (part * granularity)
                old = contents.get(word["write_address"], 0)
                contents[word["write_address"]] = (old & ~mask) | (word["write_data"] & mask)
    return seen


def draw(width, depth, granularity, cycles, seed):
    rng = random.Random(seed)
    return [
        {
            "write_address": rng.randrange(depth),
            "write_data": rng.getrandbits(width),
            "write_enable": rng.getrandbits(width // granularity),
            "read_address": rng.randrange(depth),
            "read_enable": rng.getrandbits(1),
        }
        for _ in range(cycles)
    ]


@pytest.mark.parametrize("kind", [TwoCycleMemory, GatheredMemory])
@pytest.mark.parametrize(("width", "depth", "granularity"), [(1, 2, 1), (13, 5, 13), (32, 16, 8), (48, 8, 24)])
def test_reads_see_every_earlier_write(width, depth, granularity, kind):
    words = draw(width, depth, granularity, 600, seed=width)
    init = [index + 1 for index in range(depth)] if width > 4 else [1]
    memory = kind(width, depth, granularity, init)
    seen = simulate.stream(memory, words, ["read_data"], kind.LATENCY)
    assert seen == expected(words, width, granularity, init, kind.WRITE_DELAY)
    assert any(
        word["read_enable"] and word["write_enable"] and word["read_address"] == word["write_address"] for word in words
    )


def test_a_memory_that_forwards_the_written_word_is_caught():
    class Forwarding(TwoCycleMemory):
        def elaborate(self, platform):
            m = Module()
            m.submodules.inner = inner = TwoCycleMemory(self.width, self.depth)
            for name in ("write_address", "write_data", "write_enable", "read_address", "read_enable"):
                m.d.comb += getattr(inner, name).eq(getattr(self, name))
            data, forwards = self.write_data, self.write_enable & (self.read_address == self.write_address)
            for _ in range(self.LATENCY):
                held_data, held_forwards = Signal(self.width), Signal()
                m.d.sync += [held_data.eq(data), held_forwards.eq(forwards)]
                data, forwards = held_data, held_forwards
            m.d.comb += self.read_data.eq(inner.read_data)
            with m.If(forwards):
                m.d.comb += self.read_data.eq(data)
            return m

    words = draw(8, 4, 8, 200, seed=3)
    seen = simulate.stream(Forwarding(8, 4), words, ["read_data"], TwoCycleMemory.LATENCY)
    assert seen != expected(words, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4), "width of a memory must be 1 .. 16384, not 0"),
        ((8, 1), "depth of a memory must be 2 .. 1048576, not 1"),
        ((8, 4, 3), "granularity must divide the width of 8 bits, not be 3"),
        ((8, 2, 8, [1, 2, 3]), "a memory of 2 words must have no more initial words, not 3"),
        ((8, 2, 8, [256]), "an initial word of a memory must be 0 .. 255, not 256"),
    ],
)
def test_nonsense_is_refused(arguments, message):
    with pytest.raises(ValueError) as refusal:
        TwoCycleMemory(*arguments)
    assert str(refusal.value) == message


def test_a_width_that_is_no_integer_is_refused():
    with pytest.raises(TypeError, match=r"width of a memory must be an integer, not '8'"):
        TwoCycleMemory("8", 4)
