"""Takes whole request frames from bytes, and gives the bytes of one as a stream."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import memory, stream, wiring
from amaranth.lib.crc import catalog
from amaranth.lib.wiring import In, Out

from rtl.board.link_protocol import BODY_BYTES_MAX, CRC_BYTES, END, ESC, ESC_END, ESC_ESC, REQUEST_HEADER_BYTES


class FrameReceiver(wiring.Component):
    """Keeps a frame until it is whole, and gives it only if its CRC is right: what is broken never does anything.

    Broken is what has a wrong CRC, a byte after ESC that is none of the two, fewer bytes than a request or more than
    the memory holds, a framing error, and whatever comes before the frame held has been released.

    Throughput of ``o``: a byte in two cycles. What ``o`` offers is held until it is taken or released.

    Parameters
    ----------
    body_bytes_max : int
        What the memory holds, CRC included.

    Members
    -------
    data, valid, framing_error : In
        As ``UartReceiver`` gives them.
    held : Out(1)
        A frame is there.
    o : Out(stream.Signature(8))
        Its bytes, without the CRC.
    left : Out
        Bytes of it not taken yet.
    release : In(1)
        Forget it, one cycle.
    broken : Out(1)
        A frame was dropped, one cycle.
    """

    def __init__(self, body_bytes_max: int = BODY_BYTES_MAX):
        self.body_bytes_max = body_bytes_max
        super().__init__(
            {
                "data": In(8),
                "valid": In(1),
                "framing_error": In(1),
                "held": Out(1),
                "o": Out(stream.Signature(8)),
                "left": Out(range(body_bytes_max + 1)),
                "release": In(1),
                "broken": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = store = memory.Memory(shape=unsigned(8), depth=self.body_bytes_max, init=[])
        m.submodules.crc = crc = catalog.CRC16_IBM_3740(data_width=8).create()
        write, read = store.write_port(), store.read_port(domain="sync")

        count = Signal(range(self.body_bytes_max + 1))
        escaped, bad, is_end, is_byte, is_whole = Signal(), Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            is_end.eq(self.valid & (self.data == END)),
            is_byte.eq(self.valid & ~is_end & (escaped | (self.data != ESC)) & ~self.held),
            write.addr.eq(count),
            write.data.eq(Mux(escaped, Mux(self.data == ESC_END, END, ESC), self.data)),
            write.en.eq(is_byte & (count != self.body_bytes_max)),
            crc.data.eq(write.data),
            crc.valid.eq(is_byte),
            crc.start.eq(is_end),
            is_whole.eq(~bad & ~escaped & crc.match_detected & (count >= REQUEST_HEADER_BYTES + CRC_BYTES)),
            self.broken.eq(is_end & ~is_whole & (bad | escaped | (count != 0))),
        ]
        with m.If(self.valid):
            m.d.sync += escaped.eq(~is_end & ~escaped & (self.data == ESC))
        with m.If(is_byte):
            m.d.sync += count.eq(count + write.en)
        with m.If(self.framing_error | (self.valid & self.held) | (is_byte & (count == self.body_bytes_max))):
            m.d.sync += bad.eq(1)
        with m.If(self.valid & escaped & (self.data != ESC_END) & (self.data != ESC_ESC)):
            m.d.sync += bad.eq(1)
        with m.If(is_end):
            m.d.sync += [bad.eq(0), count.eq(0)]

        # The memory's data follow the address by a cycle.
        at, fresh = Signal(range(self.body_bytes_max)), Signal()
        m.d.comb += [
            read.addr.eq(at),
            read.en.eq(1),
            self.o.payload.eq(read.data),
            self.o.valid.eq(fresh & (self.left != 0)),
        ]
        m.d.sync += fresh.eq(self.held)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [at.eq(at + 1), self.left.eq(self.left - 1), fresh.eq(0)]
        with m.If(self.release):
            m.d.sync += [self.held.eq(0), self.left.eq(0)]
        with m.If(is_end & is_whole):
            m.d.sync += [self.held.eq(1), self.left.eq(count - CRC_BYTES), at.eq(0), fresh.eq(0)]
        return m
