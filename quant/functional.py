"""Differentiable twins of the arithmetic in ``hwsim.spec``, on float tensors that hold integers.

Every forward value is the integer of ``hwsim.spec`` times a scale; the tests prove it exhaustively. The backward pass
is the straight-through estimator with learned scales (LSQ), see each operator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwsim import spec
from hwsim.network import FLOOR, ROUND

HALF_EVEN = "half-even"
"""A rule for comparisons in training only."""

BIPOLAR_LIMITS = (-2, 2)
"""Range of a bipolar weight, in its steps: each sign stands for half of the stored range, which is four steps wide."""


def round_half_up(values: Tensor) -> Tensor:
    """Return ``floor(values + 1/2)``: round to nearest, ties toward +infinity (``torch.round`` rounds ties to even)."""
    return round_half_up_(values.clone())


def round_half_up_(values: Tensor) -> Tensor:
    """Round ``values`` in place as :func:`round_half_up`, and return them."""
    return values.add_(0.5).floor_()


def per_channel(vector: Tensor, like: Tensor) -> Tensor:
    """Return ``vector`` of shape (out,) reshaped to broadcast along the first dimension of ``like``."""
    return vector.reshape(-1, *(1,) * (like.dim() - 1))


def weight_codes(weight: Tensor, scale: Tensor, stored_bits: int) -> Tensor:
    """Return the stored codes of a weight: Double Rounding's first rounding (eq. 1), ties toward +infinity.

    Parameters
    ----------
    weight : float tensor of shape (out, ...)
    scale : float tensor of shape (out,)
        Real value of one step of the stored code; positive.
    stored_bits : int

    Returns
    -------
    float tensor of the weight's shape
        Integers of -2**(stored_bits - 1) .. 2**(stored_bits - 1) - 1.
    """
    codes = round_half_up_(weight / per_channel(scale, weight))
    return codes.clamp_(spec.signed_low(stored_bits), spec.signed_high(stored_bits))


def switch_codes(codes: Tensor, stored_bits: int, target_bits: int, rule: str = ROUND) -> Tensor:
    """Return stored codes switched to ``target_bits``, by a rule of ``hwsim.network.SWITCH_RULES``.

    ``round`` is the second rounding (eq. 2), equal to ``spec.switch``; ``floor`` equals ``spec.switch_floor``.
    ``half-even`` breaks ties as the released code of the paper does; no hardware has it, so that it cannot be exported.
    """
    if target_bits == 1:
        return bipolar_codes(codes)
    if target_bits == stored_bits:
        return codes
    shift = stored_bits - target_bits
    # Multiplying by a power of two is exact, so these floors are arithmetic shifts.
    if rule == FLOOR:
        return torch.floor(codes * 2.0**-shift)
    if rule == HALF_EVEN:
        return torch.round(codes * 2.0**-shift).clamp_(max=spec.signed_high(target_bits))
    switched = torch.floor((codes + float(1 << (shift - 1))) * 2.0**-shift)
    return switched.clamp_(max=spec.signed_high(target_bits))


def bipolar_codes(values: Tensor) -> Tensor:
    """Return -1 where ``values`` are negative and +1 elsewhere, zero included: ``spec.switch`` at 1 bit."""
    return torch.where(values >= 0, 1.0, -1.0).to(values.dtype)


def activation_codes(values: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """Return ``clamp(floor(values / scale + 1/2), low, high)`` as a float tensor of integers (eq. 4)."""
    return round_half_up_(values / scale).clamp_(low, high)


class _DoubleRounding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, stored_bits: int, target_bits: int, rule: str) -> Tensor:
        codes = switch_codes(weight_codes(weight, scale, stored_bits), stored_bits, target_bits, rule)
        step = per_channel(scale, weight) * 2.0 ** spec.switch_scale_exponent(stored_bits, target_bits)
        low, high = spec.signed_low(target_bits), spec.signed_high(target_bits)
        if target_bits == 1:
            low, high = BIPOLAR_LIMITS
        if rule == FLOOR and 1 < target_bits < stored_bits:
            # The highest code stands for the whole step above it.
            high += 1
        ctx.save_for_backward(weight / step, codes)
        ctx.limits = low, high
        return codes * step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        quotient, codes = ctx.saved_tensors
        (gradient,) = gradients
        passed = _inside(gradient, quotient, *ctx.limits)
        slope = (gradient * codes).sub_(passed * quotient)
        return passed, slope.flatten(1).sum(1), None, None, None


class _Bipolar(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor) -> Tensor:
        codes, step = bipolar_codes(weight), per_channel(scale, weight)
        ctx.save_for_backward(weight / step, codes)
        return codes * step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        quotient, codes = ctx.saved_tensors
        (gradient,) = gradients
        return _inside(gradient, quotient, *BIPOLAR_LIMITS), (gradient * codes).flatten(1).sum(1)


class _QuantizeActivation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        # Walks through memory, and new memory even more, are a third of a training step: there are as few as can be.
        values = values.to(scale.dtype)
        result = activation_codes(values, scale, low, high).mul_(scale)
        ctx.save_for_backward(values, result, scale)
        ctx.limits = low, high
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        values, result, scale = ctx.saved_tensors
        (gradient,) = gradients
        low, high = ctx.limits
        step = float(scale)
        passed = _inside(gradient, values, low * step, high * step)
        return passed, (_dot(gradient, result) - _dot(passed, values)) / scale, None, None


def _inside(gradient: Tensor, values: Tensor, low: float, high: float) -> Tensor:
    """Return ``gradient`` where low <= values <= high, else 0, in one walk through memory."""
    # hardtanh passes nothing at its own limits.
    below = float(np.nextafter(np.float32(low), np.float32(-np.inf)))
    above = float(np.nextafter(np.float32(high), np.float32(np.inf)))
    return torch.ops.aten.hardtanh_backward(gradient, values, below, above)  # type: ignore[no-any-return]


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Return the sum of products of two dense tensors; a transposed layout is walked as it lies in memory."""
    if one.stride() != other.stride():
        other = other.contiguous(memory_format=torch.contiguous_format)
        one = one.contiguous(memory_format=torch.contiguous_format)
    order = sorted(range(one.dim()), key=one.stride, reverse=True)
    return torch.dot(one.permute(order).reshape(-1), other.permute(order).reshape(-1))


