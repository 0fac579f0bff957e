"""From a trained model to the network of ``hwsim``: codes from the training operator itself, float32 parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from hwsim.network import AveragePool2d, BatchNorm, Conv2d, Layer, Linear, MaxPool2d, Network, OutputScales
from quant.layers import (
    LOGIT_SCALE,
    OutputQuantizer,
    QuantAveragePool2d,
    QuantConv2d,
    QuantMaxPool2d,
    QuantWeightLayer,
    SwitchableBatchNorm,
)
from quant.switchable import SwitchableNetwork


def export_network(model: SwitchableNetwork, provenance: Mapping[str, str] | None = None) -> Network:
    """Return the network of a trained model: stored codes once, and the real parameters of every width.

    Parameters
    ----------
    model : SwitchableNetwork
    provenance : mapping of str to str, optional
        How the network was made; free text for people.

    Raises
    ------
    ValueError
        If a parameter is not finite or a scale not positive; the message names the layer.
    """
    layers: list[Layer] = []
    for name, layer in model.items():
        wiring = model.wiring[name]
        if isinstance(layer, QuantMaxPool2d):
            layers.append(
                MaxPool2d(
                    name=name, input=wiring.input, kernel=layer.kernel, stride=layer.stride, padding=layer.padding
                )
            )
        elif isinstance(layer, QuantAveragePool2d):
            layers.append(
                AveragePool2d(
                    name=name,
                    input=wiring.input,
                    kernel=layer.kernel,
                    stride=layer.stride,
                    output=_output_scales(name, layer.output),
                )
            )
        else:
            layers.append(_weight_layer(name, layer, wiring.input, wiring.skip))
    return Network(
        width_set=model.width_set,
        image_shape=model.image_shape,
        layers=tuple(layers),
        provenance=dict(provenance or {}),
        learned={name: model.layer_widths(widths) for name, widths in model.learned.items()},
    )


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy()  # type: ignore[no-any-return]


def _output_scales(name: str, output: OutputQuantizer | None) -> OutputScales:
    if output is None:
        return OutputScales(logit=LOGIT_SCALE)
    code = {} if output.code is None else {bits: output.code.scale(bits).item() for bits in output.code.widths}
    try:
        return OutputScales(code=code, skip=None if output.skip is None else output.skip.scale.item())
    except ValueError as error:
        raise ValueError(f"layer {name}: {error}") from error


def _batch_norms(batch_norm: SwitchableBatchNorm | None) -> dict[int, BatchNorm]:
    if batch_norm is None:
        return {}
    return {int(bits): _batch_norm(batch_norm_set) for bits, batch_norm_set in batch_norm.sets.items()}


def _batch_norm(module: nn.Module) -> BatchNorm:
    assert isinstance(module, nn.BatchNorm2d)
    assert module.running_mean is not None and module.running_var is not None
    return BatchNorm(
        gamma=_array(module.weight),
        beta=_array(module.bias),
        mean=_array(module.running_mean),
        variance=_array(module.running_var),
        epsilon=module.eps,
    )


def _weight_layer(name: str, layer: QuantWeightLayer, source: str, skip: str | None) -> Conv2d | Linear:
    common: dict[str, Any] = {
        "name": name,
        "input": source,
        "codes": _array(layer.stored_codes()),
        "stored_bits": layer.stored_bits,
        "weight_scale": _array(layer.weight_scale).astype(np.float32),
        "batch_norms": _batch_norms(layer.batch_norm),
        "bias": None if layer.bias is None else _array(layer.bias),
        "relu": layer.relu,
        "skip": skip,
        "switch_rule": layer.switch_rule,
        "output": _output_scales(name, layer.output),
    }
    if isinstance(layer, QuantConv2d):
        return Conv2d(stride=layer.stride, padding=layer.padding, **common)
    return Linear(**common)
