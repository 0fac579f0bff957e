"""How the engine multiplies: three backends behind one interface, all exact.

``numba`` (the default) keeps codes, products and accumulators in one compiled kernel. ``numpy`` unfolds windows and
calls BLAS, in float32 where the real weights bound every partial sum below 2**24 and in float64 otherwise: sums of
integers are exact there, in whatever order (set OPENBLAS_NUM_THREADS=1 to have the engine's threads around it).
``torch`` calls PyTorch's product of uint8 by int8, if it is installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hwsim import spec
from hwsim.plan import Step

COLUMN_BYTES = 1 << 19
"""Windows are unfolded in pieces of this size, to stay in a core's cache."""


class Backend(Protocol):
    """What the engine asks of a backend."""

    name: str
    threads: int | None
    """Groups of images at a time: None for one a core, 1 where the library below uses all cores itself."""

    def kernel(self, row_pitch: int, rows: int, row_bytes: int) -> NDArray[np.int64]:
        """Return the shape of a kernel as ``convolve`` wants it."""

    def pack(self, rows: NDArray[np.int8], bound: int) -> Any:
        """Return weights (out, kernel rows, bytes of a kernel row) as ``convolve`` wants them.

        ``bound`` is the highest accumulator less the lowest one, of any channel: no partial sum is larger in size.
        """

    def convolve(self, step: Step, codes: NDArray[np.uint8], images: int, stored: tuple[NDArray[Any], ...]) -> None:
        """Make the output of a convolution. ``stored``: skips, code_out, skip_out, logits_out (see ``fused``)."""

    def session(self) -> AbstractContextManager[None]:
        """Return what surrounds a run: threads of the library below that would fight with ours are off within."""