class _RoundToGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, step: float) -> Tensor:
        return round_half_up(values / step) * step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def double_rounding(weight: Tensor, scale: Tensor, stored_bits: int, target_bits: int, rule: str = ROUND) -> Tensor:
    """Return the real weights that a stored weight has at ``target_bits`` (eqs. 1-3): switched code * scale * 2**e.

    Gradients, with q = weight / (scale * 2**e) and the code range low .. high of ``target_bits``:

    - weight: the incoming gradient where low <= q <= high, else 0 (straight through, masked by the *low* range);
    - scale: incoming gradient * (code - q inside, code outside), summed over each output channel. The chain-rule
      factor 2**e is dropped as in eq. 13; the released code sums over the whole tensor and hands every channel the
      same number, while this is the gradient of each channel's own scale. LSQ's constant gradient factor is left
      out: the scales' optimizer is invariant to it.

    Parameters
    ----------
    weight : float tensor of shape (out, ...)
    scale : float tensor of shape (out,), positive
    stored_bits, target_bits : int
        1 <= target_bits <= stored_bits <= 8.
    rule : str
        The switch, as in :func:`switch_codes`. Under ``floor`` the code range reaches one step further up.
    """
    return _DoubleRounding.apply(weight, scale, stored_bits, target_bits, rule)  # type: ignore[no-any-return,no-untyped-call]


def bipolar(weight: Tensor, scale: Tensor) -> Tensor:
    """Return the real weights of a float weight at 1 bit, not switched from a stored code: its sign times ``scale``.

    Zero counts as positive. ``double_rounding`` at 1 bit takes the sign of the stored code, whose first rounding makes
    all down to minus half a step positive too: next to none at 8 stored bits, a sixth of normal weights at 2.

    Gradients, with q = weight / scale: the weight's straight through where -2 <= q <= 2; the scale's is the incoming
    gradient * sign, summed over each output channel: the signs do not depend on the scale.

    Parameters
    ----------
    weight : float tensor of shape (out, ...)
    scale : float tensor of shape (out,), positive
        mean|w| of a channel makes the squared error least (XNOR-Net, arXiv 1603.05279).
    """
    return _Bipolar.apply(weight, scale)  # type: ignore[no-any-return,no-untyped-call]


def quantize_activation(values: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """Return ``clamp(floor(values / scale + 1/2), low, high) * scale`` (eqs. 4-5).

    Gradients, with q = values / scale: straight through where low <= q <= high; the scale's is the incoming gradient
    * (code - q inside, code outside), summed over the tensor (eq. 13).

    Parameters
    ----------
    values : float tensor
    scale : float tensor with one element and no dimensions, positive
    low, high : int
        Range of the codes: 0 .. 2**bits - 1, or signed for the skip code of a tensor without ReLU.
    """
    return _QuantizeActivation.apply(values, scale, low, high)  # type: ignore[no-any-return,no-untyped-call]


def round_to_grid(values: Tensor, step: float) -> Tensor:
    """Return ``floor(values / step + 1/2) * step`` with a straight-through gradient; ``step`` is a power of two."""
    return _RoundToGrid.apply(values, step)  # type: ignore[no-any-return,no-untyped-call]
