"""Numba kernels of training: BatchNorm, add and quantizers of a layer in as few walks through memory as can be.

Private to ``quant``; ``quant.fused`` has the differentiable functions around them. Arrays of activations have the shape
(tiles, lanes): channels innermost, and lanes a multiple of the channels, so that every lane belongs to one channel and
vectors of lanes are long enough for the processor. They are float32, or bfloat16 as the uint16 of its bits.

Every loop is over one tile in the first-level cache, and touches few arrays: more, and the compiler's checks whether
they overlap would be too many, and the loop would not be vectorised. Each rounding is that of ``quant.functional``,
operation for operation, in float32.
"""

from __future__ import annotations

import functools

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_njit = functools.partial(numba.njit, cache=True, nogil=True, error_model="numpy")

_BLOCK_TILES = 32
"""Tiles that are summed in float32 before the sums go to float64: few terms, as in pairwise summation."""


@intrinsic
def _widen(context, value):
    """float32 of a float32, or of the bits of a bfloat16."""

    def generate(context, builder, signature, arguments):
        (bits,) = arguments
        if signature.args[0] == types.float32:
            return bits
        wide = builder.shl(builder.zext(bits, ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(wide, ir.FloatType())

    return types.float32(value), generate


@intrinsic
def _bits(context, value):
    """uint32 with the bits of a float32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@intrinsic
def _as_stored(context, value, bits, like):
    """The float32 ``value``, or the bfloat16 ``bits``, whichever ``like`` is."""

    def generate(context, builder, signature, arguments):
        return arguments[0] if signature.args[2] == types.float32 else arguments[1]

    return like(types.float32, types.uint16, like), generate


@intrinsic
def _floor(context, value):
    """The largest whole float32 that is no larger: an instruction, which is vectorised; numpy's is a call."""

    def generate(context, builder, signature, arguments):
        return builder.call(builder.module.declare_intrinsic("llvm.floor", [ir.FloatType()]), arguments)

    return types.float32(types.float32), generate


@_njit(inline="always")
def _narrow(value, like):
    """``value`` as ``like`` is stored: float32, or the bits of the nearest bfloat16, ties to even."""
    bits = _bits(value)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return _as_stored(value, np.uint16(rounded), like)


@_njit(inline="always")
def _code(value, scale, low, high):
    """``clamp(floor(value / scale + 1/2), low, high)``, float32."""
    return _floor(min(max(value / scale + np.float32(0.5), low), high))


@intrinsic
def _skip_form(context, code, scale, like):
    """Code times scale if ``like`` is float32, else the bits of the bare code as a bfloat16."""

    def generate(context, builder, signature, arguments):
        code, scale, _ = arguments
        if signature.args[2] == types.float32:
            return builder.fmul(code, scale)
        # An integer of 8 bits has no more than a bfloat16's: what is cut off is 0.
        bits = builder.lshr(builder.bitcast(code, ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return builder.trunc(bits, ir.IntType(16))

    return like(types.float32, types.float32, like), generate


@_njit
def _spread(vector, lanes):
    """Return a float64 value of each channel as a float32 value of each lane."""
    spread = np.empty(lanes, np.float32)
    for lane in range(lanes):
        spread[lane] = vector[lane % len(vector)]
    return spread


@_njit
def _gathered(sums, channels):
    """Return the sum of the lanes of each channel, float64."""
    total = np.zeros(channels)
    for lane in range(len(sums)):
        total[lane % channels] += sums[lane]
    return total


@_njit
def _move(part, sums):
    for lane in range(len(part)):
        sums[lane] += part[lane]
    for lane in range(len(part)):
        part[lane] = 0


@_njit
def _statistics(values, channels):
    """Return the mean and the (biased) variance of every channel, float64."""
    tiles, lanes = values.shape
    # Squares of the distances to one of the values, so that a large mean does not swallow a small variance.
    first = np.empty(channels)
    for channel in range(channels):
        first[channel] = _widen(values[0, channel])
    shift, sums, squares = _spread(first, lanes), np.zeros(lanes), np.zeros(lanes)
    part, part_squares = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
    for start in range(0, tiles, _BLOCK_TILES):
        for tile in range(start, min(start + _BLOCK_TILES, tiles)):
            for lane in range(lanes):
                value = _widen(values[tile, lane]) - shift[lane]
                part[lane] += value
                part_squares[lane] += value * value
        _move(part, sums)
        _move(part_squares, squares)
    count = values.size // channels
    mean, variance = _gathered(sums, channels) / count, _gathered(squares, channels) / count
    for channel in range(channels):
        variance[channel] = max(variance[channel] - mean[channel] * mean[channel], 0.0)
        mean[channel] += first[channel]
    return mean, variance


@_njit(inline="always")
def _real(values, skip, skip_factor, factor, addend, tile, real):
    """Write values * factor + addend + skip * skip_factor of a tile to ``real``; a skip of no tiles is none."""
    lanes = values.shape[1]
    for lane in range(lanes):
        real[lane] = _widen(values[tile, lane]) * factor[lane] + addend[lane]
    if skip.shape[0] > 0:
        for lane in range(lanes):
            real[lane] += _widen(skip[tile, lane]) * skip_factor


@_njit
def normalise_and_store(
    values, skip, skip_factor, gamma, beta, running_mean, running_variance, momentum, epsilon,
    skip_scale, skip_low, skip_high, code_scale, code_high, skips, codes, coefficients,
):  # fmt: skip
    """Write the stored forms of BatchNorm(values) + skip * skip_factor; a form of no tiles is not stored.

    Any tensor may be float32 or bfloat16. ``codes`` are codes times scale, and so are ``skips`` in float32; in bfloat16
    they are the bare codes, which it holds exactly. ``coefficients``, float64 of shape
    (4, channels), gets mean, deviation, factor and addend of every channel, for the backward pass.
    """
    lanes, channels = values.shape[1], len(gamma)
    mean, variance = _statistics(values, channels)
    count = values.size // channels
    kept, unbiased = 1 - momentum, count / (count - 1)
    for channel in range(channels):
        deviation = np.sqrt(variance[channel] + epsilon)
        coefficients[0, channel] = mean[channel]
        coefficients[1, channel] = deviation
        coefficients[2, channel] = gamma[channel] / deviation
        coefficients[3, channel] = beta[channel] - mean[channel] * coefficients[2, channel]
        running_mean[channel] = kept * running_mean[channel] + momentum * mean[channel]
        running_variance[channel] = kept * running_variance[channel] + momentum * unbiased * variance[channel]
    store(
        values, skip, skip_factor, _spread(coefficients[2], lanes), _spread(coefficients[3], lanes), skip_scale,
        skip_low, skip_high, code_scale, code_high, skips, codes,
    )  # fmt: skip


@_njit
def store(
    values, skip, skip_factor, factor, addend, skip_scale, skip_low, skip_high, code_scale, code_high, skips, codes
):  # fmt: skip
    """Write the stored forms of values * factor + addend + skip * skip_factor, see :func:`normalise_and_store`."""
    tiles, lanes = values.shape
    real = np.empty(lanes, np.float32)
    for tile in range(tiles):
        _real(values, skip, skip_factor, factor, addend, tile, real)
        if skips.shape[0] > 0:
            for lane in range(lanes):
                code = _code(real[lane], skip_scale, skip_low, skip_high)
                real[lane] = code * skip_scale
                skips[tile, lane] = _skip_form(code, skip_scale, skips[tile, lane])
        if codes.shape[0] > 0:
            for lane in range(lanes):
                rounded = _code(real[lane], code_scale, np.float32(0), code_high) * code_scale
                codes[tile, lane] = _narrow(rounded, codes[tile, lane])


@_njit(inline="always")
def _inside(value, low, high):
    return np.float32(1) if (value >= low) & (value <= high) else np.float32(0)


@_njit
def normalise_and_store_backward(
    values, skip, skip_factor, coefficients, skip_scale, skip_low, skip_high, code_scale, code_high,
    skips_gradient, arriving_factor, codes_gradient, has_skips, passed, out, gradients, scale_gradients,
):  # fmt: skip
    """Write all gradients of :func:`normalise_and_store`.

    Parameters
    ----------
    skips_gradient, codes_gradient
        Of ``skips`` and of ``codes`` as they are stored. One of no tiles is 0.
    has_skips : bool
        Whether a skip code is stored, its gradient known or not.
    passed : as skip
        Gets the gradient of ``skip``: that of the real output times ``skip_factor``; of no tiles if there is no skip of
        any kind.
    arriving_factor : float32
        What ``skips_gradient`` is multiplied by: 1, or where the skip codes are bare, 1 / skip_scale.
    out : as values
        Gets their gradient.
    gradients : float32 of shape (2, channels)
        Gets those of gamma and beta.
    scale_gradients : float32 of shape (2,)
        Gets those of the skip code's and the code's scale.
    """
    tiles, lanes = values.shape
    channels = coefficients.shape[1]
    mean = _spread(coefficients[0], lanes)
    factor, addend = _spread(coefficients[2], lanes), _spread(coefficients[3], lanes)
    real, stored, gradient = np.empty(lanes, np.float32), np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    part, part_products = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
    part_skip, part_code = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
    sums, products, skip_slopes, code_slopes = np.zeros(lanes), np.zeros(lanes), np.zeros(lanes), np.zeros(lanes)
    passed_factor = np.float32(1) / skip_factor
    skip_bottom, skip_top, code_top = skip_low * skip_scale, skip_high * skip_scale, code_high * code_scale
    for start in range(0, tiles, _BLOCK_TILES):
        for tile in range(start, min(start + _BLOCK_TILES, tiles)):
            _real(values, skip, skip_factor, factor, addend, tile, real)
            for lane in range(lanes):
                stored[lane] = real[lane]
            if has_skips:
                for lane in range(lanes):
                    stored[lane] = _code(real[lane], skip_scale, skip_low, skip_high) * skip_scale
            if codes_gradient.shape[0] > 0:
                for lane in range(lanes):
                    arriving, source = _widen(codes_gradient[tile, lane]), stored[lane]
                    rounded = _code(source, code_scale, np.float32(0), code_high) * code_scale
                    inside = _inside(source, np.float32(0), code_top)
                    gradient[lane] = arriving * inside
                    part_code[lane] += arriving * (rounded - source * inside)
            else:
                for lane in range(lanes):
                    gradient[lane] = 0
            if has_skips:
                if skips_gradient.shape[0] > 0:
                    for lane in range(lanes):
                        gradient[lane] += _widen(skips_gradient[tile, lane]) * arriving_factor
                for lane in range(lanes):
                    inside, arriving = _inside(real[lane], skip_bottom, skip_top), gradient[lane]
                    part_skip[lane] += arriving * (stored[lane] - real[lane] * inside)
                    gradient[lane] = arriving * inside
            if passed.shape[0] > 0:
                for lane in range(lanes):
                    passed[tile, lane] = _narrow(gradient[lane] * skip_factor, passed[tile, lane])
            for lane in range(lanes):
                part[lane] += gradient[lane]
                part_products[lane] += gradient[lane] * (_widen(values[tile, lane]) - mean[lane])
        _move(part, sums)
        _move(part_products, products)
        _move(part_skip, skip_slopes)
        _move(part_code, code_slopes)
    scale_gradients[0] = skip_slopes.sum() / skip_scale
    scale_gradients[1] = code_slopes.sum() / code_scale
    beta_gradient, product = _gathered(sums, channels), _gathered(products, channels)
    count = values.size // channels
    slopes, addends = np.empty(channels), np.empty(channels)
    for channel in range(channels):
        deviation, channel_factor = coefficients[1, channel], coefficients[2, channel]
        gradients[0, channel] = product[channel] / deviation
        gradients[1, channel] = beta_gradient[channel]
        slopes[channel] = -channel_factor * product[channel] / (deviation * deviation * count)
        addends[channel] = -channel_factor * beta_gradient[channel] / count - slopes[channel] * coefficients[0, channel]
    slope, offset = _spread(slopes, lanes), _spread(addends, lanes)
    for tile in range(tiles):
        if passed.shape[0] > 0:
            for lane in range(lanes):
                gradient[lane] = _widen(passed[tile, lane]) * passed_factor
        elif codes_gradient.shape[0] > 0:
            # Cheaper than to write and read it.
            _real(values, skip, skip_factor, factor, addend, tile, real)
            for lane in range(lanes):
                gradient[lane] = _widen(codes_gradient[tile, lane]) * _inside(real[lane], np.float32(0), code_top)
        for lane in range(lanes):
            straight = slope[lane] * _widen(values[tile, lane]) + offset[lane]
            out[tile, lane] = _narrow(factor[lane] * gradient[lane] + straight, out[tile, lane])


@_njit(inline="always")
def _switched(code, shift, floors, high):
    """The switch of ``quant.functional.switch_codes``: ``floors`` is the floor rule; a shift of 0 is the identity."""
    if shift == 0:
        return code
    half = np.float32(0) if floors else np.float32(1 << (shift - 1))
    return min(_floor((code + half) * np.float32(1 / (1 << shift))), high)


@_njit
def double_rounding(weight, scale, stored_low, stored_high, shift, floors, high, out):
    """Write switched code * step of every weight of (channels, weights), step = scale * 2**shift."""
    channels, count = weight.shape
    power = np.float32(1 << shift)
    for channel in range(channels):
        step, channel_scale = scale[channel] * power, scale[channel]
        for index in range(count):
            code = _switched(_code(weight[channel, index], channel_scale, stored_low, stored_high), shift, floors, high)
            out[channel, index] = _narrow(code * step, out[channel, index])


@_njit
def double_rounding_backward(
    weight, scale, stored_low, stored_high, shift, floors, high, low_limit, high_limit, gradient, passed, slopes
):  # fmt: skip
    """Write the gradients of weights to ``passed``, float32, and of scales to ``slopes``, float64."""
    channels, count = weight.shape
    power = np.float32(1 << shift)
    sloped = np.empty(count, np.float32)
    for channel in range(channels):
        step, channel_scale = scale[channel] * power, scale[channel]
        for index in range(count):
            value, arriving = weight[channel, index], _widen(gradient[channel, index])
            code = _switched(_code(value, channel_scale, stored_low, stored_high), shift, floors, high)
            quotient = value / step
            inside = _inside(quotient, low_limit, high_limit)
            passed[channel, index] = arriving * inside
            sloped[index] = arriving * (code - quotient * inside)
        total = 0.0
        for index in range(count):
            total += sloped[index]
        slopes[channel] = total
