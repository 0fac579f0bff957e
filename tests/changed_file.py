"""Copies of a network file with a bit flipped."""

from __future__ import annotations

import json
import struct
from pathlib import Path


def flipped(network: Path, copy: Path, tensor: str, byte: int, bit: int) -> Path:
    """Write ``copy`` as ``network`` with one bit of one byte of one tensor flipped, and return it."""
    data = bytearray(network.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    start, end = json.loads(data[8 : 8 + length])[tensor]["data_offsets"]
    assert byte < end - start
    data[8 + length + start + byte] ^= 1 << bit
    copy.write_bytes(data)
    return copy
