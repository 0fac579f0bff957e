"""The loop counter against a plain one, and its mutants."""

from __future__ import annotations

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.countdown import Countdown
from rtl.tests.mutation import mutant
from rtl.tests.simulate import stream

BITS = 3


def turns_seen(countdown: type, count: int, turns: int) -> list[dict[str, int]]:
    """Return (left, is_last) of every turn of a loop that begins again and again."""

    class Loop(wiring.Component):
        def __init__(self) -> None:
            super().__init__({"begin": In(1), "left": Out(BITS), "is_last": Out(1)})

        def elaborate(self, platform: object) -> Module:
            m = Module()
            loop = countdown(BITS, "loop")
            turns_of_loop = Signal(BITS, init=count)
            m.d.comb += [self.left.eq(loop.left), self.is_last.eq(loop.is_last)]
            m.d.sync += loop.step_or_begin(turns_of_loop)
            with m.If(self.begin):
                m.d.sync += loop.begin(turns_of_loop)
            return m

    words = [{"begin": int(cycle == 0)} for cycle in range(turns + 1)]
    return stream(Loop(), words, ("left", "is_last"), 0)[1:]


def expected(count: int, turns: int) -> list[dict[str, int]]:
    lefts = [count - turn % count for turn in range(turns)]
    return [{"left": left, "is_last": int(left == 1)} for left in lefts]


@pytest.mark.parametrize("count", range(1, 1 << BITS))
def test_every_loop(count: int) -> None:
    assert turns_seen(Countdown, count, 20) == expected(count, 20)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("self.is_last.eq(turns == 1)", "self.is_last.eq(0)"),
        ("Mux(self.is_last, turns == 1, self.left == 2)", "Mux(self.is_last, turns == 1, self.left == 1)"),
        ("Mux(self.is_last, turns, self.left - 1)", "self.left - 1"),
    ],
)
def test_a_wrong_loop_is_noticed(right: str, wrong: str) -> None:
    wrong_countdown = mutant(Countdown, right, wrong)
    assert any(turns_seen(wrong_countdown, count, 20) != expected(count, 20) for count in (1, 2, 5))
