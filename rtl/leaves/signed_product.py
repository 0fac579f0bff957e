"""A product of two signed numbers with registers around it, for the requantizer."""

from __future__ import annotations

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.checks import check_count

CELL_BITS = 18
"""Width of a cell's signed operands."""

PART_BITS = CELL_BITS - 1
"""Bits of a longer operand that a cell takes, unsigned, but for the last part."""


class SignedProduct(wiring.Component):
    """``product = a * b``.

    Latency: ``LATENCY`` cycles. Throughput: one a cycle. A reset does not touch the registers.

    Parameters
    ----------
    a_bits, b_bits : int
        Widths of the signed factors, 2 .. 48.

    Members
    -------
    a : In(signed(a_bits))
    b : In(signed(b_bits))
    product : Out(signed(a_bits + b_bits))
    """

    LATENCY = 3

    def __init__(self, a_bits: int, b_bits: int) -> None:
        self.a_bits = check_count(a_bits, 2, 48, "a_bits")
        self.b_bits = check_count(b_bits, 2, 48, "b_bits")
        super().__init__({"a": In(signed(a_bits)), "b": In(signed(b_bits)), "product": Out(signed(a_bits + b_bits))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a, b = (Signal.like(value, reset_less=True) for value in (self.a, self.b))
        multiplied, product = (Signal.like(self.product, reset_less=True) for _ in range(2))
        m.d.sync += [a.eq(self.a), b.eq(self.b), multiplied.eq(a * b), product.eq(multiplied)]
        m.d.comb += self.product.eq(product)
        return m


class Ecp5SignedProduct(SignedProduct):
    """``SignedProduct`` of a short factor and one of at most two parts, a MULT18X18D each and an adder.

    The cells' registers at the inputs and at the output are in use, that between them is not: a fast machine would want
    it, and a cycle more.
    """

    @staticmethod
    def cells(a_bits: int, b_bits: int) -> int | None:
        """Return the cells of a product, ``None`` if its factors are too long."""
        short, long = sorted((a_bits, b_bits))
        if short > CELL_BITS or long > CELL_BITS + PART_BITS:
            return None
        return 1 if long <= CELL_BITS else 2

    def elaborate(self, platform: object) -> Module:
        m = Module()
        assert self.cells(self.a_bits, self.b_bits) is not None
        short, long = (self.a, self.b) if self.a_bits <= self.b_bits else (self.b, self.a)
        product = Signal.like(self.product, reset_less=True)
        if len(long) <= CELL_BITS:
            m.d.sync += product.eq(_cell(m, "whole", short, long))
        else:
            low = _cell(m, "low", short, Cat(long[:PART_BITS], Const(0, 1)).as_signed())
            high = _cell(m, "high", short, long[PART_BITS:].as_signed())
            m.d.sync += product.eq(Cat(low[:PART_BITS], (high + (low >> PART_BITS))[: len(product) - PART_BITS]))
        m.d.comb += self.product.eq(product)
        return m


def _cell(m: Module, name: str, a: Value, b: Value) -> Value:
    """Add a cell to ``m`` and return ``a * b`` of two cycles before."""
    zero, one = Const(0, 1), Const(1, 1)
    operands = {"A": Signal(signed(CELL_BITS), name=f"{name}_a"), "B": Signal(signed(CELL_BITS), name=f"{name}_b")}
    product = Signal(signed(2 * CELL_BITS), name=f"{name}_product")
    m.d.comb += [operands["A"].eq(a), operands["B"].eq(b)]
    registers = {}
    for place in ("INPUTA", "INPUTB", "OUTPUT"):
        registers |= {f"p_REG_{place}_CLK": "CLK0", f"p_REG_{place}_CE": "CE0", f"p_REG_{place}_RST": "RST0"}
    ports: dict[str, Value] = {"i_SIGNEDA": one, "i_SIGNEDB": one, "i_SOURCEA": zero, "i_SOURCEB": zero}
    for index in range(4):
        ports |= {f"i_CLK{index}": zero, f"i_CE{index}": zero, f"i_RST{index}": zero}
    ports |= {"i_CLK0": ClockSignal("sync"), "i_CE0": one}
    for bit in range(CELL_BITS):
        ports |= {f"i_A{bit}": operands["A"][bit], f"i_B{bit}": operands["B"][bit], f"i_C{bit}": zero}
    for bit in range(2 * CELL_BITS):
        ports[f"o_P{bit}"] = product[bit]
    m.submodules[f"{name}_cell"] = Instance(
        "MULT18X18D",
        p_REG_PIPELINE_CLK="NONE",
        p_SOURCEB_MODE="B_SHIFT",
        p_MULT_BYPASS="DISABLED",
        p_CAS_MATCH_REG="FALSE",
        p_RESETMODE="SYNC",
        p_GSR="DISABLED",
        **registers,
        **ports,
    )
    return product
