"""Frames of the host link in Python."""

import random

import pytest

from rtl.board import link_protocol
from rtl.board.link_protocol import END, ESC, Deframer, crc, frame

CHECK = 0x29B1
"""The CRC of b"123456789" in the catalogues."""


def bodies(seed, count=200):
    rng = random.Random(seed)
    alphabet = [END, ESC, link_protocol.ESC_END, link_protocol.ESC_ESC, 0, 1, 255]
    return [bytes(rng.choice(alphabet) for _ in range(rng.randrange(1, 40))) for _ in range(count)]


def test_the_crc_is_the_one_that_is_named():
    assert crc(b"123456789") == CHECK
    assert all(crc(body + crc(body).to_bytes(2, "big")) == 0 for body in bodies(1))


def test_every_body_comes_back_whatever_the_cuts():
    sent = bodies(2)
    line = b"".join(frame(body) for body in sent)
    rng = random.Random(3)
    deframer, received, at = Deframer(), [], 0
    while at < len(line):
        part = line[at : at + rng.randrange(1, 9)]
        received += deframer.feed(part)
        at += len(part)
    assert received == sent


def test_end_is_only_at_the_ends():
    for body in bodies(4):
        framed = frame(body)
        assert framed[0] == framed[-1] == END and END not in framed[1:-1]


@pytest.mark.parametrize("kind", ["flip", "lose", "cut"])
def test_a_broken_frame_is_dropped_and_the_next_one_is_not(kind):
    rng = random.Random(5)
    after = frame(b"after")
    for body in bodies(6):
        framed = bytearray(frame(body))
        at = rng.randrange(1, len(framed) - 1)
        if kind == "flip":
            framed[at] ^= 1 << rng.randrange(8)
        elif kind == "lose":
            del framed[at]
        else:
            del framed[at:]
        # A CRC of 16 bits misses one in 65,536; none of these.
        assert list(Deframer().feed(bytes(framed) + after)) == [b"after"]


def test_arguments_fill_a_body():
    assert link_protocol.ARGUMENT_BYTES_MAX % 4 == 0
    header = link_protocol.REQUEST_HEADER_BYTES + link_protocol.CRC_BYTES
    assert link_protocol.ARGUMENT_BYTES_MAX + header == link_protocol.BODY_BYTES_MAX
