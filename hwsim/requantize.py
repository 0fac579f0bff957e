"""Requantizer tables: fold a layer's real parameters, search M, K, B, S, and certify them against the trained function.

The *trained function* of a layer is

    F(acc, skip) = clamp(floor(alpha * acc + kappa * skip + beta + 1/2), low, high)

where alpha, kappa, beta are the float64 values that ``fold`` computes from the stored float32 parameters in one fixed
order of operations, read as exact binary fractions. Machines compute

    R(acc, skip) = clamp((acc * M + skip * K + B) >> S, low, high)          (``spec.requantize``)

F is a staircase in acc. With t_k the first accumulator of step k, R = F if and only if every step is crossed at the
same accumulator, so that for given M, K, S the feasible B are those between

    max over k, skip of (k * 2**S - K * skip - M * t_k)   and   min of (k * 2**S - 1 - K * skip - M * (t_k - 1)).

The search takes the narrowest exact M, K, B, S of a format, and the least displaced where none is exact. The
certificate counts the operand pairs on which R and F differ, over every accumulator between the bounds that the real
weights set and every skip code: differences of thresholds (of sums of floors for logits), never samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from hwsim import spec
from hwsim.network import (
    IMAGE,
    IMAGE_SCALE,
    SWITCH_RULES,
    Assignment,
    AveragePool2d,
    MaxPool2d,
    Network,
    WeightLayer,
)

if TYPE_CHECKING:
    from hwsim.network import Layer

ACCUMULATOR_BITS_MAX = 32
"""Widest accumulator, in bits: 32, so that every product with a multiplier fits 64-bit integers."""


@dataclass(frozen=True, kw_only=True)
class RequantizerFormat:
    """Widths of the tables of a machine: signed two's complement except for the shift.

    Parameters
    ----------
    multiplier_bits : int
        Width of M, 2 .. 32.
    skip_multiplier_bits : int
        Width of K, 2 .. 40. One shift serves both products, and a step of the skip code is worth about one code while
        a step of the accumulator is worth 2**-12 or less: K needs about 14 bits more than M to let M use all of its.
    addend_bits : int
        Width of B and of the sum ``acc * M + skip * K + B``, 16 .. 62. The sum fits for every reachable operand, so
        that adders of this width are enough whatever happens in between.
    shift_max : int
        Highest S, 1 .. 52.

    Raises
    ------
    ValueError
        If a width is out of its range.
    """

    multiplier_bits: int = 18
    skip_multiplier_bits: int = 32
    addend_bits: int = 48
    shift_max: int = 47

    def __post_init__(self) -> None:
        for name, low, high in (
            ("multiplier_bits", 2, 32),
            ("skip_multiplier_bits", 2, 40),
            ("addend_bits", 16, 62),
            ("shift_max", 1, 52),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an integer, not {value!r}")
            if not low <= value <= high:
                raise ValueError(f"{name} must be {low} .. {high}, not {value}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Affine:
    """The trained function of a layer: ``clamp(floor(alpha * acc + kappa * skip + beta + 1/2), low, high)``.

    Parameters
    ----------
    alpha, kappa, beta : ndarray of float64, shape (channels,)
        Codes per accumulator step, codes per skip-code step (0 without a skip), codes.
    low, high : int
        Clamp. The int32 range for logits, which never reach it.
    """

    alpha: NDArray[np.float64]
    kappa: NDArray[np.float64]
    beta: NDArray[np.float64]
    low: int
    high: int

    def __post_init__(self) -> None:
        for name in ("alpha", "kappa", "beta"):
            values = getattr(self, name)
            sizes = np.abs(values[values != 0])
            if not np.isfinite(values).all() or (sizes.size and not 1e-200 < sizes.min() <= sizes.max() < 1e200):
                raise ValueError(f"{name} must be 0 or 1e-200 .. 1e200 in size, not {values}")

    def evaluate(self, accumulator: int, skip: int, channel: int) -> int:
        """Return F of one operand pair in exact rational arithmetic (slow; the reference of the tests)."""
        value = Fraction(float(self.alpha[channel])) * int(accumulator) + Fraction(float(self.beta[channel]))
        value += Fraction(float(self.kappa[channel])) * int(skip) + Fraction(1, 2)
        return spec.clamp(math.floor(value), self.low, self.high)


@dataclass(frozen=True)
class Certificate:
    """How a requantizer relates to the trained function, over every reachable accumulator and skip code.

    Parameters
    ----------
    displaced_pairs : int
        Operand pairs (accumulator, skip code) for which the two codes differ, summed over the channels.
    operand_pairs : int
        All operand pairs, summed over the channels.
    largest_displacement : int
        Largest difference of the two codes.
    """

    displaced_pairs: int
    operand_pairs: int
    largest_displacement: int

    @property
    def exact(self) -> bool:
        """Whether the two functions are equal on every operand pair."""
        return self.displaced_pairs == 0

    def __str__(self) -> str:
        if self.exact:
            return "exact"
        codes = "code" if self.largest_displacement == 1 else "codes"
        return (
            f"displaced {self.displaced_pairs:,} of {self.operand_pairs:,} operand pairs, "
            f"by at most {self.largest_displacement} {codes}"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Requantizer:
    """One layer's table: ``spec.requantize`` with a row M, K, B, S for each channel.

    Parameters
    ----------
    multiplier, skip_multiplier, addend, shift : ndarray of int64, shape (channels,)
        M, K, B, S. All have one entry where every channel shares it (the code made from a skip code).
    low, high : int
        Clamp: (0, 2**a - 1) for codes, the skip range for skip codes, the int32 range for logits.
    certificate : Certificate
    """

    multiplier: NDArray[np.int64]
    skip_multiplier: NDArray[np.int64]
    addend: NDArray[np.int64]
    shift: NDArray[np.int64]
    low: int
    high: int
    certificate: Certificate

    @property
    def channels(self) -> int:
        """Number of rows of the table."""
        return len(self.multiplier)


@dataclass(frozen=True)
class LayerRequantizers:
    """The requantizers of one layer.

    Parameters
    ----------
    primary : Requantizer
        Makes the logits, or the skip code where the tensor has one, otherwise the code.
    code : Requantizer or None
        Makes the code from the skip code where the tensor has both forms; one row for all channels.
    """

    primary: Requantizer
    code: Requantizer | None = None

    @property
    def certificate(self) -> Certificate:
        """Both certificates in one: pairs summed, the larger displacement."""
        return combine(table.certificate for table in (self.primary, self.code) if table is not None)


def combine(certificates: Iterable[Certificate]) -> Certificate:
    """Return one certificate for several tables: pairs summed, the largest displacement of any."""
    total = Certificate(0, 0, 0)
    for one in certificates:
        total = Certificate(
            total.displaced_pairs + one.displaced_pairs,
            total.operand_pairs + one.operand_pairs,
            max(total.largest_displacement, one.largest_displacement),
        )
    return total


def switched_weights(layer: WeightLayer, target_bits: int) -> NDArray[np.int8]:
    """Return the layer's weights at ``target_bits`` bits (-1 and +1 at 1 bit), in the shape of its codes.

    Switched by the rule of the layer.
    """
    switch = SWITCH_RULES[layer.switch_rule]
    table = np.array(
        [
            switch(code, layer.stored_bits, target_bits)
            for code in range(spec.signed_low(layer.stored_bits), spec.signed_high(layer.stored_bits) + 1)
        ],
        np.int8,
    )
    return cast("NDArray[np.int8]", table[layer.codes.astype(np.int16) - spec.signed_low(layer.stored_bits)])


def accumulator_range(
    network: Network, layer: WeightLayer | AveragePool2d, assignment: Assignment
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the lowest and the highest accumulator of every channel, int64 (channels,), from the real weights.

    Every activation is 0 .. 2**a - 1, so the bounds are the sums of the negative and of the positive switched
    weights times 2**a - 1; for average pooling 0 and the window's area times 2**a - 1.
    """
    activation_high = spec.unsigned_high(assignment.activation_bits(layer.name))
    if isinstance(layer, AveragePool2d):
        channels = network.shape(layer.name)[0]
        top = layer.kernel[0] * layer.kernel[1] * activation_high
        return np.zeros(channels, np.int64), np.full(channels, top, np.int64)
    weights = switched_weights(layer, assignment.weight_bits(layer.name)).astype(np.int64)
    weights = weights.reshape(layer.out_channels, -1)
    return (
        np.minimum(weights, 0).sum(axis=1) * activation_high,
        np.maximum(weights, 0).sum(axis=1) * activation_high,
    )


