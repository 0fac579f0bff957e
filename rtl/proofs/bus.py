"""Proofs of the bus adapters: what they offer stays offered, and images and answers are counted right."""

from __future__ import annotations

from itertools import pairwise

from amaranth.hdl import Cat, Mux, Signal

from rtl.bus import register_map
from rtl.bus.axi_accelerator import AxiAccelerator
from rtl.bus.image_unpacker import ImageUnpacker
from rtl.bus.register_file import RegisterFile
from rtl.proofs.bench import Bench
from rtl.proofs.machine import SMALL
from rtl.proofs.proof import Mutant, Proof
from rtl.proofs.stream import assume_held, check_held, check_stream

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


def accelerator_keeps_queues(component):
    """The machine inside is cut: it may do anything that has been proved of it."""
    bench = Bench(component(SMALL))
    m, dut = bench.m, bench.component
    machine = bench.free_outputs("dut.work.accelerator")
    is_reset = bench.part("dut.registers").reset_machine
    image_done, result_end, images_waiting, results_waiting = (
        bench.internal(f"dut.{name}") for name in ("image_done", "result_end", "images_waiting", "results_waiting")
    )

    # Commands are taken while it is idle. An image that runs has been received, one that ends has room for its result,
    # and results are sent after they have been made.
    runs, ends = Signal(), bench.any_value(1, "ends")
    images, results = Signal(3), Signal(3)
    begins = machine.run.valid & machine.run.ready
    received = bench.part("dut.work.unpacker").image_end
    sent = machine.result.valid & machine.result.ready & machine.result.payload.last
    m.d.sync += [
        runs.eq((runs | begins) & ~ends),
        images.eq(images + received - ends),
        results.eq(results + ends - sent),
    ]
    with m.If(is_reset):
        m.d.sync += [runs.eq(0), images.eq(0), results.eq(0)]
    bench.assume((machine.busy == runs) & (machine.run.ready == ~runs) & machine.load.ready)
    bench.assume(~ends | (runs & (images != 0) & (results != 2)))
    bench.assume(~machine.result.valid | (results != 0))
    result = machine.result
    assume_held(bench, result.valid, result.ready, result.payload, "logit", withdrawn=is_reset)
    # A program is loaded while nothing runs.
    bench.assume_constant(machine.image_bytes)

    payload = Cat(dut.result.tdata, dut.result.tlast)
    check_held(bench, dut.result.tvalid, dut.result.tready, payload, "result", withdrawn=is_reset)
    check_stream(bench, machine.run, "run", withdrawn=is_reset)
    check_stream(bench, machine.image, "image", withdrawn=is_reset)
    bench.check(results <= 2, "no more results than there are halves")
    bench.check(images_waiting == images + image_done, "images received are counted")
    bench.check(results_waiting + image_done == results, "results made are counted")
    bench.implies(received, images_waiting != register_map.IMAGES_WAITING_MAX, "no more images than can be counted")
    bench.implies(image_done, images_waiting != 0, "no fewer images than none")
    bench.implies(image_done, results_waiting != register_map.RESULTS_WAITING_MAX, "no more results than are counted")
    bench.implies(result_end, (results_waiting != 0) | image_done, "no fewer results than none")
    check_queue(bench, is_reset)
    loads = dut.load.tvalid & dut.load.tready
    bench.implies(loads, ~machine.busy & ~machine.run.valid, "a program is loaded while nothing runs or waits")
    return bench


def check_queue(bench, is_reset):
    """The queue of commands beside a list of those that have been accepted and not taken."""
    m, depth = bench.m, register_map.COMMAND_QUEUE_DEPTH
    queue, stored = "dut.work.commands", depth - 1
    level, inner_level, consume, produce = (
        bench.internal(f"{queue}.{name}") for name in ("level", "inner_level", "consume", "produce")
    )
    registers, run = bench.part("dut.registers"), bench.part("dut.work.accelerator").run
    accepted, taken = registers.run_write, run.valid & run.ready
    commands = [Signal.like(run.payload, name=f"command_{index}") for index in range(depth)]
    waiting = Signal(range(depth + 1))
    m.d.sync += waiting.eq(waiting + accepted - taken)
    with m.If(taken):
        m.d.sync += [before.eq(after) for before, after in pairwise(commands)]
    for index, command in enumerate(commands):
        with m.If(accepted & (waiting - taken == index)):
            m.d.sync += command.eq(registers.run_slot)
        bench.implies(waiting > index, command < SMALL.layer_slots, "a command names a slot that there is")
    with m.If(is_reset):
        m.d.sync += waiting.eq(0)

    bench.check(level == waiting, "commands are counted")
    bench.implies(accepted, waiting != depth, "no command is accepted that has no place")
    bench.implies(taken, waiting != 0, "no command is taken that is not there")
    bench.implies(run.valid, run.payload == commands[0], "commands are taken in order")
    bench.check((consume < stored) & (produce < stored), "addresses")
    bench.check((inner_level <= stored) & (inner_level + run.valid == waiting), "all but the first are in the memory")
    bench.check(produce == wrapped(consume + inner_level, stored), "written where there is room")
    for index in range(stored):
        word = bench.stored(f"{queue}.storage", wrapped(consume + index, stored))
        expected = Mux(run.valid, commands[index + 1], commands[index])
        bench.implies(inner_level > index, word == expected, f"command {index} in the memory")


def wrapped(address, depth):
    """Return an address below ``2 * depth`` as it is in a ring of ``depth`` words."""
    return Mux(address >= depth, address - depth, address)


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
    Proof(
        "bus.accelerator_keeps_queues",
        "the AXI form, its machine cut: commands are accepted only where there is a place and for a slot that there "
        "is, and reach the machine in order; images and results that wait are counted without over- or underflow; "
        "the streams of commands, of image bytes and of results hold valid and payload until taken",
        AxiAccelerator,
        accelerator_keeps_queues,
        depth=3,
        mutant_depth=14,
        mutants=(
            Mutant("has_room.eq(images_waiting != register_map.IMAGES_WAITING_MAX)", "has_room.eq(1)"),
            Mutant("image_done.eq(was_busy & ~accelerator.busy)", "image_done.eq(~accelerator.busy)"),
            Mutant("commands.w_rdy & (registers.run_slot < machine.layer_slots)", "commands.w_rdy"),
            Mutant("commands.r_en.eq(accelerator.run.ready)", "commands.r_en.eq(1)"),
            Mutant("unpacker.o.valid & has_room", "unpacker.o.valid & has_room & ~unpacker.i.tvalid"),
        ),
    ),
)
