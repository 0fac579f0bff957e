"""Training steps on the CPU in few walks through memory: a layer's BatchNorm, add and quantizers as one operator.

What is computed is what the plain operators in ``quant.layers`` and ``quant.functional`` compute: quantizers are the
same float32 operations in the same order, so that equal real values give equal codes, bit for bit. Sums are taken in
another order, those of BatchNorm and of the scales' gradients: in float32 over 32 terms, in float64 above. They, and
what follows from them, differ from torch's in the last bits.

Under autocast, codes that only convolutions read are kept in bfloat16, as autocast would hand them over; skip codes
are kept in bfloat16 without their scale, which is exact.

The kernels are Numba's and need channels innermost; where Numba is missing the plain operators run.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hwsim import spec
from hwsim.network import FLOOR

TILE_LANES = 512
"""Values that a kernel works on at once, unless a tensor has more channels."""

# Every new type of a kernel's arguments is compiled: what is not there has the type of what could be.
_NOTHING: dict[torch.dtype, NDArray[Any]] = {
    torch.float32: np.zeros((0, 1), np.float32),
    torch.bfloat16: np.zeros((0, 1), np.uint16),
}


@functools.cache
def available() -> bool:
    """Return whether Numba is installed."""
    return importlib.util.find_spec("numba") is not None


@functools.cache
def _kernels() -> ModuleType:
    # Numba's compiler is loaded by those who train, not by everyone who imports quant.
    from quant import kernels

    return kernels


def supports(values: Tensor) -> bool:
    """Return whether activations can be worked on: (n, channels, height, width) on the CPU, channels innermost."""
    return (
        values.dim() == 4
        and values.device.type == "cpu"
        and values.dtype in (torch.float32, torch.bfloat16)
        and values.permute(0, 2, 3, 1).is_contiguous()
    )


def _array(tensor: Tensor) -> NDArray[Any]:
    """Return the memory of a tensor: float32, or uint16 for the bits of bfloat16."""
    if tensor.dtype == torch.bfloat16:
        return tensor.detach().view(torch.int16).numpy().view(np.uint16)
    return tensor.detach().numpy()


def _tiles(tensor: Tensor | None, lanes: int, dtype: torch.dtype = torch.float32) -> NDArray[Any]:
    """Return a tensor as (tiles, lanes), or no tiles of ``dtype``."""
    return _NOTHING[dtype] if tensor is None else _array(tensor).transpose(0, 2, 3, 1).reshape(-1, lanes)


def _lanes(values: Tensor) -> int:
    """Return the lanes of a tile: as many whole pixels as fit and as the tensor's pixels are a multiple of."""
    channels = values.shape[1]
    pixels, count = values.numel() // channels, 1
    while pixels % (2 * count) == 0 and 2 * count * channels <= TILE_LANES:
        count *= 2
    return count * channels


def _channels_innermost(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """A learned scale, a tensor with one element, and the codes ``low .. high`` that it is for."""

    scale: Tensor
    low: int
    high: int


@dataclass(frozen=True)
class Skip:
    """Skip codes that are added: times scale, in float32, or bare, in bfloat16, and their scale then."""

    values: Tensor
    scale: Tensor | None = None


def _limits(quantizer: Quantizer | None) -> tuple[np.float32, np.float32, np.float32]:
    if quantizer is None:
        return np.float32(1), np.float32(0), np.float32(0)
    return np.float32(quantizer.scale.item()), np.float32(quantizer.low), np.float32(quantizer.high)


class _NormaliseAndStore(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        gamma: Tensor,
        beta: Tensor,
        skip: Tensor | None,
        skip_scale: Tensor | None,
        code_scale: Tensor | None,
        norm: nn.BatchNorm2d,
        skip_factor: np.float32,
        limits: tuple[np.float32, ...],
        skip_dtype: torch.dtype,
        code_dtype: torch.dtype,
    ) -> tuple[Tensor | None, Tensor | None]:
        lanes = _lanes(values)
        ctx.lanes, ctx.skip_factor, ctx.limits, ctx.coefficients = lanes, skip_factor, limits, np.empty((4, len(gamma)))
        ctx.skip_dtype, ctx.code_dtype = skip_dtype, code_dtype
        ctx.has_skips, ctx.has_codes = skip_scale is not None, code_scale is not None
        ctx.save_for_backward(values, skip)
        ctx.set_materialize_grads(False)
        skips = torch.empty_like(values, dtype=skip_dtype) if ctx.has_skips else None
        codes = torch.empty_like(values, dtype=code_dtype) if ctx.has_codes else None
        assert norm.running_mean is not None and norm.running_var is not None
        _kernels().normalise_and_store(
            _tiles(values, lanes), _tiles(skip, lanes, skip_dtype), skip_factor, _array(gamma), _array(beta),
            _array(norm.running_mean), _array(norm.running_var), norm.momentum, norm.eps,
            *limits, _tiles(skips, lanes, skip_dtype), _tiles(codes, lanes, code_dtype), ctx.coefficients,
        )  # fmt: skip
        if not np.isfinite(ctx.coefficients).all():
            # Clamping would make a number of what is none, and training would go on.
            for stored in (codes, skips):
                if stored is not None:
                    stored.fill_(torch.nan)
        return codes, skips

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, codes_gradient: Tensor | None, skips_gradient: Tensor | None) -> tuple[Any, ...]:
        values, skip = ctx.saved_tensors
        lanes, channels = ctx.lanes, values.shape[1]
        skip_dtype = ctx.skip_dtype
        arriving_skips = _tiles(_channels_innermost(skips_gradient), lanes, skip_dtype)
        arriving_codes = _tiles(_channels_innermost(codes_gradient), lanes, ctx.code_dtype)
        result = torch.empty_like(values)
        passed = torch.empty_like(values, dtype=skip_dtype) if ctx.has_skips or skip is not None else None
        # Of a bare code to that of its real value.
        arriving_factor = 1 / ctx.limits[0] if skip_dtype == torch.bfloat16 else np.float32(1)
        gradients, scales = torch.empty(2, channels), torch.empty(2)
        _kernels().normalise_and_store_backward(
            _tiles(values, lanes), _tiles(skip, lanes, skip_dtype), ctx.skip_factor, ctx.coefficients, *ctx.limits,
            arriving_skips, arriving_factor, arriving_codes, ctx.has_skips, _tiles(passed, lanes, skip_dtype),
            _tiles(result, lanes), _array(gradients), _array(scales),
        )  # fmt: skip
        return (
            result,
            gradients[0],
            gradients[1],
            None if skip is None else passed,
            scales[0] if ctx.has_skips else None,
            scales[1] if ctx.has_codes else None,
            *(None,) * 5,
        )


