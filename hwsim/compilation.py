"""Numba's compilation cache, keyed by every source that a kernel is made from.

Numba recompiles a cached kernel when the file that holds it changes. Ours call ``spec`` and one another across files:
a kernel compiled under an older arithmetic must never be found, so the digest of all those sources is in the key.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

SOURCES = ("spec.py", "compilation.py", "tiles.py", "fused.py")
"""Files of this package whose functions are compiled."""


@functools.cache
def sources_digest(folder: Path = Path(__file__).parent) -> str:
    """Return the SHA-256 of the sources that kernels are made from."""
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()


class SourcesCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache of a function, void when any of ``SOURCES`` changed."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=(self._impl.locator.get_source_stamp(), sources_digest()),
        )


def compiled(function: Callable[..., Any]) -> Any:
    """Return a function compiled by Numba without the interpreter's lock, and cached on disk (a decorator)."""
    dispatcher = numba.njit(nogil=True)(function)
    dispatcher._cache = SourcesCache(function)
    return dispatcher


def borrowing(function: Callable[..., Any]) -> Any:
    """Return an inner function compiled by Numba that allocates nothing and counts no references (a decorator).

    Its arrays belong to the compiled function that calls it. To count references to them takes longer than to
    requantize a tile.
    """
    return numba.njit(nogil=True, _nrt=False)(function)