def code_scale(network: Network, tensor: str, bits: int) -> float:
    """Return the real value of one step of the code of ``tensor`` at ``bits`` bits (1/255 for the image)."""
    if tensor == IMAGE:
        return IMAGE_SCALE
    layer = network.layer(tensor)
    if isinstance(layer, MaxPool2d):
        return code_scale(network, layer.input, bits)
    return layer.output.code[bits]


def fold(network: Network, layer: WeightLayer | AveragePool2d, assignment: Assignment) -> tuple[Affine, Affine | None]:
    """Return the trained functions of a layer: of its primary form, and of the code where that is made from the skip.

    In float64, in this order: g = gamma / sqrt(variance + epsilon); alpha = g * weight_scale * 2**e * input_scale /
    output_scale; beta = (beta + g * (bias - mean)) / output_scale; kappa = skip_scale / output_scale. The BatchNorm
    set is that of the layer's weight width. Average pooling: alpha = input_scale / (area * output_scale).

    Raises
    ------
    ValueError
        If the layer makes logits and has a ReLU or adds a skip code, or if a value leaves 1e-200 .. 1e200.
    """
    name, output = layer.name, layer.output
    code_bits = assignment.code_bits(name)
    code = None
    if isinstance(layer, WeightLayer) and layer.makes_logits:
        if layer.relu or layer.skip is not None:
            raise ValueError(f"layer {name}: makes logits, and so must have no ReLU and add no skip code")
        output_scale = cast("float", output.logit)
        low, high = spec.signed_low(spec.LOGIT_BITS), spec.signed_high(spec.LOGIT_BITS)
    elif network.adders(name):
        output_scale = cast("float", output.skip)
        low, high = network.skip_range(name)
        if code_bits is not None:
            code = Affine(
                alpha=np.array([output_scale / output.code[code_bits]]),
                kappa=np.zeros(1),
                beta=np.zeros(1),
                low=0,
                high=spec.unsigned_high(code_bits),
            )
    else:
        bits = cast("int", code_bits)
        output_scale = output.code[bits]
        low, high = 0, spec.unsigned_high(bits)
    input_scale = code_scale(network, layer.input, assignment.activation_bits(name))
    if isinstance(layer, AveragePool2d):
        channels = network.shape(name)[0]
        alpha = np.full(channels, input_scale / (layer.kernel[0] * layer.kernel[1] * output_scale))
        beta = np.zeros(channels)
        kappa = np.zeros(channels)
    else:
        alpha, beta = _fold_weight_layer(layer, assignment.weight_bits(name), input_scale, output_scale)
        skip_scale = 0.0
        if layer.skip is not None:
            adds = network.layer(layer.skip)
            assert not isinstance(adds, MaxPool2d)
            skip_scale = cast("float", adds.output.skip)
        kappa = np.full(layer.out_channels, skip_scale / output_scale)
    return Affine(alpha=alpha, kappa=kappa, beta=beta, low=low, high=high), code


