"""The loop counters against plain ones, and their mutants."""

from __future__ import annotations

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.countdown import Countdown, Loop
from rtl.tests.mutation import mutant
from rtl.tests.simulate import stream

BITS = 3
TURNS = 20


def turns_seen(kind: type, count: int) -> list[dict[str, int]]:
    """Return (left, is_last) of every turn of a loop, which begins again if it is one that can."""

    class Bench(wiring.Component):
        def __init__(self) -> None:
            super().__init__({"begin": In(1), "left": Out(BITS), "is_last": Out(1)})

        def elaborate(self, platform: object) -> Module:
            m = Module()
            turns = Signal(BITS, init=count)
            repeats = kind.__name__ == "Loop"
            loop = kind(m, turns, "loop") if repeats else kind(BITS, "loop")
            m.d.comb += [self.left.eq(loop.left), self.is_last.eq(loop.is_last)]
            m.d.sync += loop.step_or_begin() if repeats else loop.step()
            with m.If(self.begin):
                m.d.sync += loop.begin() if repeats else loop.begin(turns)
            return m

    words = [{"begin": int(cycle == 1)} for cycle in range(TURNS + 2)]
    return stream(Bench(), words, ("left", "is_last"), 0)[2:]


def expected(kind: type, count: int) -> list[dict[str, int]]:
    period = count if kind.__name__ == "Loop" else 1 << BITS
    lefts = [(count - turn % period) % (1 << BITS) for turn in range(TURNS)]
    return [{"left": left, "is_last": int(left == 1)} for left in lefts]


@pytest.mark.parametrize("kind", [Countdown, Loop])
@pytest.mark.parametrize("count", range(1, 1 << BITS))
def test_every_loop(kind: type, count: int) -> None:
    assert turns_seen(kind, count) == expected(kind, count)


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (Countdown, "self.set(turns, turns == 1)", "self.set(turns, 0)"),
        (Countdown, "self.set(self.left - 1, self.left == 2)", "self.set(self.left - 1, self.left == 1)"),
        (Loop, "self.is_single.eq(turns == 1)", "self.is_single.eq(0)"),
        (Loop, "Mux(self.is_last, self.turns, self.left - 1)", "self.left - 1"),
        (Loop, "Mux(self.is_last, self.is_single, self.left == 2)", "self.left == 2"),
    ],
)
def test_a_wrong_loop_is_noticed(kind: type, right: str, wrong: str) -> None:
    wrong_kind = mutant(kind, right, wrong)
    assert any(turns_seen(wrong_kind, count) != expected(kind, count) for count in (1, 2, 5))
