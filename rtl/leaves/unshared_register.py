"""A register that synthesis leaves beside others of the same value, so that each drives what is near it."""

from __future__ import annotations

from amaranth.hdl import ClockSignal, Const, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.targets import target_of


class UnsharedRegister(wiring.Component):
    """``q`` is ``d`` as it was one cycle ago; 0 at first, and a reset does not touch it.

    Yosys merges registers that always hold the same, and one of them then drives everything. On ECP5 this one is a
    cell, which is not merged; portable Verilog leaves the matter to the synthesizer.

    Members
    -------
    d : In(1)
    q : Out(1)
    """

    def __init__(self) -> None:
        super().__init__({"d": In(1), "q": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if target_of(platform).carry_cells:
            m.submodules.cell = Instance(
                "TRELLIS_FF",
                p_GSR="DISABLED",
                p_CEMUX="1",
                p_CLKMUX="CLK",
                p_LSRMUX="LSR",
                p_REGSET="RESET",
                i_CLK=ClockSignal("sync"),
                i_LSR=Const(0, 1),
                i_DI=self.d,
                o_Q=self.q,
            )
        else:
            held = Signal(reset_less=True)
            m.d.sync += held.eq(self.d)
            m.d.comb += self.q.eq(held)
        return m