def _fold_weight_layer(
    layer: WeightLayer, weight_bits: int, input_scale: float, output_scale: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    weight_scale = layer.weight_scale.astype(np.float64) * 2.0 ** spec.switch_scale_exponent(
        layer.stored_bits, weight_bits
    )
    bias = np.zeros(layer.out_channels) if layer.bias is None else layer.bias.astype(np.float64)
    if not layer.batch_norms:
        return weight_scale * input_scale / output_scale, bias / output_scale
    norm = layer.batch_norms[weight_bits]
    gain = norm.gamma.astype(np.float64) / np.sqrt(norm.variance.astype(np.float64) + norm.epsilon)
    alpha = gain * weight_scale * input_scale / output_scale
    beta = (norm.beta.astype(np.float64) + gain * (bias - norm.mean.astype(np.float64))) / output_scale
    return alpha, beta


def build_requantizers(
    network: Network, assignment: Assignment, table_format: RequantizerFormat | None = None
) -> dict[str, LayerRequantizers]:
    """Return the requantizers of every layer but the max poolings, which have none.

    Raises
    ------
    ValueError
        If an accumulator does not fit 32 bits, logits would exceed int32, or no table of the format fits a layer.
    """
    table_format = RequantizerFormat() if table_format is None else table_format
    return {
        layer.name: _build_layer(network, layer, assignment, table_format)
        for layer in network
        if not isinstance(layer, MaxPool2d)
    }


def _build_layer(
    network: Network, layer: Layer, assignment: Assignment, table_format: RequantizerFormat
) -> LayerRequantizers:
    assert not isinstance(layer, MaxPool2d)
    where = f"layer {layer.name} at {assignment.name}"
    affine, code = fold(network, layer, assignment)
    low, high = accumulator_range(network, layer, assignment)
    _check_accumulators(low, high, where)
    if isinstance(layer, WeightLayer) and layer.makes_logits:
        return LayerRequantizers(search_logits(affine, low, high, table_format, where))
    if isinstance(layer, AveragePool2d):
        one = search(_channel(affine, 0), low[:1], high[:1], (0, 0), table_format, where)
        return LayerRequantizers(_broadcast(one, len(low)), _search_code(network, layer, code, table_format, where))
    skip_range = (0, 0) if layer.skip is None else network.skip_range(layer.skip)
    primary = search(affine, low, high, skip_range, table_format, where)
    return LayerRequantizers(primary, _search_code(network, layer, code, table_format, where))


def _check_accumulators(low: NDArray[np.int64], high: NDArray[np.int64], where: str) -> None:
    needed = spec.signed_bits(int(low.min()), int(high.max()))
    if needed > ACCUMULATOR_BITS_MAX:
        raise ValueError(f"{where}: its accumulator needs {needed} bits, and {ACCUMULATOR_BITS_MAX} is the most")


def _search_code(
    network: Network, layer: Layer, code: Affine | None, table_format: RequantizerFormat, where: str
) -> Requantizer | None:
    if code is None:
        return None
    low, high = network.skip_range(layer.name)
    return search(code, np.array([low]), np.array([high]), (0, 0), table_format, f"{where}, code from the skip code")


def _channel(affine: Affine, channel: int) -> Affine:
    one = slice(channel, channel + 1)
    return Affine(
        alpha=affine.alpha[one], kappa=affine.kappa[one], beta=affine.beta[one], low=affine.low, high=affine.high
    )


def _broadcast(table: Requantizer, channels: int) -> Requantizer:
    certificate = table.certificate
    return Requantizer(
        multiplier=np.repeat(table.multiplier, channels),
        skip_multiplier=np.repeat(table.skip_multiplier, channels),
        addend=np.repeat(table.addend, channels),
        shift=np.repeat(table.shift, channels),
        low=table.low,
        high=table.high,
        certificate=Certificate(
            certificate.displaced_pairs * channels,
            certificate.operand_pairs * channels,
            certificate.largest_displacement,
        ),
    )


def _candidate_offsets(with_skip: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the offsets of M and of K that are tried around the rounded values, nearest first."""
    reach = range(-3, 4)
    pairs = [(m, k) for m in reach for k in (reach if with_skip else (0,))]
    pairs.sort(key=lambda pair: (abs(pair[0]) + abs(pair[1]), pair))
    table = np.array(pairs, np.int64)
    return np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1])


def search(
    affine: Affine,
    accumulator_low: NDArray[np.int64],
    accumulator_high: NDArray[np.int64],
    skip_range: tuple[int, int],
    table_format: RequantizerFormat,
    where: str = "the layer",
) -> Requantizer:
    """Return the narrowest exact table of a format for codes or skip codes, or the least displaced, certified.

    Parameters
    ----------
    affine : Affine
        The trained function; at most 255 steps.
    accumulator_low, accumulator_high : ndarray of int64, shape (channels,)
        Reachable accumulators of every channel, at most 32 bits.
    skip_range : tuple of int
        Lowest and highest skip code; (0, 0) where nothing is added.
    table_format : RequantizerFormat
    where : str
        What the error message calls the layer.

    Raises
    ------
    ValueError
        If an accumulator does not fit 32 bits, or a channel has no table whose M, K, B, S and sum fit the format.
    """
    from hwsim import kernels

    _check_accumulators(accumulator_low, accumulator_high, where)
    channels = len(affine.alpha)
    mirrored = affine.alpha < 0
    multiplier_top = spec.signed_high(table_format.multiplier_bits)
    limits = np.empty((channels, 6), np.int64)
    limits[:, 0] = np.where(mirrored, multiplier_top + 1, multiplier_top)
    limits[:, 1] = spec.signed_low(table_format.skip_multiplier_bits)
    limits[:, 2] = spec.signed_high(table_format.skip_multiplier_bits)
    limits[:, 3] = spec.signed_low(table_format.addend_bits)
    limits[:, 4] = spec.signed_high(table_format.addend_bits)
    # No k << S may leave 62 bits; only logits come near.
    limits[:, 5] = min(table_format.shift_max, 61 - max(abs(affine.low), abs(affine.high)).bit_length())
    offsets, skip_offsets = _candidate_offsets(skip_range != (0, 0))
    accumulator_low = np.asarray(accumulator_low, np.int64)
    accumulator_high = np.asarray(accumulator_high, np.int64)
    found = np.zeros((channels, 6), np.int64)
    kernels.search_tables(
        np.abs(affine.alpha),
        affine.kappa,
        affine.beta,
        np.where(mirrored, -accumulator_high, accumulator_low),
        np.where(mirrored, -accumulator_low, accumulator_high),
        skip_range[0],
        skip_range[1],
        affine.low,
        affine.high,
        limits,
        offsets,
        skip_offsets,
        found,
    )
    if (found[:, 3] < 0).any():
        channel = int(np.argmax(found[:, 3] < 0))
        raise ValueError(
            f"{where}: channel {channel} (alpha {affine.alpha[channel]:g}, beta {affine.beta[channel]:g}) has no "
            f"requantizer whose sum fits {table_format.addend_bits} bits"
        )
    pairs = int((accumulator_high - accumulator_low + 1).sum()) * (skip_range[1] - skip_range[0] + 1)
    return Requantizer(
        multiplier=np.where(mirrored, -found[:, 0], found[:, 0]),
        skip_multiplier=found[:, 1].copy(),
        addend=found[:, 2].copy(),
        shift=found[:, 3].copy(),
        low=affine.low,
        high=affine.high,
        certificate=Certificate(int(found[:, 4].sum()), pairs, int(found[:, 5].max())),
    )


def floor_sum(count: int, slope: Fraction, offset: Fraction) -> int:
    """Return the sum of ``floor(slope * x + offset)`` over x = 0 .. count - 1, exactly, in a Euclid-like descent.

    >>> floor_sum(5, Fraction(2, 3), Fraction(-1, 2)) == sum((4 * x - 3) // 6 for x in range(5))
    True
    """
    divisor = math.lcm(slope.denominator, offset.denominator)
    a, b = int(slope * divisor), int(offset * divisor)
    total = 0
    while count > 0:
        total += count * (count - 1) // 2 * (a // divisor) + count * (b // divisor)
        a, b = a % divisor, b % divisor
        count, b = divmod(a * count + b, divisor)
        divisor, a = a, divisor
    return total


def certify_unclamped(
    slope: Fraction, offset: Fraction, multiplier: int, addend: int, shift: int, low: int, high: int
) -> Certificate:
    """Certify ``(acc * M + B) >> S`` against ``floor(slope * acc + offset)`` over acc = low .. high, without clamps.

    The difference E of the two real-valued lines is a line too. Where j <= E < j + 1 the floors differ by j or j + 1,
    so only the stretches j = -1 and j = 0 need counting, and there the sum of the differences is the count.
    """
    other_slope, other_offset = Fraction(multiplier, 1 << shift), Fraction(addend, 1 << shift)
    tilt, gap = other_slope - slope, other_offset - offset

    def stretch(step: int) -> tuple[int, int]:
        """Return the range [first, stop) of accumulators where step <= E < step + 1."""
        if tilt == 0:
            return (low, high + 1) if step <= gap < step + 1 else (low, low)
        ends = ((step - gap) / tilt, (step + 1 - gap) / tilt)
        if tilt > 0:
            first, stop = math.ceil(ends[0]), math.ceil(ends[1])
        else:
            first, stop = math.floor(ends[1]) + 1, math.floor(ends[0]) + 1
        return min(max(first, low), high + 1), min(max(stop, low), high + 1)

    def summed_difference(step: int) -> tuple[int, int]:
        first, stop = stretch(step)
        count = stop - first
        return count, (
            floor_sum(count, other_slope, other_slope * first + other_offset)
            - floor_sum(count, slope, slope * first + offset)
        )

    ends = (tilt * low + gap, tilt * high + gap)
    lowest, highest = math.floor(min(ends)), math.floor(max(ends))
    count_above, above = summed_difference(0)
    count_below, below = summed_difference(-1)
    displaced = above - below + (high - low + 1 - count_above - count_below)
    count, difference = summed_difference(highest)
    most = highest + (1 if difference > highest * count else 0)
    count, difference = summed_difference(lowest)
    least = lowest if difference < (lowest + 1) * count else lowest + 1
    return Certificate(displaced, high - low + 1, max(most, -least))


def search_logits(
    affine: Affine,
    accumulator_low: NDArray[np.int64],
    accumulator_high: NDArray[np.int64],
    table_format: RequantizerFormat,
    where: str = "the layer",
) -> Requantizer:
    """Return the table of the logits, certified over every accumulator; parameters as for ``search``.

    Logits are not clamped and may have any number of steps. Up to ``LOGIT_STEPS_SEARCHED`` of them are searched like
    codes; beyond, B is centred (no displacement in the middle of the range). The certificate is a difference of sums
    of floors, whatever the number of steps.

    Raises
    ------
    ValueError
        If a logit can leave int32, or no M, B, S fits the format.
    """
    rows = []
    for channel in range(len(affine.alpha)):
        low, high = int(accumulator_low[channel]), int(accumulator_high[channel])
        rows.append(_search_logit(_channel(affine, channel), low, high, table_format, f"{where}, channel {channel}"))
    multiplier, addend, shift = (np.array([row[index] for row in rows], np.int64) for index in range(3))
    return Requantizer(
        multiplier=multiplier,
        skip_multiplier=np.zeros(len(rows), np.int64),
        addend=addend,
        shift=shift,
        low=affine.low,
        high=affine.high,
        certificate=combine(row[3] for row in rows),
    )


LOGIT_STEPS_SEARCHED = 1 << 16


def _search_logit(
    affine: Affine, low: int, high: int, table_format: RequantizerFormat, where: str
) -> tuple[int, int, int, Certificate]:
    slope, offset = Fraction(float(affine.alpha[0])), Fraction(float(affine.beta[0])) + Fraction(1, 2)
    ends = (math.floor(slope * low + offset), math.floor(slope * high + offset))
    least, most = min(ends), max(ends)
    if least < affine.low or most > affine.high:
        raise ValueError(f"{where}: logits reach {least} .. {most}, outside int32; raise the logit scale")
    tables = list(_centred_tables(slope, offset, low, high, table_format))
    if most - least <= LOGIT_STEPS_SEARCHED and tables:
        # One step more on either side, never crossed: an exact table then needs no clamp.
        bounded = Affine(alpha=affine.alpha, kappa=affine.kappa, beta=affine.beta, low=least - 1, high=most + 1)
        found = search(bounded, np.array([low]), np.array([high]), (0, 0), table_format, where)
        row = int(found.multiplier[0]), int(found.addend[0]), int(found.shift[0])
        tables = [row] if found.certificate.exact else [*tables[-3:], row]
    best: tuple[int, int, int, Certificate] | None = None
    for multiplier, addend, shift in tables:
        results = [(multiplier * accumulator + addend) >> shift for accumulator in (low, high)]
        if not affine.low <= min(results) <= max(results) <= affine.high:
            continue
        # Lines that part by more than two codes cannot have equal floors: only the finest tables are worth counting.
        spread = abs(Fraction(multiplier, 1 << shift) - slope) * (high - low)
        if spread > 2 and shift < tables[-1][2] - 2:
            continue
        certificate = certify_unclamped(slope, offset, multiplier, addend, shift, low, high)
        if best is None or certificate.displaced_pairs < best[3].displaced_pairs:
            best = (multiplier, addend, shift, certificate)
        if certificate.exact:
            break
    if best is None:
        raise ValueError(
            f"{where} (alpha {affine.alpha[0]:g}, beta {affine.beta[0]:g}): has no requantizer whose multiplier fits "
            f"{table_format.multiplier_bits} bits and whose sum fits {table_format.addend_bits} bits"
        )
    return best


def _centred_tables(
    slope: Fraction, offset: Fraction, low: int, high: int, table_format: RequantizerFormat
) -> Iterator[tuple[int, int, int]]:
    """Yield the (M, B, S) that fit a format, narrowest first, that are undisplaced in the middle of low .. high."""
    multiplier_high = spec.signed_high(table_format.multiplier_bits)
    multiplier_low = spec.signed_low(table_format.multiplier_bits)
    sum_high, sum_low = spec.signed_high(table_format.addend_bits), spec.signed_low(table_format.addend_bits)
    middle = Fraction(low + high, 2)
    for shift in range(table_format.shift_max + 1):
        multiplier = round(slope * (1 << shift))
        addend = math.floor((offset + slope * middle) * (1 << shift) - multiplier * middle)
        sums = (multiplier * low + addend, multiplier * high + addend, addend)
        if multiplier_low <= multiplier <= multiplier_high and min(sums) >= sum_low and max(sums) <= sum_high:
            yield multiplier, addend, shift
