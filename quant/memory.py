"""Memory of training on the CPU: kept by the process instead of handed back to the system after every tensor."""

from __future__ import annotations

import ctypes
import functools
import platform

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Parameters of the C library's ``mallopt``."""


@functools.cache
def keep_freed_memory() -> bool:
    """Make the C library keep what is freed, for the rest of the process, and return whether it does.

    A training step takes and frees hundreds of megabytes; if every large tensor is new memory of the system, which
    comes page by page and cleared, a step takes a tenth longer. Only the GNU C library is known to do this, and has
    the switch; elsewhere nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    sizes = ((MMAP_THRESHOLD, 1 << 30), (TRIM_THRESHOLD, (1 << 31) - 1), (TOP_PAD, 1 << 28))
    taken = [library.mallopt(name, size) == 1 for name, size in sizes]
    return all(taken)
