"""The arithmetic of one accumulator: doubling and clearing, then the adder with the sign in front of it."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.leaves.carry_chain import ADD_OR_SUBTRACT, ADD_SIGN, SEPARATOR, Position, build_chain


class AccumulateStep(wiring.Component):
    """``updated`` equals ``spec.accumulate(0 if clears else old, plane_sum, doubles, subtracts)``.

    Latency: ``updated`` follows ``old``, ``clears`` and ``doubles`` by 2 cycles, and ``plane_sum`` and ``subtracts`` by
    1: they are due ``SUM_DELAY`` = 1 cycle after the former. Throughput: one a cycle.

    Parameters
    ----------
    sum_bits : int
        Width of the unsigned plane sum.
    accumulator_bits : int
        Width of the signed accumulator, more than ``sum_bits``. Results beyond it wrap.

    Members
    -------
    old : In(accumulator_bits)
    plane_sum : In(sum_bits)
    clears, doubles, subtracts : In(1)
    updated : Out(accumulator_bits)
    """

    def __init__(self, sum_bits: int, accumulator_bits: int) -> None:
        if not 1 <= sum_bits < accumulator_bits:
            raise ValueError(f"sum_bits must be 1 .. {accumulator_bits - 1}, not {sum_bits}")
        super().__init__(
            {
                "old": In(accumulator_bits),
                "plane_sum": In(sum_bits),
                "clears": In(1),
                "doubles": In(1),
                "subtracts": In(1),
                "updated": Out(accumulator_bits),
            }
        )

    SUM_DELAY = 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kept = self._kept(m)
        updated = Signal(len(self.old), reset_less=True)
        m.d.sync += updated.eq(Mux(self.subtracts, kept - self.plane_sum, kept + self.plane_sum))
        m.d.comb += self.updated.eq(updated)
        return m

    def _kept(self, m: Module) -> Signal:
        kept = Signal(len(self.old), reset_less=True)
        m.d.sync += kept.eq(Mux(self.clears, 0, Mux(self.doubles, Cat(Const(0, 1), self.old[:-1]), self.old)))
        return kept


class Ecp5AccumulateStep(AccumulateStep):
    """``AccumulateStep`` in carry cells: one for each bit, which also inverts the plane sum where it subtracts."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kept = self._kept(m)
        positions = [Position(SEPARATOR, self.subtracts)]
        for at, bit in enumerate(kept):
            if at < len(self.plane_sum):
                positions.append(Position(ADD_OR_SUBTRACT, bit, self.plane_sum[at], self.subtracts))
            else:
                positions.append(Position(ADD_SIGN, bit, None, self.subtracts))
        updated = Signal(len(self.old), reset_less=True)
        m.d.sync += updated.eq(build_chain(m, "adder", positions)[1:])
        m.d.comb += self.updated.eq(updated)
        return m
