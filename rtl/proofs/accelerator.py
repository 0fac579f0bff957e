"""Proofs of what the engines of the machine promise each other: nobody uses a buffer that is not there.

The whole accelerator, with the descriptors cut: a layer may be anything, but stays what it is while engines work on it.
"""

from __future__ import annotations

from amaranth.hdl import Signal, Value

from hwsim.machine import ACCUMULATOR_ARRIVAL_CYCLES
from rtl.accelerator import Accelerator
from rtl.activation_streamer import ActivationStreamer
from rtl.drain import Drain, output_latency
from rtl.image_loader import ImageLoader
from rtl.leaves.memory import TwoCycleMemory
from rtl.proofs.bench import Bench
from rtl.proofs.machine import SMALL
from rtl.proofs.proof import Mutant, Proof
from rtl.requantizer import Requantizer
from rtl.sequencer import Sequencer
from rtl.weight_feeder import WeightFeeder


def total(values) -> Value:
    """Return how many of the bits are set."""
    return sum(Value.cast(value) for value in values)


def keeps_banks(component):
    """Accumulator banks: taken by the streamer, ready after the last word of a job, released by the drain."""
    bench = Bench(component(SMALL))
    layer = bench.free("dut.sequencer.layer")
    m, dut = bench.m, bench.component
    used, ready, job_ends = (bench.internal(f"dut.{name}") for name in ("used", "ready", "job_ends"))
    streamer, drain = bench.part("dut.activation_streamer"), bench.part("dut.drain")
    ends = bench.view("dut.activation_streamer.step").ends_job
    running, this_pass = (bench.view(f"dut.activation_streamer.{name}") for name in ("running", "this_pass"))
    first_plane, first_step = (bench.internal(f"dut.weight_feeder.{name}") for name in ("first_plane", "first_step"))

    # Tiles and layers may come at any time, logits too: more than the machine ever does.
    bench.free("dut.weight_feeder.tile_ready")
    bench.free("dut.sequencer.layer_start")
    feeds = ~bench.in_state("dut.weight_feeder", "IDLE")
    bench.assume((layer.passes >= 1) & (layer.passes <= 8))
    # A layer stays what it is from a cycle before it begins.
    starts = bench.part("dut.sequencer").layer_start
    bench.assume(~(bench.past(feeds | starts) | starts) | (layer.passes == bench.past(layer.passes)))
    bench.assume(bench.after(2) | ~starts)

    # A job is open from its first pass to its last word; then it travels through array and accumulator.
    open_job = Signal()
    with m.If(streamer.bank_take):
        m.d.sync += open_job.eq(1)
    with m.Elif(ends):
        m.d.sync += open_job.eq(0)
    travelling, begin = bench.delay_line(job_ends[0])
    assert len(travelling) == streamer.LATENCY + dut.array.LATENCY + dut.accumulator.LATENCY
    bench.check(begin == ends, "a bank is ready as soon as its last word can be read")
    bench.check(used == ready + total(travelling) + open_job, "a bank is used by one job, until it is released")
    bench.check(used <= 2, "no more banks used than there are")
    bench.implies(streamer.bank_take, used != 2, "a bank that is taken is free")
    bench.implies(drain.bank_release, ready != 0, "a bank that is released is ready")
    drains = bench.in_state("dut.drain", "BEGIN GROUP", "READ TABLE", "TABLE ARRIVES", "STREAM")
    bench.implies(drains, ready != 0, "a bank that is drained is ready")

    planes_left = bench.signal("dut.weight_feeder.planes_left")
    planes_are_last = bench.signal("dut.weight_feeder.planes_is_last")
    bench.implies(feeds, planes_are_last == (planes_left == 1), "the last plane is known")
    bench.implies(feeds, (planes_left >= 1) & (planes_left <= layer.passes), "planes left")
    bench.implies(feeds, first_plane == (planes_left == layer.passes), "first plane")

    # Which pass comes next, and why no job begins within another.
    begins_job = first_plane & first_step
    ending = running & this_pass.last_of_job
    bench.implies(running, open_job, "only open jobs run")
    pass_ready = bench.internal("dut.weight_feeder.ready")
    bench.check(pass_ready == bench.in_state("dut.weight_feeder", "READY"), "a pass is ready in that state")
    # The feeder goes on to the next pass in the cycle after one has been taken.
    goes_on = bench.in_state("dut.weight_feeder", "NEXT")
    ends_job = planes_are_last & bench.internal("dut.weight_feeder.window_ended")
    waits = bench.in_state("dut.weight_feeder", "WAIT TILE")
    bench.implies(waits, first_plane & (~open_job | ending), "a tile begins with a job")
    bench.implies(
        feeds & ~goes_on & ~waits,
        begins_job == (~open_job | ending),
        "a job begins when the one before is over, or ending",
    )
    bench.implies(goes_on, running & open_job & (this_pass.last_of_job == ends_job), "the pass that was taken runs")
    bench.implies(~feeds, ~open_job | ending, "no job is left open")
    bench.implies(streamer.bank_take, ~open_job, "no job begins within another")

    # The bank that is written and the bank that is drained.
    write_bank = bench.internal("dut.activation_streamer.accumulator_bank")
    drain_bank = bench.internal("dut.drain.bank")
    finished = ready + total(travelling)
    bench.check(write_bank == drain_bank ^ finished[0], "banks take turns")
    bench.implies(running & drains, write_bank != drain_bank, "nothing is written where it is drained")
    return bench


