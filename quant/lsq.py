"""Learned step size quantization (Esser et al., arXiv 1902.08153): a dedicated network for one width.

The quantizer is the training operator's own at one width, where the stored code is the weight and nothing is switched:
``round(clip(w / s)) * s`` with a learned scale for each output channel. Weight scales start at 2 mean|w| / sqrt(high),
LSQ's own start; activation scales at the least squared error, as in every method here. LSQ's constant factor on the
gradients of scales is left out: the scales' optimizer is invariant to it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hwsim import spec
from hwsim.precision import WidthSet
from quant.switchable import SwitchableNetwork


def check_widths(width_set: WidthSet) -> None:
    """Raise ``ValueError`` unless the set is one width of 2 .. 8 bits."""
    if len(width_set) != 1:
        raise ValueError(f"lsq trains a network for each width: widths must be one width, not {width_set}")
    if width_set.highest < 2:
        raise ValueError("lsq weights must have 2 .. 8 bits, not 1")


def initial_scale(weight: Tensor, bits: int) -> Tensor:
    """Return 2 mean|w| / sqrt(2**(bits - 1) - 1) of each output channel of ``weight`` (out, ...)."""
    # A channel of zeros still needs a positive scale.
    mean = weight.flatten(1).abs().mean(1).clamp(min=1e-6)
    return 2 * mean / spec.signed_high(bits) ** 0.5


@torch.no_grad()
def initialise(model: SwitchableNetwork) -> None:
    """Set the weight scales of the layers that are not pinned to LSQ's start."""
    for name, layer in model.weight_layers():
        if not model.is_pinned(name):
            layer.weight_scale.copy_(initial_scale(layer.weight, layer.stored_bits))
