"""Requests and answers of the host link: one table of numbers for hardware and host, and frames of bytes.

A frame is SLIP (RFC 1055): END, the body with END and ESC escaped, END. The last two bytes of a body are its CRC-16
(CCITT-FALSE, polynomial 0x1021, begins with 0xFFFF, highest byte first), so that the CRC of the whole body is 0.

A request is ``sequence, operation, arguments``; an answer ``sequence, status, broken frames, count (2 bytes), data``.
Numbers of several bytes begin with the lowest. The link answers each whole request, in order, and drops what is
broken without an answer: the host then sends the request again with the same sequence number. A request with the
sequence number of the one before is answered again and not executed again, so that nothing is done twice.

| operation | arguments | data of the answer |
|---|---|---|
| STATUS | | |
| READ | address, 2 bytes | the register's word, 4 bytes |
| WRITE | address, 2 bytes; word, 4 bytes | |
| LOAD | words, 4 bytes each | |
| IMAGE | pixels | |
| IMAGE_END | pixels, the last one an image's last | |
| RESULT | | words, 4 bytes each |

``count`` is the number of bytes of LOAD, IMAGE and IMAGE_END that the machine has taken; if it waited too long for
the machine the rest is dropped, and the host sends it in another request. RESULT waits as long for every word, and
gives what has come.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from enum import IntEnum

END, ESC, ESC_END, ESC_ESC = 0xC0, 0xDB, 0xDC, 0xDD

CRC_BYTES = 2
REQUEST_HEADER_BYTES = 2
ANSWER_HEADER_BYTES = 5

BODY_BYTES_MAX = 2048
"""Of a request, CRC included; one block RAM."""

ARGUMENT_BYTES_MAX = BODY_BYTES_MAX - REQUEST_HEADER_BYTES - CRC_BYTES
ANSWER_WORDS_MAX = 64

SEQUENCES = 256


class Operation(IntEnum):
    """What a request asks for."""

    STATUS = 0
    READ = 1
    WRITE = 2
    LOAD = 3
    IMAGE = 4
    IMAGE_END = 5
    RESULT = 6


ARGUMENT_BYTES = {Operation.STATUS: 0, Operation.READ: 2, Operation.WRITE: 6, Operation.RESULT: 0}
"""Of the operations that take a fixed number."""


class Status(IntEnum):
    """Bits of an answer's status."""

    REFUSED = 0
    """No such operation, or a wrong number of arguments."""
    SLVERR = 1
    """The register answered SLVERR."""
    RESULT_END = 2
    """The last word is the last of an image."""
    INTERRUPT = 3
    """Level of the interrupt line."""


def crc(data: bytes) -> int:
    """Return the CRC-16 of bytes."""
    return binascii.crc_hqx(data, 0xFFFF)


def frame(body: bytes) -> bytes:
    """Return the frame of a body that has no CRC yet."""
    escaped = bytearray([END])
    for byte in body + crc(body).to_bytes(CRC_BYTES, "big"):
        if byte in (END, ESC):
            escaped += bytes([ESC, ESC_END if byte == END else ESC_ESC])
        else:
            escaped.append(byte)
    escaped.append(END)
    return bytes(escaped)


class Deframer:
    """Cuts bytes into bodies and drops broken ones."""

    def __init__(self) -> None:
        self._body = bytearray()
        self._is_escaped = self._is_broken = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the bodies, CRC checked and removed, that end in ``data``."""
        for byte in data:
            if byte == END:
                body = bytes(self._body)
                whole = not (self._is_broken or self._is_escaped) and len(body) > CRC_BYTES and crc(body) == 0
                self.clear()
                if whole:
                    yield body[:-CRC_BYTES]
            elif self._is_escaped:
                self._is_escaped = False
                self._is_broken |= byte not in (ESC_END, ESC_ESC)
                self._body.append(END if byte == ESC_END else ESC)
            elif byte == ESC:
                self._is_escaped = True
            else:
                self._body.append(byte)

    def clear(self) -> None:
        """Forget the frame that has begun."""
        self._body.clear()
        self._is_escaped = self._is_broken = False
