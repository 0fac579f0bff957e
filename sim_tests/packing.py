"""Pack small integers into the wide ports of the hardware, and unpack what was recorded of them."""

from __future__ import annotations

import numpy as np


def pack_bits(bits: np.ndarray) -> np.ndarray:
    """Return (records, n) bits, bit 0 of the port first, as uint8 of shape (records, bytes), lowest byte first."""
    return np.packbits(np.asarray(bits, dtype=np.uint8), axis=1, bitorder="little")


def to_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Return the lowest ``bits`` bits of each integer, lowest first, along a new last axis."""
    return ((np.asarray(values, dtype=np.int64)[..., None] >> np.arange(bits)) & 1).astype(np.uint8)


def pack(values: np.ndarray, bits: int) -> np.ndarray:
    """Return (records, n) integers, each in ``bits`` bits, the first one lowest, as uint8 of (records, bytes)."""
    fields = to_bits(values, bits)
    return pack_bits(fields.reshape(len(fields), -1))


def unpack(words: np.ndarray, bits: int, count: int, signed: bool = False) -> np.ndarray:
    """Return the integers of a wide field, int64 of shape (records, count).

    Parameters
    ----------
    words : ndarray
        What ``wrapper.Recorder.decode`` gives: int64 of (records,), or uint32 of (records, words), lowest first.
    bits : int
        Width of one integer, at most 63.
    count : int
    signed : bool
        Two's complement.
    """
    data = np.ascontiguousarray(words[:, None] if words.ndim == 1 else words)
    size = data.itemsize * data.shape[1]
    flat = np.unpackbits(data.view(np.uint8).reshape(len(data), size), axis=1, bitorder="little")[:, : bits * count]
    weights = 1 << np.arange(bits, dtype=np.int64)
    if signed:
        weights[-1] = -weights[-1]
    return flat.reshape(len(data), count, bits).astype(np.int64) @ weights
