"""Takes bytes from an asynchronous serial line."""

from amaranth.hdl import Module, Signal
from amaranth.lib import cdc, wiring
from amaranth.lib.wiring import In, Out

from rtl.checks import check_count

CYCLES_PER_BIT_MIN, CYCLES_PER_BIT_MAX = 4, 1 << 16


class UartReceiver(wiring.Component):
    """8 data bits, lowest first, no parity, 1 stop bit; each sampled once, in its middle.

    A start bit shorter than half a bit is taken for a glitch. After a byte whose stop bit is low, a framing error, the
    line must go high before another byte begins. The line is synchronized here.

    Parameters
    ----------
    cycles_per_bit : int
        4 .. 65,536.

    Members
    -------
    line : In(1)
        High when idle; any clock.
    data : Out(8)
        The byte, if ``valid``.
    valid : Out(1)
        A byte has come, one cycle.
    framing_error : Out(1)
        A byte without a stop bit has come, one cycle.
    """

    def __init__(self, cycles_per_bit: int):
        self.cycles_per_bit = check_count(cycles_per_bit, CYCLES_PER_BIT_MIN, CYCLES_PER_BIT_MAX, "cycles per bit")
        super().__init__({"line": In(1), "data": Out(8), "valid": Out(1), "framing_error": Out(1)})

    def elaborate(self, platform):
        m = Module()
        line = Signal(init=1)
        m.submodules.synchronizer = cdc.FFSynchronizer(self.line, line, init=1)
        timer, bits = Signal(range(self.cycles_per_bit)), Signal(range(8))
        m.d.sync += [timer.eq(timer - 1), self.valid.eq(0), self.framing_error.eq(0)]
        with m.FSM():
            with m.State("idle"):
                # The line is seen low one cycle after it is.
                m.d.sync += [timer.eq(self.cycles_per_bit // 2 - 1), bits.eq(0)]
                with m.If(~line):
                    m.next = "start"
            with m.State("start"):
                with m.If(timer == 0):
                    m.d.sync += timer.eq(self.cycles_per_bit - 1)
                    m.next = "data"
                with m.If(line):
                    m.next = "idle"
            with m.State("data"):
                with m.If(timer == 0):
                    m.d.sync += [
                        timer.eq(self.cycles_per_bit - 1),
                        self.data.eq((self.data >> 1) | (line << 7)),
                        bits.eq(bits + 1),
                    ]
                    with m.If(bits == 7):
                        m.next = "stop"
            with m.State("stop"):
                with m.If(timer == 0):
                    m.d.sync += [self.valid.eq(line), self.framing_error.eq(~line)]
                    m.next = "idle"
                    with m.If(~line):
                        m.next = "high"
            with m.State("high"):
                with m.If(line):
                    m.next = "idle"
        return m
