"""Proofs of the image ring: no window is laid out where one is that has not been read."""

from __future__ import annotations

from rtl.image_loader import ImageLoader
from rtl.leaves.memory import TwoCycleMemory
from rtl.proofs.bench import Bench
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
    bench.assume(~dut.image_start | dut.image_ready)
    # Every image that waits holds a window or more.
    bench.assume(images_ahead <= SMALL.image_words)

    on_the_way = sum(bench.signal(f"dut.ends_window_{cycle}") for cycle in range(1, TwoCycleMemory.LATENCY + 1))
    lays_out = bench.in_state("dut", "LAY OUT")
    bench.check(taken == laid + on_the_way + lays_out, "a window is being laid out, on its way, or there to be read")
    bench.check(taken <= geometry.windows_held, "no more windows than the ring holds")
    for half in range(2):
        bench.check(bench.signal(f"dut.rows_received_{half}") <= geometry.height, "no more rows than an image has")
    bench.implies(dut.image_ready, images_ahead >= 0, "the image after one that is being laid out is not ready")
    bench.check(images_ahead >= -1, "no more than one image runs before it is laid out")
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
            Mutant("self.i.ready.eq(rows_received != geometry.height)", "self.i.ready.eq(1)"),
            Mutant("(images_ahead == 0) & ", ""),
        ),
    ),
)
