# amaranth: UnusedElaboratable=no
"""Images cut from frames of any shape, against a model on bytes."""

import random

import pytest

from rtl.bus.image_unpacker import BEAT_BYTES, ImageUnpacker
from rtl.tests import simulate
from rtl.tests.mutation import mutant


def random_frame(rng, length, holes):
    """Return ``length`` bytes as beats (data, keep, last), with bytes that are not there in between."""
    content = [rng.randrange(256) for _ in range(length)]
    slots = []
    for byte in content:
        while rng.random() < holes:
            slots.append(None)
        slots.append(byte)
    while rng.random() < holes or len(slots) % BEAT_BYTES or not slots:
        slots.append(None)
    beats = []
    for start in range(0, len(slots), BEAT_BYTES):
        beat = slots[start : start + BEAT_BYTES]
        data = sum((rng.randrange(256) if byte is None else byte) << 8 * at for at, byte in enumerate(beat))
        keep = sum((byte is not None) << at for at, byte in enumerate(beat))
        beats.append((data, keep, int(start + BEAT_BYTES == len(slots))))
    return content, beats


def play(component, image_bytes, frames, pause, seed):
    """Send frames; return the bytes that came, the indices of image ends among them, errors and cycles."""
    rng = random.Random(seed)
    beats = [beat for _, frame in frames for beat in frame]
    received, ends = [], []
    counts = {"errors": 0, "cycles": 0}

    async def process(context):
        context.set(component.image_bytes, image_bytes)
        i, o = component.i, component.o
        waiting, held, quiet = None, None, 0
        queue = list(beats)
        while quiet < 30:
            if waiting is None and queue and rng.random() >= pause:
                waiting = queue.pop(0)
            before = context.get(i.tready)
            context.set(i.tvalid, waiting is not None)
            if waiting is not None:
                for name, value in zip(("tdata", "tkeep", "tlast"), waiting, strict=True):
                    context.set(getattr(i, name), value)
            assert context.get(i.tready) == before, "TREADY must not follow the stream within a cycle"
            is_ready = rng.random() >= pause
            context.set(o.ready, is_ready)
            is_valid, payload = context.get(o.valid), context.get(o.payload)
            assert held is None or (is_valid and payload == held)
            held = payload if is_valid and not is_ready else None
            if is_valid and is_ready:
                received.append(payload)
            if context.get(component.image_end):
                assert is_valid and is_ready
                ends.append(len(received))
            counts["errors"] += context.get(component.size_error)
            if waiting is not None and context.get(i.tready):
                waiting = None
            quiet = 0 if is_valid or waiting is not None or queue else quiet + 1
            counts["cycles"] += 1
            assert counts["cycles"] < 10_000, "the stream hangs"
            await context.tick()

    simulate.run(component, process)
    return received, ends, counts["errors"], counts["cycles"] - 30


def expected(image_bytes, frames):
    """Return bytes and errors as the rule says."""
    received, errors = [], 0
    for content, _ in frames:
        received += content
        missing = -len(received) % image_bytes
        received += [0] * missing
        errors += missing > 0
    return received, errors


def check(component, seed, pause, holes, lengths):
    rng = random.Random(seed)
    image_bytes = rng.choice((1, 3, 4, 9, 16))
    frames = [random_frame(rng, lengths(rng, image_bytes), holes) for _ in range(30)]
    received, ends, errors, cycles = play(component, image_bytes, frames, pause, seed)
    wanted, wrong_frames = expected(image_bytes, frames)
    assert received == wanted
    assert errors == wrong_frames
    assert ends == list(range(image_bytes, len(wanted) + 1, image_bytes))
    return len(wanted), len(frames), cycles, errors


def whole(rng, image_bytes):
    return image_bytes * rng.choice((1, 1, 2, 3))


def anything(rng, image_bytes):
    return rng.randrange(3 * image_bytes)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("lengths", [whole, anything])
@pytest.mark.parametrize(("pause", "holes"), [(0.0, 0.0), (0.4, 0.0), (0.4, 0.5)])
def test_images_are_cut_as_the_rule_says(seed, lengths, pause, holes):
    _, _, _, errors = check(ImageUnpacker(8), seed, pause, holes, lengths)
    assert lengths is anything or errors == 0


def test_a_byte_a_cycle_and_a_cycle_more_for_each_frame():
    count, frames, cycles, _ = check(ImageUnpacker(8), 3, 0.0, 0.0, whole)
    # One cycle to take the first beat; the cycles that end the last frame are quiet.
    assert cycles <= 1 + count + 2 * frames


def test_nothing_is_taken_before_a_program_is_loaded():
    component = ImageUnpacker(8)

    async def process(context):
        context.set(component.i.tvalid, 1)
        context.set(component.i.tkeep, 15)
        context.set(component.o.ready, 1)
        for _ in range(10):
            assert context.get(component.i.tready) == 0 and context.get(component.o.valid) == 0
            await context.tick()

    simulate.run(component, process)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("pads.eq(last & ~has_byte & (count != 0))", "pads.eq(last & (count != 0))"),
        ("emptied.eq(~last & (", "emptied.eq(("),
        ("in reversed(range(BEAT_BYTES))", "in range(BEAT_BYTES)"),
        ("pads & ~padded", "pads"),
        ("has_byte.eq(pending.any())", "has_byte.eq(pending[0])"),
        ("last.eq(self.i.tlast)", "last.eq(0)"),
    ],
)
def test_a_wrong_unpacker_is_caught(right, wrong):
    with pytest.raises(AssertionError):
        check(mutant(ImageUnpacker, right, wrong)(8), 1, 0.4, 0.5, anything)
