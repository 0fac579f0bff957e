"""Executes requests of the host on the ports of the AXI form."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.board.frame_receiver import FrameReceiver
from rtl.board.frame_transmitter import FrameTransmitter
from rtl.board.link_protocol import ANSWER_WORDS_MAX, ARGUMENT_BYTES, Operation
from rtl.bus import register_map
from rtl.bus.axi import DATA_BITS, Axi4LiteSignature, Axi4StreamSignature, Response
from rtl.checks import check_count

WORD_BYTES = DATA_BITS // 8
PATIENCE_CYCLES_MIN, PATIENCE_CYCLES_MAX = 16, 1 << 30


class HostLink(wiring.Component):
    """Answers every whole request, see ``rtl.board.link_protocol``; one at a time.

    TVALID of ``load`` and ``image`` falls without TREADY when the patience ends, which AXI forbids: only for
    components that take a word in the cycle of TREADY and otherwise ignore TVALID, as ``AxiAccelerator`` does. It must:
    the answer has told the host that the word was not taken, so a word still offered would come twice. Every other
    valid is held until it is taken, which ``rtl.proofs.board`` proves.

    Parameters
    ----------
    patience_cycles : int
        How long the machine may take for one word, 16 .. 2**30. A request takes up to this longer, never for ever.

    Members
    -------
    data, valid, framing_error : In
        As ``UartReceiver`` gives them.
    o : Out(stream.Signature(8))
        Frames of answers.
    control, load, image, result, interrupt
        Counterparts of those of ``AxiAccelerator``.
    answered : Out(1)
        An answer begins, one cycle.
    broken : Out(1)
        A broken frame was dropped, one cycle.
    """

    def __init__(self, patience_cycles: int):
        self.patience_cycles = check_count(
            patience_cycles, PATIENCE_CYCLES_MIN, PATIENCE_CYCLES_MAX, "cycles of patience"
        )
        super().__init__(
            {
                "data": In(8),
                "valid": In(1),
                "framing_error": In(1),
                "o": Out(stream.Signature(8)),
                "control": Out(Axi4LiteSignature(register_map.ADDRESS_BITS)),
                "load": Out(Axi4StreamSignature()),
                "image": Out(Axi4StreamSignature(keep=True, last=True)),
                "result": In(Axi4StreamSignature(last=True)),
                "interrupt": In(1),
                "answered": Out(1),
                "broken": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver = receiver = FrameReceiver()
        m.submodules.transmitter = transmitter = FrameTransmitter()
        control, request = self.control, receiver.o
        m.d.comb += [
            receiver.data.eq(self.data),
            receiver.valid.eq(self.valid),
            receiver.framing_error.eq(self.framing_error),
            self.broken.eq(receiver.broken),
            self.o.payload.eq(transmitter.o.payload),
            self.o.valid.eq(transmitter.o.valid),
            transmitter.o.ready.eq(self.o.ready),
        ]

        # The answer stays until the next request, which may be the same one again.
        sequence, has_answered = Signal(8), Signal()
        refused, slverr, result_end, interrupt = Signal(), Signal(), Signal(), Signal()
        broken_frames, taken, data_bytes = Signal(8), Signal(16), Signal.like(transmitter.data_bytes)
        status = Cat(refused, slverr, result_end, interrupt)
        m.d.comb += [
            transmitter.header.eq(Cat(sequence, status, Const(0, 4), broken_frames, taken)),
            transmitter.data_bytes.eq(data_bytes),
            transmitter.write_address.eq(data_bytes),
        ]
        broken_count = Signal(8)
        with m.If(receiver.broken):
            m.d.sync += broken_count.eq(broken_count + 1)

        operation, address, word, at = Signal(8), Signal(16), Signal(DATA_BITS), Signal(range(WORD_BYTES))
        waited = Signal(range(self.patience_cycles))
        out_of_patience = waited == self.patience_cycles - 1
        with m.FSM():
            with m.State("idle"):
                with m.If(receiver.held & ~transmitter.busy):
                    m.next = "sequence"
            with m.State("sequence"):
                m.d.comb += request.ready.eq(1)
                with m.If(request.valid):
                    m.d.sync += sequence.eq(request.payload)
                    m.next = "operation"
                    with m.If(has_answered & (sequence == request.payload)):
                        m.next = "answer"
            with m.State("operation"):
                m.d.comb += request.ready.eq(1)
                m.d.sync += [refused.eq(0), slverr.eq(0), result_end.eq(0), taken.eq(0), data_bytes.eq(0)]
                m.d.sync += [operation.eq(request.payload), at.eq(0), waited.eq(0)]
                with m.If(request.valid):
                    m.next = "refuse"
                    arguments = receiver.left - 1
                    with m.Switch(request.payload):
                        for each, count in ARGUMENT_BYTES.items():
                            with m.Case(each):
                                with m.If(arguments == count):
                                    m.next = {"STATUS": "done", "RESULT": "result"}.get(each.name, "address")
                        with m.Case(Operation.LOAD):
                            with m.If(arguments[:2] == 0):
                                m.next = "load"
                        with m.Case(Operation.IMAGE, Operation.IMAGE_END):
                            m.next = "image"
            with m.State("refuse"):
                m.d.sync += refused.eq(1)
                m.next = "done"

            with m.State("address"):
                m.d.comb += request.ready.eq(1)
                with m.If(request.valid):
                    m.d.sync += [address.eq(Cat(address[8:], request.payload)), at.eq(at + 1)]
                    with m.If(at == 1):
                        m.d.sync += at.eq(0)
                        m.next = "write word"
                        with m.If(operation == Operation.READ):
                            m.next = "read"
            with m.State("read"):
                m.d.comb += control.arvalid.eq(1)
                with m.If(control.arready):
                    m.next = "read answer"
            with m.State("read answer"):
                m.d.comb += control.rready.eq(1)
                m.d.sync += [word.eq(control.rdata), slverr.eq(control.rresp != Response.OKAY)]
                with m.If(control.rvalid):
                    m.next = "store"
            with m.State("write word"):
                m.d.comb += request.ready.eq(1)
                with m.If(request.valid):
                    m.d.sync += [word.eq(Cat(word[8:], request.payload)), at.eq(at + 1)]
                    with m.If(at == WORD_BYTES - 1):
                        m.next = "write address"
            with m.State("write address"):
                m.d.comb += control.awvalid.eq(1)
                with m.If(control.awready):
                    m.next = "write data"
            with m.State("write data"):
                m.d.comb += control.wvalid.eq(1)
                with m.If(control.wready):
                    m.next = "write answer"
            with m.State("write answer"):
                m.d.comb += control.bready.eq(1)
                m.d.sync += slverr.eq(control.bresp != Response.OKAY)
                with m.If(control.bvalid):
                    m.next = "done"

            with m.State("load"):
                m.d.comb += request.ready.eq(1)
                m.d.sync += waited.eq(0)
                with m.If(request.valid):
                    m.d.sync += [word.eq(Cat(word[8:], request.payload)), at.eq(at + 1)]
                    with m.If(at == WORD_BYTES - 1):
                        m.d.sync += at.eq(0)
                        m.next = "load word"
                with m.Elif(receiver.left == 0):
                    m.next = "done"
            with m.State("load word"):
                m.d.comb += self.load.tvalid.eq(1)
                m.d.sync += waited.eq(waited + 1)
                with m.If(self.load.tready):
                    m.d.sync += taken.eq(taken + WORD_BYTES)
                    m.next = "load"
                with m.Elif(out_of_patience):
                    m.next = "done"

            with m.State("image"):
                m.d.comb += [self.image.tvalid.eq(request.valid), request.ready.eq(self.image.tready)]
                m.d.sync += waited.eq(waited + 1)
                with m.If(request.valid & self.image.tready):
                    m.d.sync += [taken.eq(taken + 1), waited.eq(0)]
                with m.Elif((receiver.left == 0) | out_of_patience):
                    m.next = "done"

            with m.State("result"):
                m.d.comb += self.result.tready.eq(1)
                m.d.sync += [waited.eq(waited + 1), word.eq(self.result.tdata), result_end.eq(self.result.tlast)]
                with m.If(self.result.tvalid):
                    m.d.sync += waited.eq(0)
                    m.next = "store"
                with m.Elif(out_of_patience):
                    m.d.sync += result_end.eq(0)
                    m.next = "done"
            with m.State("store"):
                m.d.comb += [transmitter.write_enable.eq(1), transmitter.write_data.eq(word[:8])]
                m.d.sync += [word.eq(word >> 8), at.eq(at + 1), data_bytes.eq(data_bytes + 1)]
                with m.If(at == WORD_BYTES - 1):
                    m.d.sync += at.eq(0)
                    m.next = "result"
                    is_full = data_bytes == WORD_BYTES * ANSWER_WORDS_MAX - 1
                    with m.If((operation == Operation.READ) | result_end | is_full):
                        m.next = "done"

            with m.State("done"):
                m.d.sync += [has_answered.eq(1), interrupt.eq(self.interrupt), broken_frames.eq(broken_count)]
                m.next = "answer"
            with m.State("answer"):
                m.d.comb += [receiver.release.eq(1), transmitter.start.eq(1), self.answered.eq(1)]
                m.next = "idle"

        m.d.comb += [
            control.araddr.eq(address),
            control.awaddr.eq(address),
            control.wdata.eq(word),
            control.wstrb.eq(~0),
            self.load.tdata.eq(word),
            self.image.tdata.eq(request.payload),
            self.image.tkeep.eq(1),
            self.image.tlast.eq((operation == Operation.IMAGE_END) & (receiver.left == 1)),
        ]
        return m
