"""Gives bytes to an asynchronous serial line."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.board.uart_receiver import CYCLES_PER_BIT_MAX, CYCLES_PER_BIT_MIN
from rtl.checks import check_count

FRAME_BITS = 10


class UartTransmitter(wiring.Component):
    """8 data bits, lowest first, no parity, 1 stop bit.

    Throughput: a byte in ``10 * cycles_per_bit`` cycles.

    Parameters
    ----------
    cycles_per_bit : int
        4 .. 65,536.

    Members
    -------
    i : In(stream.Signature(8))
    line : Out(1)
        High when idle, also after reset.
    """

    def __init__(self, cycles_per_bit: int):
        self.cycles_per_bit = check_count(cycles_per_bit, CYCLES_PER_BIT_MIN, CYCLES_PER_BIT_MAX, "cycles per bit")
        super().__init__({"i": In(stream.Signature(8)), "line": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        rest, left, timer = Signal(FRAME_BITS - 1), Signal(range(FRAME_BITS + 1)), Signal(range(self.cycles_per_bit))
        bit_end = Signal()
        m.d.comb += [bit_end.eq(timer == 0), self.i.ready.eq((left == 0) | ((left == 1) & bit_end))]
        m.d.sync += timer.eq(timer - 1)
        with m.If(self.i.ready & self.i.valid):
            m.d.sync += [
                self.line.eq(0),
                rest.eq(Cat(self.i.payload, Const(1))),
                left.eq(FRAME_BITS),
                timer.eq(self.cycles_per_bit - 1),
            ]
        with m.Elif((left != 0) & bit_end):
            m.d.sync += [
                self.line.eq(rest[0]),
                rest.eq(Cat(rest[1:], Const(1))),
                left.eq(left - 1),
                timer.eq(self.cycles_per_bit - 1),
            ]
        return m
