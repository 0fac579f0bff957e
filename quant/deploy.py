"""The trained model as the hardware runs it, in PyTorch integers, and the codes of the float32 training-time forward.

Both return every stored tensor, as the integer model of ``hwsim`` does: a mapping of (tensor, form) to array, where
form is ``code`` (uint8), ``skip`` (int16) or ``logits`` (int32), of shape (n, channels, height, width).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hwsim.network import IMAGE, Assignment
from hwsim.requantize import LayerRequantizers, Requantizer
from quant import functional
from quant.layers import LOGIT_SCALE, QuantAveragePool2d, QuantConv2d, QuantMaxPool2d, QuantWeightLayer
from quant.switchable import SwitchableNetwork, set_width

StoredTensors = dict[tuple[str, str], NDArray[Any]]

FORM_DTYPES: dict[str, Any] = {"skip": np.int16, "code": np.uint8, "logits": np.int32}


@torch.no_grad()
def deployed_forward(
    model: SwitchableNetwork,
    assignment: Assignment,
    requantizers: Mapping[str, LayerRequantizers],
    images: NDArray[np.uint8],
) -> StoredTensors:
    """Run the integers of the trained model's own operators, with M, K, B, S, in torch.

    Parameters
    ----------
    model : SwitchableNetwork
    assignment : Assignment
        Of the network that :func:`quant.export.export_network` makes of the model.
    requantizers : mapping of str to LayerRequantizers
        From ``hwsim.requantize.build_requantizers``; one for each layer but max pooling.
    images : ndarray of uint8, shape (n, channels, height, width)

    Returns
    -------
    mapping of (tensor, form) to ndarray
        Every stored tensor but the image.
    """
    stored = {(IMAGE, "code"): _checked(model, images).to(torch.int64)}
    for name, layer in model.items():
        wiring = model.wiring[name]
        code = stored[wiring.input, "code"]
        if isinstance(layer, QuantMaxPool2d):
            stored[name, "code"] = layer(code.to(torch.float64)).to(torch.int64)
            continue
        if isinstance(layer, QuantAveragePool2d):
            windows = code.unfold(2, layer.kernel[0], layer.stride).unfold(3, layer.kernel[1], layer.stride)
            accumulator, feeds_add, skip = windows.sum((-2, -1)), layer.output.skip is not None, None
        else:
            weight_bits = assignment.weight_bits(name)
            accumulator = integer_accumulators(layer, code, weight_bits)
            feeds_add = layer.output is not None and layer.output.skip is not None
            skip = None if wiring.skip is None else stored[wiring.skip, "skip"]
        primary = requantize(accumulator, skip, requantizers[name].primary)
        if isinstance(layer, QuantWeightLayer) and layer.makes_logits:
            stored[name, "logits"] = primary
        elif feeds_add:
            stored[name, "skip"] = primary
            second = requantizers[name].code
            if second is not None:
                stored[name, "code"] = requantize(primary, None, second)
        else:
            stored[name, "code"] = primary
    del stored[IMAGE, "code"]
    return _arrays(stored)


def integer_accumulators(layer: QuantWeightLayer, code: Tensor, weight_bits: int) -> Tensor:
    """Return the accumulators, int64, of shape (n, out, height, width).

    The products are summed in float64, which is exact: every partial sum stays far below 2**53.
    """
    weight = layer.switched_codes(weight_bits).cpu().to(torch.float64)
    values = code.to(torch.float64)
    if isinstance(layer, QuantConv2d):
        result = F.conv2d(values, weight, None, layer.stride, layer.padding)
    else:
        result = F.linear(values.flatten(1), weight)[:, :, None, None]
    return result.to(torch.int64)


def requantize(accumulator: Tensor, skip: Tensor | None, requantizer: Requantizer) -> Tensor:
    """Return ``clamp((accumulator * M + skip * K + B) >> S, low, high)`` of each channel in int64.

    Parameters
    ----------
    accumulator : int64 tensor of shape (n, channels, height, width)
    skip : int64 tensor of the same shape, or None
    requantizer : Requantizer
        One table entry for each channel, or one for all.
    """

    def table(values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.array(values, dtype=np.int64)).reshape(1, -1, 1, 1)

    scaled = accumulator * table(requantizer.multiplier) + table(requantizer.addend)
    if skip is not None:
        scaled = scaled + skip * table(requantizer.skip_multiplier)
    return (scaled >> table(requantizer.shift)).clamp(requantizer.low, requantizer.high)


@torch.no_grad()
def training_forward_codes(
    model: SwitchableNetwork, assignment: Assignment, images: NDArray[np.uint8]
) -> StoredTensors:
    """Return the codes that the float32 training-time forward stores in evaluation mode, to be counted against.

    The widths and the mode of the model are as before afterwards. Parameters as in :func:`deployed_forward`.
    """
    stored: dict[tuple[str, str], Tensor] = {}

    def observe(name: str, real: Tensor) -> None:
        layer = model.layer(name)
        assert not isinstance(layer, QuantMaxPool2d)
        if layer.output is None:
            stored[name, "logits"] = functional.round_half_up(real / LOGIT_SCALE)
            return
        codes = layer.output.codes(real, model.widths.code_bits.get(name))
        if codes.skip is not None:
            stored[name, "skip"] = codes.skip
        if codes.code is not None:
            stored[name, "code"] = codes.code

    widths, training = model.widths, model.training
    try:
        set_width(model, assignment).eval()
        device = next(model.parameters()).device
        model(_checked(model, images).to(device), observe)
    finally:
        model.widths = widths
        model.train(training)
    ordered: dict[tuple[str, str], Tensor] = {}
    for name, layer in model.items():
        if isinstance(layer, QuantMaxPool2d):
            stored[name, "code"] = layer(stored[model.wiring[name].input, "code"])
        ordered |= {(name, form): stored[name, form] for form in FORM_DTYPES if (name, form) in stored}
    return _arrays(ordered)


def _checked(model: SwitchableNetwork, images: NDArray[np.uint8]) -> Tensor:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise TypeError(f"images must be an array of uint8, not {getattr(images, 'dtype', type(images).__name__)}")
    if images.ndim != 4 or images.shape[1:] != model.image_shape:
        raise ValueError(
            f"images must have shape (n, channels, height, width) of {model.image_shape}, not {images.shape}"
        )
    return torch.from_numpy(np.ascontiguousarray(images))


def _arrays(stored: Mapping[tuple[str, str], Tensor]) -> StoredTensors:
    return {(name, form): tensor.cpu().numpy().astype(FORM_DTYPES[form]) for (name, form), tensor in stored.items()}
