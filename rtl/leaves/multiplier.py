"""An unsigned 18 x 18 multiplier with registers, one factor of which stays until it is replaced."""

from __future__ import annotations

from amaranth.hdl import ClockSignal, Const, Instance, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.leaves.digit_packing import OPERAND_BITS


class Multiplier(wiring.Component):
    """``product = a * b``.

    Latency: ``LATENCY`` cycles from ``a`` to ``product``: registers at the inputs, within the multiplier and at the
    output, where DSP blocks have them. Throughput: one a cycle. A reset does not touch them.

    Members
    -------
    a : In(18)
    b : In(18)
        Taken in a cycle with ``load``; it meets the ``a`` of that cycle and of those after it.
    load : In(1)
    product : Out(36)
    """

    LATENCY = 3

    def __init__(self) -> None:
        super().__init__(
            {"a": In(OPERAND_BITS), "b": In(OPERAND_BITS), "load": In(1), "product": Out(2 * OPERAND_BITS)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a = Signal(OPERAND_BITS, reset_less=True)
        b = Signal(OPERAND_BITS, reset_less=True)
        multiplied = Signal(2 * OPERAND_BITS, reset_less=True)
        product = Signal(2 * OPERAND_BITS, reset_less=True)
        with m.If(self.load):
            m.d.sync += b.eq(self.b)
        m.d.sync += [a.eq(self.a), multiplied.eq(a * b), product.eq(multiplied)]
        m.d.comb += self.product.eq(product)
        return m


class Ecp5Multiplier(Multiplier):
    """``Multiplier`` in one MULT18X18D, all of whose registers are in the block."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        zero, one = Const(0, 1), Const(1, 1)
        registers = {}
        for name, enable in (("INPUTA", "CE0"), ("INPUTB", "CE1"), ("PIPELINE", "CE0"), ("OUTPUT", "CE0")):
            registers |= {f"p_REG_{name}_CLK": "CLK0", f"p_REG_{name}_CE": enable, f"p_REG_{name}_RST": "RST0"}
        ports: dict[str, Value] = {
            "i_CLK0": ClockSignal("sync"),
            "i_CE0": one,
            "i_CE1": self.load,
            "i_RST0": zero,
            "i_SIGNEDA": zero,
            "i_SIGNEDB": zero,
            "i_SOURCEA": zero,
            "i_SOURCEB": zero,
        }
        for index in range(1, 4):
            ports |= {f"i_CLK{index}": zero, f"i_RST{index}": zero}
            if index > 1:
                ports[f"i_CE{index}"] = zero
        for bit in range(OPERAND_BITS):
            ports |= {f"i_A{bit}": self.a[bit], f"i_B{bit}": self.b[bit], f"i_C{bit}": zero}
        for bit in range(2 * OPERAND_BITS):
            ports[f"o_P{bit}"] = self.product[bit]
        m.submodules.cell = Instance(
            "MULT18X18D",
            p_SOURCEB_MODE="B_SHIFT",
            p_MULT_BYPASS="DISABLED",
            p_CAS_MATCH_REG="FALSE",
            p_RESETMODE="SYNC",
            p_GSR="DISABLED",
            **registers,
            **ports,
        )
        return m
