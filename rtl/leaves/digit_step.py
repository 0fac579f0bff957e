"""The accumulator's arithmetic with the DSP datapath: shifting by a digit and clearing, then adding a signed sum."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.leaves.carry_chain import CUT, PRODUCTS, Position, build_chain


class DigitStep(wiring.Component):
    """``updated`` equals ``spec.accumulate_digit(0 if clears else old, total, the shift)``.

    Latency: ``updated`` follows ``old``, ``clears`` and ``shift`` by 2 cycles, and ``total`` by 1: it is due
    ``SUM_DELAY`` = 1 cycle after the former. Throughput: one a cycle.

    Parameters
    ----------
    sum_bits : int
        Width of the signed total.
    accumulator_bits : int
        Width of the signed accumulator, more than ``sum_bits``. Results beyond it wrap.
    shifts : iterable of int
        Bits of the digits that may follow others; less than ``accumulator_bits``.

    Members
    -------
    old : In(accumulator_bits)
    total : In(sum_bits)
    clears : In(1)
    shift : In(len(shifts))
        Bit i: shift by ``shifts[i]``; at most one is set.
    updated : Out(accumulator_bits)
    """

    SUM_DELAY = 1

    def __init__(self, sum_bits: int, accumulator_bits: int, shifts: Iterable[int]) -> None:
        if not 1 <= sum_bits < accumulator_bits:
            raise ValueError(f"sum_bits must be 1 .. {accumulator_bits - 1}, not {sum_bits}")
        self.shifts = tuple(shifts)
        if not self.shifts or not all(0 < shift < accumulator_bits for shift in self.shifts):
            raise ValueError(f"shifts must be one or more of 1 .. {accumulator_bits - 1}, not {self.shifts}")
        super().__init__(
            {
                "old": In(accumulator_bits),
                "total": In(sum_bits),
                "clears": In(1),
                "shift": In(len(self.shifts)),
                "updated": Out(accumulator_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kept = self._kept(m)
        updated = Signal(len(self.old), reset_less=True)
        m.d.sync += updated.eq(kept + self.total.as_signed())
        m.d.comb += self.updated.eq(updated)
        return m

    def _kept(self, m: Module) -> Signal:
        kept = Signal(len(self.old), reset_less=True)
        shifted: Value = self.old
        for at, shift in enumerate(self.shifts):
            shifted = Mux(self.shift[at], Cat(Const(0, shift), self.old[:-shift]), shifted)
        m.d.sync += kept.eq(Mux(self.clears, 0, shifted))
        return kept


class Ecp5DigitStep(DigitStep):
    """``DigitStep`` with its adder in carry cells."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kept = self._kept(m)
        positions = [Position(CUT)]
        for at, bit in enumerate(kept):
            positions.append(Position(PRODUCTS, bit, None, self.total[min(at, len(self.total) - 1)], None))
        updated = Signal(len(self.old), reset_less=True)
        m.d.sync += updated.eq(build_chain(m, "adder", positions)[1:])
        m.d.comb += self.updated.eq(updated)
        return m
