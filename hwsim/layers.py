"""The integer layers: one function for each layer kind, from codes to accumulators (max pooling: to codes).

Every tensor is (images, channels, height, width). Codes are uint8, accumulators int32; whoever builds a program has
checked with ``requantize.accumulator_range`` that no accumulator leaves 32 bits, and these functions check it again.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from hwsim import spec
from hwsim.network import AveragePool2d, Conv2d, Linear, MaxPool2d, WeightLayer

COLUMN_BYTES = 1 << 25
"""Images are unfolded in groups whose im2col matrix stays below this size."""


def accumulate(layer: WeightLayer, weights: NDArray[np.int8], codes: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return the dot products of a convolution or a linear layer.

    Parameters
    ----------
    layer : Conv2d or Linear
    weights : ndarray of int8
        Switched weights in the shape of ``layer.codes`` (``requantize.switched_weights``).
    codes : ndarray of uint8, shape (n, c, h, w)
        Input codes; padding is code 0.

    Returns
    -------
    ndarray of int32, shape (n, out, out_height, out_width); (n, out, 1, 1) for a linear layer

    Raises
    ------
    ValueError
        If an accumulator can leave 32 bits.
    """
    matrix = np.ascontiguousarray(weights.reshape(len(weights), -1), np.int32)
    highest = int(codes.max(initial=0))
    bound = int(np.abs(matrix, dtype=np.int64).sum(axis=1).max()) * highest
    if bound > spec.signed_high(32):
        raise ValueError(f"layer {layer.name}: an accumulator can reach {bound}, and 32 bits are the most")
    if isinstance(layer, Linear):
        kernel, stride, padding = (1, 1), 1, 0
        codes = codes.reshape(len(codes), -1, 1, 1)
    else:
        convolution = cast("Conv2d", layer)
        kernel, stride, padding = convolution.kernel, convolution.stride, convolution.padding
    return _convolve(matrix, _pad(codes, padding), kernel, stride)


def sum_windows(layer: AveragePool2d, codes: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return the sums of codes of every window of an average pooling, int32 (n, c, out_height, out_width)."""
    return _pool(codes, layer.kernel, layer.stride, 0, maximum=False)


def max_windows(layer: MaxPool2d, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the largest code of every window of a max pooling, uint8 (n, c, out_height, out_width)."""
    return _pool(codes, layer.kernel, layer.stride, layer.padding, maximum=True).astype(np.uint8)


def _pad(codes: NDArray[np.uint8], padding: int) -> NDArray[np.uint8]:
    if padding == 0:
        return np.ascontiguousarray(codes)
    return np.pad(codes, ((0, 0), (0, 0), (padding, padding), (padding, padding)))


def _out_size(padded: int, kernel: int, stride: int) -> int:
    return (padded - kernel) // stride + 1


def _convolve(
    matrix: NDArray[np.int32], padded: NDArray[np.uint8], kernel: tuple[int, int], stride: int
) -> NDArray[np.int32]:
    from hwsim import kernels

    images, _, height, width = padded.shape
    out_height, out_width = _out_size(height, kernel[0], stride), _out_size(width, kernel[1], stride)
    channels, taps = matrix.shape
    pixels = out_height * out_width
    group = max(1, COLUMN_BYTES // (4 * taps * pixels))
    out = np.empty((images, channels, out_height, out_width), np.int32)
    for start in range(0, images, group):
        part = padded[start : start + group]
        columns = np.empty((taps, len(part) * pixels), np.int32)
        kernels.unfold(part, kernel[0], kernel[1], stride, out_height, out_width, columns)
        sums = np.empty((channels, columns.shape[1]), np.int32)
        kernels.multiply_accumulate(matrix, columns, sums)
        out[start : start + group] = sums.reshape(channels, len(part), out_height, out_width).swapaxes(0, 1)
    return out


def _pool(
    codes: NDArray[np.uint8], kernel: tuple[int, int], stride: int, padding: int, *, maximum: bool
) -> NDArray[np.int32]:
    from hwsim import kernels

    padded = _pad(codes, padding)
    images, channels, height, width = padded.shape
    shape = (images, channels, _out_size(height, kernel[0], stride), _out_size(width, kernel[1], stride))
    out = np.empty(shape, np.int32)
    kernels.pool_windows(padded, kernel[0], kernel[1], stride, maximum, out)
    return out
