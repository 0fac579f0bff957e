"""Takes packed images from AXI4-Stream and gives their bytes one by one."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hwsim import spec
from rtl.bus.axi import DATA_BITS, Axi4StreamSignature

BEAT_BYTES = DATA_BITS // 8


class ImageUnpacker(wiring.Component):
    """Cuts a stream of bytes into images.

    A beat holds up to four bytes, the lowest first; a byte whose TKEEP bit is low is not there. Every ``image_bytes``
    bytes are an image, wherever in a beat it begins. TLAST must come with the last byte of an image, but not with
    that of every image: a frame is one image or several. If TLAST comes in the middle of an image, the image is
    completed with zeros and ``size_error`` tells. Nothing is taken before a program has been loaded.

    Throughput: a byte a cycle, and a cycle more for each TLAST.

    Parameters
    ----------
    image_bytes_bits : int
        Width of ``image_bytes``.

    Members
    -------
    image_bytes : In
        Bytes of an image, 0 if not known yet; constant while images are received.
    i : In(Axi4StreamSignature(keep=True, last=True))
    o : Out(stream.Signature(8))
    image_end : Out(1)
        The last byte of an image has been taken, one cycle.
    size_error : Out(1)
        TLAST came too early, one cycle.
    """

    def __init__(self, image_bytes_bits: int):
        super().__init__(
            {
                "image_bytes": In(image_bytes_bits),
                "i": In(Axi4StreamSignature(keep=True, last=True)),
                "o": Out(stream.Signature(spec.IMAGE_BITS)),
                "image_end": Out(1),
                "size_error": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        data, pending, last = Signal(DATA_BITS), Signal(BEAT_BYTES), Signal()
        count = Signal.like(self.image_bytes)
        has_byte, one_left, pads, padded = Signal(), Signal(), Signal(), Signal()
        taken, emptied = Signal(), Signal()
        without_lowest = pending & (pending - 1)[:BEAT_BYTES]
        m.d.comb += [
            has_byte.eq(pending.any()),
            one_left.eq(~without_lowest.any()),
            pads.eq(last & ~has_byte & (count != 0)),
            taken.eq(self.o.valid & self.o.ready),
            # A beat with TLAST stays until its image is whole.
            emptied.eq(~last & (~has_byte | (one_left & taken))),
            self.o.valid.eq(has_byte | pads),
            self.i.tready.eq(emptied & (self.image_bytes != 0)),
            self.size_error.eq(pads & ~padded),
            self.image_end.eq(taken & (count == self.image_bytes - 1)),
        ]
        m.d.sync += padded.eq(pads)
        for index in reversed(range(BEAT_BYTES)):
            with m.If(pending[index]):
                m.d.comb += self.o.payload.eq(data.word_select(index, 8))
        with m.If(taken):
            m.d.sync += [pending.eq(without_lowest), count.eq(Mux(self.image_end, 0, count + 1))]
        with m.If(last & ~has_byte & (count == 0)):
            m.d.sync += last.eq(0)
        with m.If(self.i.tvalid & self.i.tready):
            m.d.sync += [data.eq(self.i.tdata), pending.eq(self.i.tkeep), last.eq(self.i.tlast)]
        return m
