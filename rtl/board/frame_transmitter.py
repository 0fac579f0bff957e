"""Sends answers as frames, as often as wanted."""

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import memory, stream, wiring
from amaranth.lib.crc import catalog
from amaranth.lib.wiring import In, Out

from rtl.board.link_protocol import ANSWER_HEADER_BYTES, ANSWER_WORDS_MAX, CRC_BYTES, END, ESC, ESC_END, ESC_ESC

DATA_BYTES_MAX = 4 * ANSWER_WORDS_MAX


class FrameTransmitter(wiring.Component):
    """Frames a header and the data in its memory, and appends the CRC.

    Parameters
    ----------
    data_bytes_max : int
        What the memory holds.

    Members
    -------
    write_address, write_data, write_enable : In
        Data of the answer, bytes; not while ``busy``.
    header : In(8 * ANSWER_HEADER_BYTES)
        Lowest byte first; constant while ``busy``.
    data_bytes : In
        Bytes of data; constant while ``busy``.
    start : In(1)
        Send, one cycle; not while ``busy``.
    busy : Out(1)
    o : Out(stream.Signature(8))
    """

    def __init__(self, data_bytes_max: int = DATA_BYTES_MAX):
        self.data_bytes_max = data_bytes_max
        super().__init__(
            {
                "write_address": In(range(data_bytes_max)),
                "write_data": In(8),
                "write_enable": In(1),
                "header": In(8 * ANSWER_HEADER_BYTES),
                "data_bytes": In(range(data_bytes_max + 1)),
                "start": In(1),
                "busy": Out(1),
                "o": Out(stream.Signature(8)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = store = memory.Memory(shape=unsigned(8), depth=self.data_bytes_max, init=[])
        m.submodules.crc = crc = catalog.CRC16_IBM_3740(data_width=8).create()
        write, read = store.write_port(), store.read_port(domain="sync")
        m.d.comb += [
            write.addr.eq(self.write_address),
            write.data.eq(self.write_data),
            write.en.eq(self.write_enable),
        ]

        # Bytes of a body are header, data, CRC; ``at`` begins anew with each.
        at, byte, after = Signal(range(self.data_bytes_max)), Signal(8), Signal(2)
        sent = Signal()
        m.d.comb += [read.addr.eq(at), read.en.eq(1), sent.eq(self.o.valid & self.o.ready), self.busy.eq(1)]
        with m.FSM():
            with m.State("idle"):
                m.d.comb += [self.busy.eq(0), crc.start.eq(1)]
                m.d.sync += [at.eq(0), after.eq(0)]
                with m.If(self.start):
                    m.next = "begin"
            with m.State("begin"):
                m.d.comb += [self.o.payload.eq(END), self.o.valid.eq(1)]
                with m.If(sent):
                    m.next = "choose"
            with m.State("choose"):
                with m.Switch(after):
                    with m.Case(0):
                        m.d.sync += byte.eq(self.header.word_select(at[:3], 8))
                        with m.If(at == ANSWER_HEADER_BYTES - 1):
                            m.d.sync += [at.eq(0), after.eq(2)]
                            with m.If(self.data_bytes != 0):
                                m.d.sync += after.eq(1)
                        with m.Else():
                            m.d.sync += at.eq(at + 1)
                        m.d.comb += [crc.data.eq(self.header.word_select(at[:3], 8)), crc.valid.eq(1)]
                        m.next = "send"
                    with m.Case(1):
                        m.d.sync += [byte.eq(read.data), at.eq(at + 1)]
                        with m.If(at == self.data_bytes - 1):
                            m.d.sync += [at.eq(0), after.eq(2)]
                        m.d.comb += [crc.data.eq(read.data), crc.valid.eq(1)]
                        m.next = "send"
                    with m.Case(2):
                        m.d.sync += [byte.eq(crc.crc.word_select(~at[0], 8)), at.eq(at + 1)]
                        with m.If(at == CRC_BYTES - 1):
                            m.d.sync += after.eq(3)
                        m.next = "send"
                    with m.Default():
                        m.next = "end"
            with m.State("send"):
                is_special = (byte == END) | (byte == ESC)
                m.d.comb += [self.o.payload.eq(byte), self.o.valid.eq(1)]
                with m.If(is_special):
                    m.d.comb += self.o.payload.eq(ESC)
                with m.If(sent):
                    m.next = "choose"
                    with m.If(is_special):
                        m.next = "escaped"
            with m.State("escaped"):
                m.d.comb += [self.o.payload.eq(ESC_ESC), self.o.valid.eq(1)]
                with m.If(byte == END):
                    m.d.comb += self.o.payload.eq(ESC_END)
                with m.If(sent):
                    m.next = "choose"
            with m.State("end"):
                m.d.comb += [self.o.payload.eq(END), self.o.valid.eq(1)]
                with m.If(sent):
                    m.next = "idle"
        return m
