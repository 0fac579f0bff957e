"""Proofs of the bus adapters: what they offer stays offered, and images and answers are counted right."""

from __future__ import annotations

from amaranth.hdl import Cat, Signal

from rtl.bus import register_map
from rtl.bus.image_unpacker import ImageUnpacker
from rtl.bus.register_file import RegisterFile
from rtl.proofs.bench import Bench
from rtl.proofs.proof import Mutant, Proof
from rtl.proofs.stream import check_held, check_stream

IMAGE_BYTES_BITS = 4


def unpacker_keeps_rules(component):
    bench = Bench(component(IMAGE_BYTES_BITS))
    dut = bench.component
    count, pending, last = (bench.internal(f"dut.{name}") for name in ("count", "pending", "last"))
    bench.assume_constant(dut.image_bytes)
    check_stream(bench, dut.o, "o")
    known = dut.image_bytes != 0
    bench.implies(known, count < dut.image_bytes, "no more bytes than an image has")
    bench.implies(~known, (count == 0) & (pending == 0) & ~last & ~dut.o.valid, "nothing before a program")
    taken = dut.o.valid & dut.o.ready
    bench.implies(dut.image_end, taken & (count == dut.image_bytes - 1), "an image ends with its last byte")
    bench.implies(taken & (count == dut.image_bytes - 1), dut.image_end, "with its last byte an image ends")
    bench.implies(dut.i.tready, (pending == 0) | taken, "no beat is taken before the one before has left")
    return bench


def registers_keep_rules(component):
    bench = Bench(component(register_map.REGISTERS))
    m, bus = bench.m, bench.component.bus
    check_held(bench, bus.bvalid, bus.bready, bus.bresp, "write answer")
    check_held(bench, bus.rvalid, bus.rready, Cat(bus.rdata, bus.rresp), "read answer")

    # As many answers as requests, never one too early.
    for name, accepted, answered, answer in (
        ("read", bus.arvalid & bus.arready, bus.rvalid & bus.rready, bus.rvalid),
        ("write address", bus.awvalid & bus.awready, bus.bvalid & bus.bready, bus.bvalid),
        ("write data", bus.wvalid & bus.wready, bus.bvalid & bus.bready, bus.bvalid),
    ):
        open_requests = Signal(3, name=f"open_{name.replace(' ', '_')}")
        m.d.sync += open_requests.eq(open_requests + accepted - answered)
        bench.implies(answer, open_requests != 0, f"{name}: no answer without a request")
        held = {
            "read": 0,
            "write address": bench.internal("dut.has_address"),
            "write data": bench.internal("dut.has_data"),
        }
        bench.check(open_requests == answer + held[name], f"{name}: requests are answered, one for one")
    return bench


PROOFS = (
    Proof(
        "bus.image_unpacker_keeps_rules",
        "the stream of image bytes holds valid and payload until taken; images have exactly image_bytes bytes whatever "
        "TKEEP and TLAST say; no beat is lost or overwritten",
        ImageUnpacker,
        unpacker_keeps_rules,
        depth=4,
        mutant_depth=10,
        mutants=(
            Mutant("self.o.valid.eq(has_byte | pads)", "self.o.valid.eq((has_byte & ~self.i.tvalid) | pads)"),
            Mutant("(one_left & taken)", "one_left"),
            Mutant("count.eq(Mux(self.image_end, 0, count + 1))", "count.eq(count + 1)"),
        ),
    ),
    Proof(
        "bus.register_file_keeps_rules",
        "AXI4-Lite answers hold valid and payload until taken, and every read and every write is answered exactly once",
        RegisterFile,
        registers_keep_rules,
        depth=3,
        mutant_depth=8,
        mutants=(
            Mutant("bus.arready.eq(~bus.rvalid)", "bus.arready.eq(1)"),
            Mutant("writes.eq(has_address & has_data & ~bus.bvalid)", "writes.eq(has_address & has_data)"),
        ),
    ),
)
