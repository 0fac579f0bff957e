"""Packets of the load port: a header and its words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hwsim.machine import LOAD_COUNT_BITS, LOAD_TARGETS, LOAD_WORD_BITS


def split_words(record: int, words: int) -> list[int]:
    """Return a record as so many words of the load port, lowest first."""
    mask = (1 << LOAD_WORD_BITS) - 1
    return [record >> (LOAD_WORD_BITS * index) & mask for index in range(words)]


def packet(target: str, words: Sequence[int], records: int) -> NDArray[np.uint32]:
    """Return the packet that loads so many records, given as words, into a target of ``LOAD_TARGETS``."""
    header = LOAD_TARGETS[target] << LOAD_COUNT_BITS | records
    return np.array([header, 0, *words], dtype=np.uint32)


def weights_packet(rows: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the packet that loads the weight memory.

    Parameters
    ----------
    rows : ndarray of uint8, shape (words, weight_word_bits)
        One bit an element.
    """
    count, bits = rows.shape
    padded = np.zeros((count, -(-bits // LOAD_WORD_BITS) * LOAD_WORD_BITS), np.uint8)
    padded[:, :bits] = rows
    words = np.packbits(padded, axis=1, bitorder="little").view("<u4").reshape(-1)
    return np.concatenate([packet("weights", (), count), words.astype(np.uint32)])
