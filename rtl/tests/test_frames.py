# amaranth: UnusedElaboratable=no
"""Frames in hardware against the same frames in Python."""

import random

import pytest

from rtl.board import link_protocol
from rtl.board.frame_receiver import FrameReceiver
from rtl.board.frame_transmitter import FrameTransmitter
from rtl.board.link_protocol import BODY_BYTES_MAX, END, ESC, Deframer, frame
from rtl.tests import simulate
from rtl.tests.mutation import mutant

SPECIAL = [END, ESC, link_protocol.ESC_END, link_protocol.ESC_ESC, 0, 255]


def body(rng, length):
    return bytes(rng.choice(SPECIAL) if rng.random() < 0.5 else rng.randrange(256) for _ in range(length))


def received(component, items, release=True):
    """Play bytes, None for a framing error; return the bodies taken and the number of frames that were broken."""
    bodies, broken = [], 0

    async def step(context):
        nonlocal broken
        broken += context.get(component.broken)
        await context.tick()

    async def process(context):
        for item in [*items, *[...] * 4]:
            context.set(component.valid, isinstance(item, int))
            context.set(component.framing_error, item is None)
            context.set(component.data, item if isinstance(item, int) else 0)
            await step(context)
            context.set(component.valid, 0)
            context.set(component.framing_error, 0)
            await step(context)
            if context.get(component.held) and (release or item is ...):
                taken = bytearray()
                context.set(component.o.ready, 1)
                while context.get(component.left):
                    if context.get(component.o.valid):
                        taken.append(context.get(component.o.payload))
                    await step(context)
                bodies.append(bytes(taken))
                context.set(component.o.ready, 0)
                context.set(component.release, 1)
                await step(context)
                context.set(component.release, 0)

    simulate.run(component, process)
    return bodies, broken


def test_whole_frames_are_taken():
    rng = random.Random(1)
    sent = [body(rng, length) for length in (2, 3, 4, 9, 30, 64)]
    assert received(FrameReceiver(), b"".join(frame(one) for one in sent)) == (sent, 0)


def test_the_longest_body_and_the_next_longer():
    longest = bytes(at % 251 for at in range(BODY_BYTES_MAX - link_protocol.CRC_BYTES))
    assert received(FrameReceiver(), frame(longest)) == ([longest], 0)
    assert received(FrameReceiver(), frame(longest + b"x") + frame(b"next")) == ([b"next"], 1)


GOOD = frame(b"\x07\x01\xc0\xdb\x10")
BROKEN = {
    "framing error": [*GOOD[:4], None, *GOOD[4:]],
    "framing error, then the byte": [*GOOD[:3], None, *GOOD[4:]],
    "flipped": [*GOOD[:2], GOOD[2] ^ 8, *GOOD[3:]],
    "lost": [*GOOD[:2], *GOOD[3:]],
    "truncated": [*GOOD[:5]],
    "wrong escape": [END, 7, 1, ESC, 5, *GOOD[5:]],
    "ends in an escape": [*GOOD[:-1], ESC, END],
    "too short": [*frame(b"\x07")],
    "CRC only": [END, 0xFF, 0xFF, END],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_frame_is_dropped_and_counted(name):
    assert received(FrameReceiver(), [*BROKEN[name], *frame(b"next")]) == ([b"next"], 1)


def test_what_comes_while_a_frame_is_held_is_dropped():
    items = [*frame(b"first"), *frame(b"second"), *frame(b"third")]
    assert received(FrameReceiver(), items, release=False) == ([b"first"], 2)


@pytest.mark.parametrize(
    ("right", "wrong", "name"),
    [
        ("~escaped & crc.match_detected &", "~escaped &", "flipped"),
        ("self.framing_error | (self.valid", "(self.valid", "framing error"),
        ("& (self.data != ESC_END)", "& 0", "wrong escape"),
        ("~bad & ~escaped &", "~bad &", "ends in an escape"),
        ("count >= REQUEST_HEADER_BYTES + CRC_BYTES", "count >= CRC_BYTES", "too short"),
        ("m.d.sync += [bad.eq(0), count.eq(0)]", "m.d.sync += [count.eq(0)]", "framing error"),
    ],
)
def test_a_wrong_receiver_is_caught(right, wrong, name):
    expected = ([b"next"], 1)
    items = [*BROKEN[name], *frame(b"next")]
    if name == "wrong escape":
        # Such a frame has a right CRC if the byte after ESC is taken for ESC_ESC.
        good = frame(b"\x07\x01\xdb")
        items = [*good[:4], 5, *good[5:], *frame(b"next")]
    if name == "ends in an escape":
        # The CRC is right before the ESC.
        items = [*frame(b"ab")[:-1], ESC, END, *frame(b"next")]
    assert received(FrameReceiver(), items) == expected
    assert received(mutant(FrameReceiver, right, wrong)(), items) != expected


def transmitted(component, answers, stall, seed):
    """Send (header, data, times); return the bytes that came."""
    rng = random.Random(seed)
    came = bytearray()

    async def process(context):
        for header, data, times in answers:
            for at, byte in enumerate(data):
                context.set(component.write_address, at)
                context.set(component.write_data, byte)
                context.set(component.write_enable, 1)
                await context.tick()
            context.set(component.write_enable, 0)
            context.set(component.header, int.from_bytes(header, "little"))
            context.set(component.data_bytes, len(data))
            for _ in range(times):
                context.set(component.start, 1)
                await context.tick()
                context.set(component.start, 0)
                while context.get(component.busy):
                    is_ready = rng.random() >= stall
                    context.set(component.o.ready, is_ready)
                    if is_ready and context.get(component.o.valid):
                        came.append(context.get(component.o.payload))
                    await context.tick()

    simulate.run(component, process)
    return bytes(came)


def answers(seed):
    rng = random.Random(seed)
    lengths = (0, 1, 2, 4, 20, 4 * link_protocol.ANSWER_WORDS_MAX)
    return [(body(rng, link_protocol.ANSWER_HEADER_BYTES), body(rng, length), 1 + length % 3) for length in lengths]


@pytest.mark.parametrize("stall", [0.0, 0.6])
def test_answers_are_framed_as_often_as_wanted(stall):
    sent = answers(2)
    expected = [header + data for header, data, times in sent for _ in range(times)]
    came = transmitted(FrameTransmitter(), sent, stall, 3)
    assert came == b"".join(map(frame, expected))
    assert list(Deframer().feed(came)) == expected


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("crc.start.eq(1)", "crc.start.eq(0)"),
        ("word_select(~at[0], 8)", "word_select(at[0], 8)"),
        ("with m.If(byte == END):", "with m.If(byte == ESC):"),
        ("with m.If(at == self.data_bytes - 1):", "with m.If(at == self.data_bytes):"),
    ],
)
def test_a_wrong_transmitter_is_caught(right, wrong):
    sent = answers(2)[:4]
    expected = [header + data for header, data, times in sent for _ in range(times)]
    assert transmitted(mutant(FrameTransmitter, right, wrong)(), sent, 0.0, 3) != b"".join(map(frame, expected))
