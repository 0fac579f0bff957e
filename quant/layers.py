"""Layers of the training graph: exactly the quantizers that the hardware has, and one rounding for each stored form.

A layer makes a real value (:meth:`real_output`) and stores it (:class:`OutputQuantizer`): as an 8-bit skip code if the
tensor feeds an add, and as the unsigned code that other layers read, made from the skip code where both exist. Values
travel between layers as integers times their scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim import spec
from hwsim.network import FLOOR, ROUND
from quant import functional, fused

LOGIT_SCALE = 2.0**-10
"""Real value of one step of the int32 logits."""


@dataclass(frozen=True)
class StoredTensor:
    """The stored forms of one tensor, as real values or as integers; None where the form does not exist.

    Parameters
    ----------
    code, skip : Tensor or None
    skip_scale : Tensor or None
        Where the skip code is an integer although the code is a real value (``quant.fused``, in bfloat16, which holds
        every skip code but not its real value exactly): what it is to be multiplied by, without a gradient.
    """

    code: Tensor | None = None
    skip: Tensor | None = None
    skip_scale: Tensor | None = None

    @property
    def real_skip(self) -> Tensor | None:
        """The real value of the skip code."""
        if self.skip is None or self.skip_scale is None:
            return self.skip
        return self.skip.to(self.skip_scale.dtype) * self.skip_scale


class SwitchableBatchNorm(nn.Module):
    """One BatchNorm set for each weight width.

    Parameters
    ----------
    channels : int
    widths : iterable of int
        Weight widths that get a set.
    eps, momentum : float
    """

    def __init__(self, channels: int, widths: Iterable[int], eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.channels = channels
        self.sets = nn.ModuleDict({str(bits): _BatchNorm(channels, eps=eps, momentum=momentum) for bits in widths})

    @classmethod
    def from_float(cls, module: nn.BatchNorm1d | nn.BatchNorm2d, widths: Iterable[int]) -> SwitchableBatchNorm:
        """Return a switchable BatchNorm whose sets all start as ``module``."""
        batch_norm = cls(module.num_features, widths, module.eps, 0.1 if module.momentum is None else module.momentum)
        for batch_norm_set in batch_norm.sets.values():
            batch_norm_set.load_state_dict(module.state_dict())
        return batch_norm

    def set_at(self, bits: int) -> nn.BatchNorm2d:
        """Return the set of a weight width.

        Raises
        ------
        ValueError
            If there is none.
        """
        if str(bits) not in self.sets:
            raise ValueError(f"BatchNorm must have a set at the weight width, one of {list(self.sets)}, not {bits}")
        return self.sets[str(bits)]  # type: ignore[return-value]

    def forward(self, values: Tensor, bits: int) -> Tensor:
        """Return ``values`` of shape (n, channels, ...) normalised by the set of weight width ``bits``."""
        return self.set_at(bits)(values)  # type: ignore[no-any-return]


class _BatchNorm(nn.BatchNorm2d):
    """BatchNorm over dimension 1 of convolution and linear outputs alike."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in (2, 4):
            raise ValueError(f"BatchNorm must have an input of 2 or 4 dimensions, not {input.dim()}")


