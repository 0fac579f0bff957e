"""The switched weight as one short formula, the middle of the proof of the weight switch."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwsim import spec

BITS = spec.MAX_BITS


class SwitchFormula(wiring.Component):
    """The planes of a switched weight from the planes read of its code, read as an unsigned number.

    Members
    -------
    read : In(BITS)
        The first plane read is the highest bit.
    target_bits : In(range(BITS + 1))
    rounds : In(1)
        The last plane read is the rounding bit.
    planes : Out(BITS)
        Bit i is the plane of the i-th pass from the last.
    passes : Out(range(BITS + 1))
    """

    def __init__(self):
        super().__init__(
            {
                "read": In(BITS),
                "target_bits": In(range(BITS + 1)),
                "rounds": In(1),
                "planes": Out(BITS),
                "passes": Out(range(BITS + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        overflows = Signal()
        m.d.comb += overflows.eq(self.read == (1 << self.target_bits) - 1)
        m.d.comb += [self.planes.eq(self.read), self.passes.eq(self.target_bits)]
        with m.If(self.rounds):
            m.d.comb += self.planes.eq((self.read + ~overflows) >> 1)
        with m.If(self.target_bits == 1):
            m.d.comb += [self.planes.eq(Cat(1, ~self.read[0])), self.passes.eq(2)]
        return m
