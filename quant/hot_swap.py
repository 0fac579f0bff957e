"""Hot-swap by wavelet decomposition and reconstruction (Sun et al., arXiv 2105.01353): one model for 8 ... 1 bits.

The paper's equations, wavelet and losses are not published where we could find them. From its abstract: every width
has a quantization strategy of its own, and a wavelet decomposition and reconstruction of the weights makes them
diverse. This reconstruction is ours: a layer keeps one float weight W. At width b

    (LL, LH, HL, HH) = Haar(W as a matrix out x rest),
    W_b = inverse Haar(a_LL * LL, a_LH * LH, a_HL * HL, a_HH * HH),

with four learned gains for each width that start at 1 (the transform is orthonormal, so that W_b starts as W), and W_b
is quantized with a learned scale of each width and output channel, as in LSQ. 1-bit weights are bipolar: the sign of
W_1 times a scale that starts at mean|W|.

What is stored: W in float32 (32 bits a weight, where Double Rounding stores 8), and per layer and width four gains and
the scales. What a switch costs: not a shift of a code, but an inverse transform and a quantization of every weight, so
it happens off the accelerator, and the weight memory is loaded again. :func:`at_width` makes the switch: a plain model
of one width, whose network file, integer model and hardware are those of any other method.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.precision import WidthSet
from quant import functional, lsq
from quant.layers import CodeQuantizer, OutputQuantizer, QuantMaxPool2d, Reconstruction
from quant.switchable import SwitchableNetwork, code_widths

BIPOLAR_STORED_BITS = 2
"""Width of the stored codes of a bipolar layer, -1 and +1: the least in which both fit."""


def haar(matrix: Tensor) -> Tensor:
    """Return the one-level 2-D Haar transform: (..., 2m, 2n) -> (4, ..., m, n), the parts LL, LH, HL, HH."""
    top, bottom = matrix[..., 0::2, :], matrix[..., 1::2, :]
    parts = []
    for rows in (top + bottom, top - bottom):
        left, right = rows[..., 0::2], rows[..., 1::2]
        parts += [left + right, left - right]
    return torch.stack(parts) / 2


def inverse_haar(parts: Tensor) -> Tensor:
    """Return the matrix of a transform: (4, ..., m, n) -> (..., 2m, 2n)."""
    rows = []
    for low, high in (parts[:2], parts[2:]):
        rows.append(torch.stack([low + high, low - high], -1).flatten(-2))
    low, high = rows
    return torch.stack([low + high, low - high], -2).flatten(-3, -2) / 2


class WaveletWeights(Reconstruction):
    """Gains and scales of one layer at every width.

    Parameters
    ----------
    weight : float tensor of shape (out, ...)
    width_set : WidthSet
    """

    def __init__(self, weight: Tensor, width_set: WidthSet) -> None:
        super().__init__()
        self.gains = nn.ParameterDict({str(bits): nn.Parameter(torch.ones(4)) for bits in width_set})
        self.scales = nn.ParameterDict(
            {str(bits): nn.Parameter(initial_scale(weight.detach(), bits)) for bits in width_set}
        )

    def reconstruct(self, weight: Tensor, bits: int) -> Tensor:
        """Return W_b. What is odd in a matrix' shape is filled up with zeros for the transform."""
        matrix = weight.flatten(1)
        rows, columns = matrix.shape
        padded = F.pad(matrix, (0, columns % 2, 0, rows % 2))
        rebuilt = inverse_haar(haar(padded) * self.gains[str(bits)][:, None, None])
        return rebuilt[:rows, :columns].reshape(weight.shape)

    def quantized(self, weight: Tensor, bits: int) -> Tensor:
        """Return the real weights at ``bits`` bits, differentiable."""
        rebuilt = self.reconstruct(weight, bits)
        if bits == 1:
            return functional.bipolar(rebuilt, self.scales[str(bits)])
        return functional.double_rounding(rebuilt, self.scales[str(bits)], bits, bits)


def initial_scale(weight: Tensor, bits: int) -> Tensor:
    """Return the scale that each output channel of ``weight`` (out, ...) starts with: LSQ's, or mean|w| at 1 bit."""
    if bits == 1:
        return weight.flatten(1).abs().mean(1).clamp(min=1e-6)
    return lsq.initial_scale(weight, bits)


def wavelet_weights(model: SwitchableNetwork) -> None:
    """Give every layer of a prepared model weights of its own at every width, but the pinned ones."""
    for name, layer in model.weight_layers():
        if not model.is_pinned(name):
            layer.reconstruction = WaveletWeights(layer.weight, model.width_set)


@torch.no_grad()
def at_width(model: SwitchableNetwork, bits: int) -> SwitchableNetwork:
    """Return the model that is switched to ``bits`` bits: its width set is {bits}, or {2, 1} for bipolar weights.

    Its weights at ``bits`` are those of ``model``, bit for bit. Width 2 of a bipolar model is there because -1 and +1
    need two bits to be stored; its weights are those of width 1, and its activations are not trained.

    Raises
    ------
    ValueError
        If the model has no such width or was not trained by hot-swap.
    """
    model.width_set.require(bits, "the width")
    switched = copy.deepcopy(model)
    width_set = WidthSet((bits,)) if bits > 1 else WidthSet((BIPOLAR_STORED_BITS, 1))
    switched.width_set, switched.learned = width_set, {}
    for name, layer in switched.weight_layers():
        if model.is_pinned(name):
            continue
        wavelet = layer.reconstruction
        if not isinstance(wavelet, WaveletWeights):
            raise ValueError(f"layer {name}: has the same stored codes at every width, and nothing to reconstruct")
        # At 1 bit the quantized weights: rounding W_1 to codes of two bits would make small negative weights positive.
        taken = wavelet.quantized if bits == 1 else wavelet.reconstruct
        layer.weight.copy_(taken(layer.weight, bits))
        layer.weight_scale.copy_(wavelet.scales[str(bits)])
        layer.stored_bits = width_set.highest
        layer.reconstruction = None
        if layer.batch_norm is not None:
            kept = layer.batch_norm.set_at(bits)
            layer.batch_norm.sets = nn.ModuleDict({str(one): copy.deepcopy(kept) for one in width_set})
    for tensor, any_layer in switched.items():
        output = None if isinstance(any_layer, QuantMaxPool2d) else any_layer.output
        if isinstance(output, OutputQuantizer) and output.code is not None:
            _keep_scales(
                output,
                code_widths(tensor, switched._readers, switched._is_max_pool, switched.is_pinned, width_set),
                bits,
            )
    switched.widths = switched.resolve(lambda name: bits, lambda tensor: bits)
    return switched


def _keep_scales(output: OutputQuantizer, widths: tuple[int, ...], bits: int) -> None:
    assert output.code is not None
    old = output.code
    output.code = CodeQuantizer(widths)
    for one in widths:
        output.code.scale(one).copy_(old.scale(one if one in old.widths and one != BIPOLAR_STORED_BITS else bits))


def deployable(model: SwitchableNetwork) -> dict[int, SwitchableNetwork]:
    """Return the models that can be exported, by the width that each starts at: one for every width.

    A model of any other method has all its widths in one network, and is returned by itself.
    """
    if not any(layer.reconstruction is not None for _, layer in model.weight_layers()):
        return {model.width_set.highest: model}
    return {bits: at_width(model, bits) for bits in model.width_set}
