"""Proofs of the host link: frames, requests and answers keep the rules of their streams and of their memories."""

from __future__ import annotations

from amaranth.hdl import Cat

from rtl.board.frame_receiver import FrameReceiver
from rtl.board.frame_transmitter import FrameTransmitter
from rtl.board.host_link import PATIENCE_CYCLES_MIN, WORD_BYTES, HostLink
from rtl.board.link_protocol import ANSWER_WORDS_MAX, CRC_BYTES
from rtl.proofs.bench import Bench
from rtl.proofs.proof import Mutant, Proof
from rtl.proofs.stream import assume_held, check_held, check_stream

BODY_BYTES, DATA_BYTES = 7, 5
"""What the proved memories hold: no powers of two, so that there are addresses out of range."""


def receiver_keeps_rules(component):
    """Bytes of any value at any time, and errors with them; a frame is released at any time too."""
    bench = Bench(component(BODY_BYTES))
    dut = bench.component
    count, at, fresh = (bench.internal(f"dut.{name}") for name in ("count", "at", "fresh"))
    write, read = bench.view("dut.write"), bench.view("dut.read")
    check_stream(bench, dut.o, "o", withdrawn=dut.release)
    bench.implies(write.en, write.addr < BODY_BYTES, "write address")
    bench.implies(dut.held, read.addr < BODY_BYTES, "read address")
    bench.check(count <= BODY_BYTES, "no more bytes than the memory holds")
    bench.implies(dut.held, ~write.en & (count == 0), "nothing is written where a frame is held")
    bench.implies(dut.held, at + dut.left <= BODY_BYTES - CRC_BYTES, "the bytes taken and left are those of a frame")
    bench.implies(~dut.held, dut.left == 0, "no bytes without a frame")
    bench.implies(dut.held & fresh, read.data == bench.stored("dut.store", at), "the byte at the address")
    return bench


