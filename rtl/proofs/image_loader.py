"""Proofs of the image ring: no window is laid out where one is that has not been read."""

from __future__ import annotations

from amaranth.hdl import Cat, Mux, Signal

from rtl.image_loader import ImageLoader
from rtl.proofs.bench import Bench
from rtl.proofs.descriptors import product, valid_image
from rtl.proofs.machine import SMALL
from rtl.proofs.proof import Mutant, Proof


def keeps_windows(component):
    """Images of any geometry; windows are released after they have been laid out, images begin when they are ready."""
    bench = Bench(component(SMALL))
    dut = bench.component
    taken, laid, images_ahead = (bench.internal(f"dut.{name}") for name in ("taken", "laid", "images_ahead"))
    geometry = dut.geometry
    bench.assume_constant(geometry.as_value())
    bench.assume((geometry.windows_held >= 1) & (geometry.windows_held <= SMALL.image_words))
    bench.assume(geometry.height >= 1)
    bench.assume(~dut.strip_release | (dut.strip_pixels <= laid))
    # An image takes more than a cycle.
    bench.assume(~dut.image_start | (dut.image_ready & ~bench.past_reset(dut.image_start, 1)))
    # Every image that waits holds a window or more.
    bench.assume(images_ahead <= SMALL.image_words)

    on_the_way = sum(bench.signal(f"dut.ends_window_{cycle}") for cycle in range(1, ImageLoader.WRITE_CYCLES + 1))
    lays_out = bench.in_state("dut", "LAY OUT")
    bench.check(taken == laid + on_the_way + lays_out, "a window is being laid out, on its way, or there to be read")
    bench.check(taken <= geometry.windows_held, "no more windows than the ring holds")
    rows = [bench.signal(f"dut.rows_received_{half}") for half in range(2)]
    received = [bench.signal(f"dut.half_{half}_received") for half in range(2)]
    receives, rows_left = bench.internal("dut.receive_half"), bench.signal("dut.rows_left")
    before_image, is_loaded = bench.signal("dut.before_image"), bench.signal("dut.is_loaded_2")
    bench.implies(is_loaded, bench.signal("dut.rows_is_last") == (rows_left == 1), "the last row is known")
    layout_half, half_is_free = bench.internal("dut.layout_half"), bench.signal("dut.half_is_free")
    bench.check(half_is_free == ~Mux(receives, received[1], received[0]), "what is free is known")
    bench.implies(received[0] & received[1], receives == layout_half, "halves come and go in turn")
    bench.implies(received[0] ^ received[1], receives != layout_half, "halves come and go in turn")
    bench.implies(~received[0] & ~received[1], receives == layout_half, "halves come and go in turn")
    for half in range(2):
        bench.check(rows[half] <= geometry.height, "no more rows than an image has")
        bench.implies(received[half], rows[half] == geometry.height, "an image that has been received is whole")
        bench.implies((receives != half) & ~received[half], rows[half] == 0, "an image comes into one half")
        bench.implies(
            (receives == half) & ~received[half] & is_loaded,
            (rows_left >= 1) & (rows[half] + rows_left == geometry.height),
            "the rows to come and those that are here are an image",
        )
        bench.implies((receives == half) & received[half], before_image, "nothing comes where no half is free")
    bench.implies(before_image & is_loaded, rows_left == geometry.height, "a new image has all its rows to come")
    bench.implies(~is_loaded, before_image, "nothing comes before the geometry")
    bench.implies(dut.image_ready, images_ahead >= 0, "the image after one that is being laid out is not ready")
    bench.check(images_ahead >= -1, "no more than one image runs before it is laid out")

    # Images that have been received and not begun.
    waiting = Signal(4)
    bench.m.d.sync += waiting.eq(waiting + receives_last(bench) - dut.image_start)
    bench.check(waiting == images_ahead + received[0] + received[1], "images that wait")
    bench.implies(dut.image_start, waiting != 0, "an image that begins has been received")
    return bench


def receives_last(bench):
    """Return whether the last byte of an image is taken."""
    loops = [bench.view(f"dut.{name}") for name in ("channels", "columns", "rows")]
    return bench.component.i.valid & bench.component.i.ready & Cat(loop.is_last for loop in loops).all()


def counts_bytes(component):
    """Images of any size that fits, whatever the pace at which they come and are laid out."""
    bench = Bench(component(SMALL))
    m, dut = bench.m, bench.component
    geometry, most = dut.geometry, SMALL.raw_image_words * SMALL.image_channels
    bench.assume_constant(geometry.as_value())
    bench.assume(valid_image(SMALL, geometry))
    count = Signal.like(geometry.image_bytes, name="bytes")
    taken, ends = dut.i.valid & dut.i.ready, receives_last(bench)
    with m.If(taken):
        m.d.sync += count.eq(Mux(ends, 0, count + 1))
    is_loaded, before_image = bench.signal("dut.is_loaded_2"), bench.signal("dut.before_image")
    done = {}
    for name, turns in (("channels", geometry.channels), ("columns", geometry.width), ("rows", geometry.height)):
        loop = bench.view(f"dut.{name}")
        bench.implies(bench.after(1), loop.is_single == (turns == 1), f"whether {name} are single is known")
        bench.implies(is_loaded, (loop.left >= 1) & (loop.left <= turns), f"{name} left")
        bench.implies(is_loaded, loop.is_last == (loop.left == 1), f"the last of {name} is known")
        bench.implies(is_loaded & before_image, loop.left == turns, f"an image begins with all its {name}")
        done[name] = (turns - loop.left)[: len(turns)]
    bench.implies(~is_loaded, before_image, "nothing comes before the geometry")
    row_bytes = product(geometry.width, geometry.channels, most)
    in_row = product(done["columns"], geometry.channels, most) + done["channels"]
    bench.implies(is_loaded, count == product(done["rows"], row_bytes, most) + in_row, "bytes of an image")
    bench.implies(~is_loaded, count == 0, "no bytes before the geometry")
    bench.implies(taken, ends == (count == geometry.image_bytes - 1), "an image ends with its last byte")
    return bench


PROOFS = (
    Proof(
        "image_loader.keeps_windows",
        "the image ring: never more windows than it holds, each laid out once before it can be read and released, "
        "whatever the images and the pace at which they come and go",
        ImageLoader,
        keeps_windows,
        depth=3,
        mutant_depth=30,
        mutants=(
            Mutant("taken != geometry.windows_held", "laid != geometry.windows_held"),
            Mutant("m.d.comb += begins_window.eq(has_room)", "m.d.comb += begins_window.eq(1)"),
            Mutant("self.i.ready.eq(is_loaded & half_is_free)", "self.i.ready.eq(is_loaded)"),
            Mutant("((images_ahead == 0) & enough)", "enough"),
        ),
    ),
    Proof(
        "image_loader.counts_bytes",
        f"of images of up to {SMALL.raw_image_words} bytes: one ends with its byte number image_bytes, as the image "
        "unpacker has it, whatever rows, columns and channels it has",
        ImageLoader,
        counts_bytes,
        depth=3,
        mutant_depth=12,
        mutants=(
            Mutant("m.d.sync += columns.step_or_begin()", "m.d.sync += columns.step()"),
            Mutant("*channels.step_or_begin()]", "*channels.begin()]"),
        ),
    ),
)
