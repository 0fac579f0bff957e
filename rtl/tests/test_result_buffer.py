"""Results of two images have room at once, leave in order, and only their last logit is marked."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator

from hwsim import spec
from hwsim.machine import Machine
from hwsim.precision import CATALOG
from rtl.result_buffer import ResultBuffer
from rtl.tests.mutation import mutant

CLASSES = 5
MACHINE = Machine(weight_widths=CATALOG["8"], activation_widths=CATALOG["8"], requantizers=2, result_words=3)
IMAGES = 7


def run(kind: type, taken_from: int, seed: int) -> tuple[list[tuple[int, int]], list[list[int]], list[int]]:
    """Fill a buffer whenever it is free, and take from it from a cycle on.

    Returns
    -------
    tuple
        (logit, mark) as they were taken, the logits of each image, and the images done in each cycle.
    """
    rng = random.Random(seed)
    images = [[rng.getrandbits(spec.LOGIT_BITS) for _ in range(CLASSES)] for _ in range(IMAGES)]
    buffer = kind(MACHINE)
    taken: list[tuple[int, int]] = []
    done: list[int] = []

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        ctx.set(buffer.classes, CLASSES)
        image, word = 0, 0
        for cycle in range(400):
            # An image writes its words only while a half is free, as the sequencer sees to.
            writes = image < IMAGES and ctx.get(buffer.free)
            ctx.set(buffer.write_enable, writes)
            ctx.set(buffer.done, writes and word == 2)
            if writes:
                pair = [*images[image], 0][2 * word : 2 * word + 2]
                ctx.set(buffer.write_address, word)
                ctx.set(buffer.write_data, pair[0] | pair[1] << spec.LOGIT_BITS)
                image, word = (image + 1, 0) if word == 2 else (image, word + 1)
            takes = cycle >= taken_from and rng.random() < 0.6
            ctx.set(buffer.o.ready, takes)
            if takes and ctx.get(buffer.o.valid):
                value, last = ctx.get(buffer.o.payload.value), ctx.get(buffer.o.payload.last)
                taken.append((value & (1 << spec.LOGIT_BITS) - 1, last))
            await ctx.tick()
            done.append(image)

    simulator = Simulator(buffer)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return taken, images, done


def check(kind: type) -> None:
    taken, images, done = run(kind, taken_from=50, seed=1)
    assert taken == [(value, at == CLASSES - 1) for image in images for at, value in enumerate(image)]
    assert done[49] == 2, "two results wait, and no third is begun"


def test_two_results_wait_and_all_leave_in_order() -> None:
    check(ResultBuffer)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("self.free.eq(used != 2)", "self.free.eq(used == 0)"),
        ("self.free.eq(used != 2)", "self.free.eq(1)"),
        ("word + Mux(read_half, words, 0)", "word"),
        ("last.eq(logits.is_last)", "last.eq(logits.left == 2)"),
    ],
)
def test_a_wrong_buffer_is_caught(right: str, wrong: str) -> None:
    with pytest.raises(AssertionError):
        check(mutant(ResultBuffer, right, wrong))