def transmitter_keeps_rules(component):
    """The owner starts, writes and changes what is sent only while nothing is."""
    bench = Bench(component(DATA_BYTES))
    dut = bench.component
    at, after = bench.internal("dut.at"), bench.internal("dut.after")
    write, read = bench.view("dut.write"), bench.view("dut.read")
    bench.assume(~dut.busy | ~(dut.start | dut.write_enable))
    bench.assume(~dut.write_enable | (dut.write_address < DATA_BYTES))
    bench.assume(dut.data_bytes <= DATA_BYTES)
    what = Cat(dut.header, dut.data_bytes)
    bench.assume(~(dut.busy & bench.after(1)) | (what == bench.past(what)))
    check_stream(bench, dut.o, "o")
    bench.implies(write.en, write.addr < DATA_BYTES, "write address")
    bench.implies(dut.busy, read.addr < DATA_BYTES, "read address")
    bench.implies(dut.busy & (after == 0), at < len(dut.header) // 8, "a byte of the header")
    bench.implies(dut.busy & (after == 1), at < dut.data_bytes, "a byte of the data")
    bench.implies(dut.busy & (after == 2), at < CRC_BYTES, "a byte of the CRC")
    bench.implies(dut.busy & (after == 3), at == CRC_BYTES, "after the last byte")
    return bench


def link_keeps_rules(component):
    """Receiver and transmitter are as proved of them, the ports of the AXI form may do anything."""
    bench = Bench(component(PATIENCE_CYCLES_MIN))
    dut = bench.component
    receiver, transmitter = bench.free_outputs("dut.receiver"), bench.free_outputs("dut.transmitter")
    data_bytes, out_of_patience = bench.internal("dut.data_bytes"), bench.internal("dut.out_of_patience")
    assume_held(bench, receiver.o.valid, receiver.o.ready, receiver.o.payload, "request", withdrawn=receiver.release)
    bench.assume(~receiver.o.valid | (receiver.held & (receiver.left != 0)))
    taken = receiver.o.valid & receiver.o.ready
    bench.assume(
        ~bench.past(receiver.held) | bench.past(taken | receiver.release) | (receiver.left == bench.past(receiver.left))
    )
    assume_held(bench, transmitter.o.valid, transmitter.o.ready, transmitter.o.payload, "answer")
    starts = bench.past_reset(transmitter.start, 1)
    bench.assume(~starts | transmitter.busy)
    bench.assume(~bench.past_reset(~transmitter.busy & ~transmitter.start, 1) | ~transmitter.busy)
    bench.assume(bench.after(1) | ~transmitter.busy)

    control = dut.control
    check_stream(bench, dut.o, "o")
    check_held(bench, control.arvalid, control.arready, control.araddr, "read address")
    check_held(bench, control.awvalid, control.awready, control.awaddr, "write address")
    check_held(bench, control.wvalid, control.wready, Cat(control.wdata, control.wstrb), "write data")
    load, image = dut.load, dut.image
    given_up = bench.in_state("dut", "load word") & out_of_patience
    check_held(bench, load.tvalid, load.tready, load.tdata, "load", withdrawn=given_up)
    given_up = bench.in_state("dut", "image") & out_of_patience
    payload = Cat(image.tdata, image.tkeep, image.tlast)
    check_held(bench, image.tvalid, image.tready, payload, "image", withdrawn=given_up)

    bench.implies(~bench.in_state("dut", "idle"), ~transmitter.busy, "a request is served when no answer is sent")
    bench.implies(transmitter.start | transmitter.write_enable, ~transmitter.busy, "nothing is changed that is sent")
    sent = Cat(transmitter.header, transmitter.data_bytes)
    bench.implies(transmitter.busy & bench.past(transmitter.busy), sent == bench.past(sent), "what is sent stays")
    stores = bench.in_state("dut", "store")
    at = bench.internal("dut.at")
    reads = bench.in_state("dut", "read", "read answer")
    bench.implies(reads | bench.in_state("dut", "address"), data_bytes == 0, "nothing is answered yet")
    bench.implies(reads, at == 0, "a word that is read begins an answer")
    bench.implies(transmitter.write_enable, transmitter.write_address == data_bytes, "an answer is written in order")
    bench.implies(stores, data_bytes < WORD_BYTES * ANSWER_WORDS_MAX, "an answer fits the memory")
    bench.implies(stores, data_bytes[:2] == at, "an answer has whole words")
    bench.implies(
        bench.in_state("dut", "result"),
        (at == 0) & (data_bytes[:2] == 0) & (data_bytes < WORD_BYTES * ANSWER_WORDS_MAX),
        "there is room for a word",
    )

    return bench


PROOFS = (
    Proof(
        "board.receiver_keeps_rules",
        f"with a memory of {BODY_BYTES} bytes: the bytes of a frame are held until taken or released and are those "
        "that were stored, nothing is written while a frame is held, and every address is in range",
        FrameReceiver,
        receiver_keeps_rules,
        depth=4,
        mutant_depth=12,
        mutants=(
            Mutant("& ~self.held),", "),"),
            Mutant("write.en.eq(is_byte & (count != self.body_bytes_max))", "write.en.eq(is_byte)"),
            Mutant("self.left.eq(self.left - 1), fresh.eq(0)]", "self.left.eq(self.left - 1)]"),
        ),
    ),
    Proof(
        "board.transmitter_keeps_rules",
        f"with a memory of {DATA_BYTES} bytes: the stream of a framed answer holds valid and payload until taken, and "
        "every address is in range",
        FrameTransmitter,
        transmitter_keeps_rules,
        depth=3,
        mutant_depth=30,
        mutants=(
            Mutant(
                "m.d.comb += [self.o.payload.eq(byte), self.o.valid.eq(1)]",
                "m.d.comb += [self.o.payload.eq(byte), self.o.valid.eq(~self.o.ready)]",
            ),
            Mutant("with m.If(at == self.data_bytes - 1):", "with m.If(at == self.data_bytes):"),
        ),
    ),
    Proof(
        "board.link_keeps_rules",
        "the host link holds valid and payload of its AXI4-Lite requests and of its answer until taken, of a program "
        "or an image until taken or out of patience; what is sent is not changed, and an answer fits its memory",
        HostLink,
        link_keeps_rules,
        depth=4,
        mutant_depth=14,
        mutants=(
            Mutant("with m.If(control.awready):", "with m.If(1):"),
            Mutant("self.load.tvalid.eq(1)", "self.load.tvalid.eq(~self.load.tready)"),
            Mutant("receiver.held & ~transmitter.busy", "receiver.held"),
            Mutant(
                "at == WORD_BYTES - 1):\n                    m.d.", "at == WORD_BYTES - 2):\n                    m.d."
            ),
        ),
    ),
)