class NumbaBackend:
    """Tiles of byte products, requantized while they are in the cache."""

    name = "numba"
    threads: int | None = None

    def session(self) -> AbstractContextManager[None]:
        """Return nothing special."""
        return nullcontext()

    def kernel(self, row_pitch: int, rows: int, row_bytes: int) -> NDArray[np.int64]:
        """Return (row pitch, rows, runs of ``RUN_BYTES``)."""
        from hwsim.tiles import RUN_BYTES

        return np.array([row_pitch, rows, -(-row_bytes // RUN_BYTES)])

    def pack(self, rows: NDArray[np.int8], bound: int) -> NDArray[np.int8]:
        """Return the weights block after block, each in order (row, group of four bytes, channel, byte)."""
        from hwsim.tiles import BLOCK_CHANNELS, LANES, RUN_BYTES

        out, height, row_bytes = rows.shape
        filled = np.zeros((-(-out // LANES) * LANES, height, -(-row_bytes // RUN_BYTES) * RUN_BYTES), np.int8)
        filled[:out, :, :row_bytes] = rows
        blocks = [filled[start : start + BLOCK_CHANNELS] for start in range(0, len(filled), BLOCK_CHANNELS)]
        return np.concatenate(
            [block.reshape(len(block), height, -1, 4).transpose(1, 2, 0, 3).ravel() for block in blocks]
        )

    def convolve(self, step: Step, codes: NDArray[np.uint8], images: int, stored: tuple[NDArray[Any], ...]) -> None:
        """Run ``fused.convolve``."""
        from hwsim import fused

        fused.convolve(
            codes,
            step.weights,
            step.group_shape(images),
            step.source,
            step.kernel,
            step.target,
            step.table,
            step.code_table,
            step.limits,
            *stored,
        )


class _UnfoldingBackend:
    """Unfolds windows in pieces, multiplies matrices, requantizes the sums."""

    threads: int | None = None

    def session(self) -> AbstractContextManager[None]:
        """Return nothing special."""
        return nullcontext()

    def kernel(self, row_pitch: int, rows: int, row_bytes: int) -> NDArray[np.int64]:
        """Return (row pitch, rows, bytes of a kernel row)."""
        return np.array([row_pitch, rows, row_bytes])

    def multiply(self, columns: NDArray[Any], weights: Any) -> NDArray[Any]:
        """Return (pixels, channels) sums of (pixels, taps) columns."""
        raise NotImplementedError

    def column_dtype(self, weights: Any) -> Any:
        """Return the type of the numbers that ``multiply`` wants."""
        raise NotImplementedError

    def convolve(self, step: Step, codes: NDArray[np.uint8], images: int, stored: tuple[NDArray[Any], ...]) -> None:
        """Unfold, multiply and requantize piece after piece."""
        from hwsim import fused

        shape = step.group_shape(images)
        pixels, taps = int(shape[:3].prod()), int(step.kernel[1] * step.kernel[2])
        dtype = np.dtype(self.column_dtype(step.weights))
        piece = max(64, COLUMN_BYTES // (taps * dtype.itemsize))
        columns = np.empty((min(piece, pixels), taps), dtype)
        for first in range(0, pixels, piece):
            part = columns[: min(piece, pixels - first)]
            fused.unfold(codes, shape, step.source, step.kernel, first, part)
            sums = self.multiply(part, step.weights)
            fused.store_sums(sums, first, shape, step.target, step.table, step.code_table, step.limits, *stored)


class NumpyBackend(_UnfoldingBackend):
    """BLAS in the narrowest floating point that the real weights prove exact."""

    name = "numpy"

    def __init__(self) -> None:
        # NumPy cannot be told how many threads its BLAS may use: two levels of threads would fight for the cores.
        single = "1" in (os.environ.get("OPENBLAS_NUM_THREADS"), os.environ.get("OMP_NUM_THREADS"))
        self.threads = None if single else 1

    def pack(self, rows: NDArray[np.int8], bound: int) -> NDArray[Any]:
        """Return (taps, out) float32 if no partial sum reaches 2**24, float64 otherwise."""
        dtype = np.float32 if bound < 2 ** (np.finfo(np.float32).nmant + 1) else np.float64
        return np.ascontiguousarray(rows.reshape(len(rows), -1).T, dtype)

    def column_dtype(self, weights: Any) -> Any:
        """Return the weights' type."""
        return weights.dtype

    def multiply(self, columns: NDArray[Any], weights: Any) -> NDArray[Any]:
        """Return the product."""
        return np.matmul(columns, weights)


class TorchBackend(_UnfoldingBackend):
    """PyTorch's product of uint8 by int8 matrices with int32 sums.

    Raises
    ------
    ValueError
        If PyTorch is not installed, or its product saturates on this processor.
    """

    name = "torch"

    def __init__(self) -> None:
        try:
            import torch
        except ImportError:
            raise ValueError("the torch backend needs PyTorch, which is not installed") from None
        self._torch = torch
        # Processors without VNNI add pairs of products in 16 bits, which these operands overflow.
        codes = torch.full((32, 64), spec.unsigned_high(8), dtype=torch.uint8)
        weights = torch.full((64, 32), spec.signed_low(8), dtype=torch.int8)
        if not bool((torch._int_mm(codes, weights) == 64 * 255 * -128).all()):
            raise ValueError("the torch backend is not exact here: PyTorch's product of bytes saturates")

    @contextmanager
    def session(self) -> Iterator[None]:
        """Let every product run in the thread that asks for it."""
        before = self._torch.get_num_threads()
        self._torch.set_num_threads(1)
        try:
            yield
        finally:
            self._torch.set_num_threads(before)

    def pack(self, rows: NDArray[np.int8], bound: int) -> Any:
        """Return the weights as a tensor (taps, out)."""
        return self._torch.from_numpy(np.ascontiguousarray(rows.reshape(len(rows), -1).T))

    def column_dtype(self, weights: Any) -> Any:
        """Return uint8."""
        return np.uint8

    def multiply(self, columns: NDArray[Any], weights: Any) -> NDArray[Any]:
        """Return the product."""
        product: NDArray[Any] = self._torch._int_mm(self._torch.from_numpy(columns), weights).numpy()
        return product


BACKENDS: dict[str, Callable[[], Backend]] = {"numba": NumbaBackend, "numpy": NumpyBackend, "torch": TorchBackend}
"""Name -> backend. A new one is a class and an entry here."""


def make_backend(name: str) -> Backend:
    """Return the backend called ``name``.

    Raises
    ------
    ValueError
        If there is none of that name, or it cannot run here.
    """
    if name not in BACKENDS:
        raise ValueError(f"the backend must be one of {', '.join(BACKENDS)}, not {name!r}")
    return BACKENDS[name]()
