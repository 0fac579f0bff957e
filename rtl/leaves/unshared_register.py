"""A register that synthesis leaves beside others of the same value, so that each drives what is near it."""

from __future__ import annotations

from amaranth.hdl import ClockSignal, Instance, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.checks import check_count
from rtl.targets import target_of

BITS_MAX = 512
"""Activations of the most lanes."""


class UnsharedRegister(wiring.Component):
    """``q`` is ``d`` as it was one cycle ago, or 0 if ``clear`` was 1; 0 at first, and a reset does not touch it.

    Yosys merges registers that always hold the same, and one of them then drives everything. On ECP5 these are cells,
    which are not merged; portable Verilog leaves the matter to the synthesizer.

    Parameters
    ----------
    bits : int
        1 .. 512.

    Members
    -------
    d : In(bits)
    clear : In(1)
    q : Out(bits)
    """

    def __init__(self, bits: int = 1) -> None:
        self.bits = check_count(bits, 1, BITS_MAX, "bits")
        super().__init__({"d": In(bits), "clear": In(1), "q": Out(bits)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if not target_of(platform).carry_cells:
            held = Signal(self.bits, reset_less=True)
            m.d.sync += held.eq(Mux(self.clear, 0, self.d))
            m.d.comb += self.q.eq(held)
            return m
        for bit in range(self.bits):
            m.submodules[f"cell_{bit}"] = Instance(
                "TRELLIS_FF",
                p_GSR="DISABLED",
                p_CEMUX="1",
                p_CLKMUX="CLK",
                p_LSRMUX="LSR",
                p_REGSET="RESET",
                p_SRMODE="LSR_OVER_CE",
                i_CLK=ClockSignal("sync"),
                i_LSR=self.clear,
                i_DI=self.d[bit],
                o_Q=self.q[bit],
            )
        return m