class CodeQuantizer(nn.Module):
    """Unsigned activation codes with one learned scale for each width (eqs. 4-5).

    Parameters
    ----------
    widths : iterable of int
        Activation widths, in bits.
    """

    def __init__(self, widths: Iterable[int]) -> None:
        super().__init__()
        self.scales = nn.ParameterDict({str(bits): nn.Parameter(torch.tensor(1.0)) for bits in widths})

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths that have a scale, in descending order."""
        return tuple(sorted((int(bits) for bits in self.scales), reverse=True))

    def scale(self, bits: int) -> nn.Parameter:
        """Return the scale at ``bits``, or raise ``ValueError``."""
        if str(bits) not in self.scales:
            raise ValueError(f"activation codes must have one of the widths {self.widths}, not {bits}")
        return self.scales[str(bits)]  # type: ignore[no-any-return]

    def codes(self, values: Tensor, bits: int) -> Tensor:
        """Return the integers 0 .. 2**bits - 1 that ``values`` are stored as, in a float tensor."""
        return functional.activation_codes(values, self.scale(bits), 0, spec.unsigned_high(bits))

    def forward(self, values: Tensor, bits: int) -> Tensor:
        """Return code * scale, differentiable."""
        return functional.quantize_activation(values, self.scale(bits), 0, spec.unsigned_high(bits))


class SkipQuantizer(nn.Module):
    """The 8-bit skip code of a tensor that feeds an add, with a learned scale of its own; signed without a ReLU."""

    def __init__(self, signed: bool) -> None:
        super().__init__()
        self.signed = signed
        self.scale = nn.Parameter(torch.tensor(1.0))

    @property
    def low(self) -> int:
        """Lowest code."""
        return spec.signed_low(spec.SKIP_BITS) if self.signed else 0

    @property
    def high(self) -> int:
        """Highest code."""
        return spec.signed_high(spec.SKIP_BITS) if self.signed else spec.unsigned_high(spec.SKIP_BITS)

    def codes(self, values: Tensor) -> Tensor:
        """Return the integers ``low .. high`` that ``values`` are stored as, in a float tensor."""
        return functional.activation_codes(values, self.scale, self.low, self.high)

    def forward(self, values: Tensor) -> Tensor:
        """Return skip code * scale, differentiable."""
        return functional.quantize_activation(values, self.scale, self.low, self.high)


class OutputQuantizer(nn.Module):
    """Store a real value in the forms that its readers need.

    Parameters
    ----------
    code_widths : sequence of int
        Widths at which layers read the code; empty if none does.
    feeds_add : bool
        Whether a skip code is stored. The code is then made from the skip code.
    signed : bool
        Whether the skip code is signed (no ReLU precedes it).
    """

    def __init__(self, code_widths: Sequence[int], feeds_add: bool, signed: bool) -> None:
        super().__init__()
        if signed and code_widths:
            raise ValueError("a tensor that is read as an unsigned code must come from a ReLU or a pooling")
        self.code = CodeQuantizer(code_widths) if code_widths else None
        self.skip = SkipQuantizer(signed) if feeds_add else None

    def forward(self, values: Tensor, code_bits: int | None) -> StoredTensor:
        """Return the stored forms of ``values`` as real values (integers times scale)."""
        skip = None if self.skip is None else self.skip(values)
        code = None
        if self.code is not None and code_bits is not None:
            code = self.code(values if skip is None else skip, code_bits)
        return StoredTensor(code, skip)

    def quantizers(self, code_bits: int | None) -> tuple[fused.Quantizer | None, fused.Quantizer | None]:
        """Return the quantizers of the skip code and of the code at ``code_bits``."""
        skip, code = self.skip, None
        if self.code is not None and code_bits is not None:
            code = fused.Quantizer(scale=self.code.scale(code_bits), low=0, high=spec.unsigned_high(code_bits))
        return None if skip is None else fused.Quantizer(scale=skip.scale, low=skip.low, high=skip.high), code

    def codes(self, values: Tensor, code_bits: int | None) -> StoredTensor:
        """Return the stored forms of ``values`` as integers in float tensors."""
        skip = None if self.skip is None else self.skip.codes(values)
        code = None
        if self.code is not None and code_bits is not None:
            source = values if self.skip is None or skip is None else skip * self.skip.scale
            code = self.code.codes(source, code_bits)
        return StoredTensor(code, skip)

    @torch.no_grad()
    def initialise(self, values: Tensor, code_bits: int | None, with_skip: bool) -> None:
        """Set the scale at ``code_bits``, and the skip scale if asked, to the least squared error on ``values``."""
        if self.skip is not None:
            if with_skip:
                self.skip.scale.fill_(best_scale(values, self.skip.low, self.skip.high))
            values = self.skip(values)
        if self.code is not None and code_bits is not None:
            high = spec.unsigned_high(code_bits)
            self.code.scale(code_bits).fill_(best_scale(values.clamp(min=0), 0, high))


def best_scale(values: Tensor, low: int, high: int, candidates: int = 64) -> float:
    """Return the scale of codes ``low .. high`` with the least squared error on ``values``, from a grid.

    The released code starts from the mean magnitude; under ALRS the scales of narrow widths hardly move afterwards,
    so they start here from their best place.
    """
    largest = max(float(values.max()) / high, float(values.min()) / low if low < 0 else 0.0)
    if not largest > 0:
        return 1.0
    best, best_error = largest, float("inf")
    values = values.flatten()[:: max(1, values.numel() // 16384)]
    for index in range(1, candidates + 1):
        scale = torch.tensor(largest * index / candidates, dtype=values.dtype)
        rounded = functional.activation_codes(values, scale, low, high) * scale
        error = float(((rounded - values) ** 2).mean())
        if error < best_error:
            best, best_error = float(scale), error
    return best


class Reconstruction(nn.Module):
    """What makes weights of its own for every width out of the one that a layer keeps."""

    scales: nn.ParameterDict

    def quantized(self, weight: Tensor, bits: int) -> Tensor:
        """Return the real weights at ``bits`` bits, differentiable."""
        raise NotImplementedError


class QuantWeightLayer(nn.Module):
    """What a quantized convolution and a quantized linear layer have in common.

    Real output: BatchNorm(weights * input + bias) [+ skip] [ReLU], not rounded before the add.

    Parameters
    ----------
    weight : float tensor of shape (out, ...)
        Copied.
    bias : float tensor of shape (out,), or None
    batch_norm : SwitchableBatchNorm or None
    relu : bool
    stored_bits : int
        h, the width of the stored codes.
    output : OutputQuantizer or None
        None for the last layer, whose output is rounded to the grid of the logits.

    Attributes
    ----------
    switch_rule : str
        How stored codes are switched, a name in ``hwsim.network.SWITCH_RULES``; ``round`` until a method sets it.
    reconstruction : Reconstruction or None
        Makes weights of its own for every width, in methods that store no codes.
    blend : (Tensor, int, Tensor) or None
        While widths are searched: the factor of the weights at the layer's width, another width, and its factor.
    """

    OPERATION: ClassVar[str] = ""

    def __init__(
        self,
        *,
        weight: Tensor,
        bias: Tensor | None,
        batch_norm: SwitchableBatchNorm | None,
        relu: bool,
        stored_bits: int,
        output: OutputQuantizer | None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.batch_norm = batch_norm
        self.relu = relu
        self.stored_bits = stored_bits
        self.output = output
        self.switch_rule = ROUND
        self.reconstruction: Reconstruction | None = None
        self.blend: tuple[Tensor, int, Tensor] | None = None
        self.weight_scale = nn.Parameter(initial_weight_scale(self.weight.detach(), stored_bits))

    @property
    def makes_logits(self) -> bool:
        """Whether this is the last layer."""
        return self.output is None

    @torch.no_grad()
    def stored_codes(self) -> Tensor:
        """Return the stored codes, int8, from the function that the training operator calls."""
        self._check_codes()
        return functional.weight_codes(self.weight, self.weight_scale, self.stored_bits).to(torch.int8)

    @torch.no_grad()
    def switched_codes(self, bits: int) -> Tensor:
        """Return the codes at ``bits`` bits, int8, from the functions that the training operator calls."""
        self._check_codes()
        codes = functional.weight_codes(self.weight, self.weight_scale, self.stored_bits)
        return functional.switch_codes(codes, self.stored_bits, bits, self.switch_rule).to(torch.int8)

    def _check_codes(self) -> None:
        if self.reconstruction is not None:
            raise ValueError(
                "a model with weights of its own at every width has no stored codes: export "
                "quant.hot_swap.at_width(model, bits), as bitswitch export --width BITS does"
            )

    def quantized_weight(self, bits: int, fused_kernels: bool = False) -> Tensor:
        """Return the real weights at ``bits`` bits, differentiable, blended where widths are searched.

        With ``fused_kernels`` by those of ``quant.fused`` where they can, in bfloat16 under autocast.
        """
        if self.blend is None:
            if fused_kernels and self.reconstruction is None and bits > 1 and self.switch_rule in (ROUND, FLOOR):
                dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
                return fused.double_rounding(
                    self.weight, self.weight_scale, self.stored_bits, bits, self.switch_rule, dtype
                )
            return self.quantized_at(bits)
        weight = self.quantized_at(bits)
        factor, other_bits, other_factor = self.blend
        return factor * weight + other_factor * self.quantized_at(other_bits)

    def quantized_at(self, bits: int) -> Tensor:
        """Return the real weights at ``bits`` bits, differentiable: switched codes times their scale."""
        if self.reconstruction is not None:
            return self.reconstruction.quantized(self.weight, bits)  # type: ignore[no-any-return]
        return functional.double_rounding(self.weight, self.weight_scale, self.stored_bits, bits, self.switch_rule)

    def operation(self, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the bare convolution or matrix product."""
        raise NotImplementedError

    def real_output(self, values: Tensor, skip: Tensor | None, weight_bits: int) -> Tensor:
        """Return the real output before it is stored.

        Parameters
        ----------
        values : float tensor
            Codes times scale of the input.
        skip : float tensor or None
            Skip codes times scale of the tensor that is added.
        weight_bits : int
        """
        return self.finished(self.operation(values, self.quantized_weight(weight_bits), self.bias), skip, weight_bits)

    def finished(self, products: Tensor, skip: Tensor | None, weight_bits: int) -> Tensor:
        """Return the real output from the bare convolution or matrix product."""
        # Under autocast the products are narrow; everything that follows is not.
        result = products.to(self.weight.dtype)
        if self.batch_norm is not None:
            result = self.batch_norm(result, weight_bits)
        if skip is not None:
            result = result.add_(skip)
        # An unsigned quantizer clamps at 0 and passes no gradient below: the ReLU is in it.
        return result

    def forward(self, values: Tensor, skip: Tensor | None, weight_bits: int, code_bits: int | None) -> StoredTensor:
        """Return the stored forms of the output as real values; logits on their grid as ``code``."""
        return self.store(self.real_output(values, skip, weight_bits), code_bits)

    def forward_fused(
        self,
        values: Tensor,
        skip: StoredTensor | None,
        weight_bits: int,
        code_bits: int | None,
        narrow: bool,
        narrow_code: bool,
    ) -> StoredTensor:
        """Return the stored forms of the output while training, by few walks through memory, see ``quant.fused``.

        Parameters
        ----------
        skip : StoredTensor or None
            The tensor that is added.
        narrow, narrow_code : bool
            Whether skip codes, and codes times scale, are kept in bfloat16.
        """
        result = self.operation(values, self.quantized_weight(weight_bits, fused_kernels=True), self.bias)
        if self.output is None or self.batch_norm is None or not fused.supports(result):
            added = None if skip is None else skip.real_skip
            return self.store(self.finished(result, added, weight_bits), code_bits)
        norm = self.batch_norm.set_at(weight_bits)
        skips, codes = self.output.quantizers(code_bits)
        code, stored = fused.normalise_and_store(
            result,
            norm,
            None if skip is None or skip.skip is None else fused.Skip(skip.skip, skip.skip_scale),
            skips,
            codes,
            skip_dtype=torch.bfloat16 if narrow else torch.float32,
            code_dtype=torch.bfloat16 if narrow_code else torch.float32,
        )
        return StoredTensor(code, stored, skips.scale.detach() if narrow and skips is not None else None)

    def store(self, real: Tensor, code_bits: int | None) -> StoredTensor:
        """Return the stored forms of a real output; logits on their grid as ``code``."""
        if self.output is None:
            return StoredTensor(functional.round_to_grid(real, LOGIT_SCALE))
        return self.output(real, code_bits)  # type: ignore[no-any-return]