class _DoubleRounding(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, scale: Tensor, stored_bits: int, target_bits: int, rule: str, dtype: torch.dtype
    ) -> Tensor:
        floors = rule == FLOOR and target_bits < stored_bits
        low, high = spec.signed_low(target_bits), spec.signed_high(target_bits)
        ctx.arguments = (
            np.float32(spec.signed_low(stored_bits)), np.float32(spec.signed_high(stored_bits)),
            stored_bits - target_bits, floors, np.float32(high),
        )  # fmt: skip
        ctx.limits = np.float32(low), np.float32(high + floors)
        ctx.save_for_backward(weight, scale)
        result = torch.empty_like(weight, dtype=dtype)
        _kernels().double_rounding(_rows(weight), _array(scale), *ctx.arguments, _rows(result))
        return result

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        weight, scale = ctx.saved_tensors
        # Element by element as the weight lies in memory.
        if gradient.stride() != weight.stride():
            gradient = torch.empty_like(weight, dtype=gradient.dtype).copy_(gradient)
        passed, slopes = torch.empty_like(weight), np.empty(len(scale))
        _kernels().double_rounding_backward(
            _rows(weight), _array(scale), *ctx.arguments, *ctx.limits, _rows(gradient), _rows(passed), slopes
        )
        return passed, torch.from_numpy(slopes.astype(np.float32)), None, None, None, None


def _rows(weight: Tensor) -> NDArray[Any]:
    """Return a dense weight as (out, weights of a channel), in the order in which it lies in memory."""
    dense = weight if weight.is_contiguous() else weight.permute(0, 2, 3, 1)
    return _array(dense).reshape(weight.shape[0], -1)


def double_rounding(
    weight: Tensor, scale: Tensor, stored_bits: int, target_bits: int, rule: str, dtype: torch.dtype
) -> Tensor:
    """Return what ``quant.functional.double_rounding`` does, as ``dtype``: float32 or bfloat16.

    Parameters
    ----------
    weight : float32 tensor of shape (out, ...)
        Dense; contiguous, or with the channels innermost.
    scale : float32 tensor of shape (out,), positive
    stored_bits, target_bits : int
        2 <= target_bits <= stored_bits <= 8.
    rule : str
        ``round`` or ``floor``.
    dtype : torch.dtype
    """
    return _DoubleRounding.apply(weight, scale, stored_bits, target_bits, rule, dtype)  # type: ignore[no-any-return,no-untyped-call]


def normalise_and_store(
    values: Tensor,
    norm: nn.BatchNorm2d,
    skip: Skip | None,
    skips: Quantizer | None,
    codes: Quantizer | None,
    *,
    skip_dtype: torch.dtype = torch.float32,
    code_dtype: torch.dtype = torch.float32,
) -> tuple[Tensor | None, Tensor | None]:
    """Return BatchNorm(values) + skip as codes times scale and as skip codes times scale, in training mode.

    Parameters
    ----------
    values : float32 or bfloat16 tensor of shape (n, channels, height, width)
        As :func:`supports` has it.
    norm : BatchNorm2d
        Normalises with the statistics of ``values``, and learns from them.
    skip : Skip or None
        Of the shape of ``values``.
    skips, codes : Quantizer or None
        Of the forms that are stored; the code, whose lowest is 0, is made from the skip code where both are.
    skip_dtype : torch.dtype
        float32: skip codes times scale; bfloat16: bare skip codes, whose gradient is that of a step.
    code_dtype : torch.dtype
        float32, or bfloat16 if only convolutions in bfloat16 read the code.

    Returns
    -------
    (codes, skips) : Tensor or None
    """
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    return _NormaliseAndStore.apply(  # type: ignore[no-any-return,no-untyped-call]
        values,
        norm.weight,
        norm.bias,
        None if skip is None else _channels_innermost(skip.values),
        None if skips is None else skips.scale,
        None if codes is None else codes.scale,
        norm,
        np.float32(1 if skip is None or skip.scale is None else skip.scale.item()),
        (*_limits(skips), *_limits(codes)[::2]),
        skip_dtype,
        code_dtype,
    )