def keeps_barriers(component):
    """An image runs when it is there and its result has a place, and not otherwise."""
    bench = Bench(component(SMALL))
    bench.free("dut.sequencer.layer")
    # A descriptor may take any time to fetch, an image any geometry, and a bank may always be ready.
    bench.free("dut.sequencer.words_left")
    bench.free("dut.image_loader.geometry")
    bench.free("dut.drain.bank_ready")
    # The image loader's geometry is kept, and strips are released before the layer that reads the image has
    # been drained.
    bench.assume_constant(bench.view("dut.image_loader.geometry").as_value())
    works_on_strips = bench.in_state("dut.sequencer", "LAYER") & ~bench.in_state("dut.drain", "IDLE", "SETTLE")
    bench.assume(~bench.part("dut.activation_streamer").image_release | works_on_strips)
    # Proved of the image loader: windows are laid out once, in a ring that holds them.
    laid = bench.internal("dut.image_loader.laid")
    on_the_way = [
        bench.signal(f"dut.image_loader.ends_window_{cycle + 1}") for cycle in range(ImageLoader.WRITE_CYCLES)
    ]
    lays_out = bench.in_state("dut.image_loader", "LAY OUT")
    bench.assume(laid + total(on_the_way) + lays_out <= SMALL.image_words)
    # Every image that waits holds a window or more.
    bench.assume(bench.internal("dut.image_loader.images_ahead") <= SMALL.image_words)
    sequencer, drain, pool = (bench.part(f"dut.{name}") for name in ("sequencer", "drain", "max_pool"))
    results, images = bench.internal("dut.result_buffer.used"), bench.part("dut.image_loader")

    works = bench.in_state("dut.sequencer", "FETCH", "START", "LAYER")
    in_layer = bench.in_state("dut.sequencer", "LAYER")
    bench.check(results <= 2, "no more result halves used than there are")
    bench.implies(~bench.in_state("dut.result_buffer", "IDLE"), results != 0, "only what is there is sent")
    bench.implies(sequencer.result_done, results != 2, "a result that is done has its half")
    bench.implies(works, results != 2, "a result half is kept free while an image runs")
    bench.implies(sequencer.image_start, images.image_ready & ~works, "an image begins when it is there")
    bench.implies(sequencer.image_release, works, "an image that is over has run")

    # Engines work only within a layer, one of them at a time, and logits arrive before it is done.
    drains, pools = ~bench.in_state("dut.drain", "IDLE"), ~bench.in_state("dut.max_pool", "IDLE")
    bench.check(in_layer == (drains | pools), "a layer lasts as long as its engine works")
    bench.check(~(drains & pools), "one engine at a time")
    bench.implies(drain.done, drains, "drain done")
    bench.implies(pool.done, pools, "pool done")
    stages = [f"arrived_{cycle}" for cycle in range(1, TwoCycleMemory.LATENCY + ACCUMULATOR_ARRIVAL_CYCLES + 1)]
    stages += [f"first_{cycle}" for cycle in range(1, Requantizer.LATENCY + 1)]
    settle = bench.signal("dut.drain.settle_left")
    settles = bench.in_state("dut.drain", "SETTLE")
    for stage, name in enumerate(stages, start=1):
        valid = bench.signal(f"dut.drain.{name}")[0]
        bench.implies(
            valid, drains & (~settles | (settle > output_latency() + 1 - stage)), f"written in time, stage {stage}"
        )
    bench.implies(settles, (settle >= 1) & (settle <= output_latency() + 1), "settle")
    bench.implies(settles, bench.signal("dut.drain.settle_is_last") == (settle == 1), "the last cycle is known")
    bench.implies(drain.result_enable, in_layer & (results != 2), "logits are written to a half that is free")
    return bench


PROOFS = (
    Proof(
        "accelerator.keeps_banks",
        "the two accumulator banks: taken only when free, ready only when their last word is stored, drained and "
        "released only when ready, never written while they are drained; whatever the layers",
        Accelerator,
        keeps_banks,
        depth=3,
        mutant_depth=24,
        mutants=(
            Mutant("streamer.bank_free.eq(used != 2)", "streamer.bank_free.eq(1)"),
            Mutant("drain.bank_ready.eq(ready != 0)", "drain.bank_ready.eq(used != 0)"),
            Mutant(
                "self.pass_ready & ~running & self.bank_free", "self.pass_ready & self.bank_free", ActivationStreamer
            ),
            Mutant("m.d.sync += first_step.eq(0)", "m.d.sync += first_step.eq(first_step)", WeightFeeder),
        ),
    ),
    Proof(
        "accelerator.keeps_barriers",
        "images and the two result halves: an image begins only when it is ready and a result half is free, which "
        "stays so until it is done, and logits are written within that time; whatever the layers",
        Accelerator,
        keeps_barriers,
        depth=3,
        mutant_depth=24,
        mutants=(
            Mutant("is_open.eq(self.image_ready & self.result_free)", "is_open.eq(self.result_free)", Sequencer),
            Mutant("self.start & ~layer.is_max_pool", "self.start", Drain),
            Mutant("settle.begin(output_latency() + 1)", "settle.begin(1)", Drain),
        ),
    ),
)