class QuantConv2d(QuantWeightLayer):
    """A quantized 2-D convolution with its BatchNorm, add and ReLU; ``stride`` and ``padding`` as in ``nn.Conv2d``."""

    OPERATION = "convolution"

    def __init__(self, *, stride: int, padding: int, **common: object) -> None:
        super().__init__(**common)  # type: ignore[arg-type]
        self.stride = stride
        self.padding = padding

    def operation(self, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the convolution of ``values`` of shape (n, in, height, width)."""
        return F.conv2d(values, weight, bias, self.stride, self.padding)


class QuantLinear(QuantWeightLayer):
    """A quantized linear layer over the input flattened in (channel, row, column) order."""

    OPERATION = "linear layer"

    def operation(self, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the matrix product, of shape (n, out, 1, 1)."""
        return F.linear(values.flatten(1), weight, bias)[:, :, None, None]


class QuantAveragePool2d(nn.Module):
    """Average pooling without padding: codes of a window are summed and requantized once."""

    def __init__(self, kernel: tuple[int, int], stride: int, output: OutputQuantizer) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        self.output = output

    def real_output(self, values: Tensor) -> Tensor:
        """Return the means of the windows of ``values`` (n, c, height, width)."""
        return F.avg_pool2d(values, self.kernel, self.stride)

    def forward(self, values: Tensor, code_bits: int | None) -> StoredTensor:
        """Return the stored forms of the pooled values."""
        return self.output(self.real_output(values), code_bits)  # type: ignore[no-any-return]


class QuantMaxPool2d(nn.Module):
    """Max pooling of codes: order is kept by a positive scale, so nothing is rounded."""

    def __init__(self, kernel: tuple[int, int], stride: int, padding: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        self.padding = padding

    def forward(self, values: Tensor) -> Tensor:
        """Return the maxima of the windows of ``values`` (n, c, height, width), codes or codes times scale."""
        return F.max_pool2d(values, self.kernel, self.stride, self.padding)


def initial_weight_scale(weight: Tensor, stored_bits: int) -> Tensor:
    """Return max(|mean - 3 std|, |mean + 3 std|) / 2**(h - 1) of each output channel, as the released code does."""
    channels = weight.flatten(1)
    mean = channels.mean(1)
    deviation = channels.std(1, correction=0)
    # A channel of equal or absent weights still needs a positive scale.
    extent = torch.maximum((mean - 3 * deviation).abs(), (mean + 3 * deviation).abs()).clamp(min=1e-6)
    return extent / 2 ** (stored_bits - 1)
