"""Switchable networks from layers with their quantizers: those that ``prepare`` inserts, or placed by hand."""

from __future__ import annotations

from collections.abc import Mapping

from hwsim.network import IMAGE, PINNED_BITS, Shape
from hwsim.precision import WidthSet
from quant.layers import OutputQuantizer, QuantMaxPool2d, QuantWeightLayer
from quant.methods import DOUBLE_ROUNDING
from quant.methods import method as find_method
from quant.switchable import QuantLayer, SwitchableNetwork, Wiring


def assemble(
    layers: Mapping[str, QuantLayer],
    wiring: Mapping[str, Wiring],
    widths: WidthSet | tuple[int, ...],
    image_shape: Shape,
    *,
    method: str = DOUBLE_ROUNDING,
) -> SwitchableNetwork:
    """Return the switchable network of layers that have their quantizers.

    ``prepare`` places quantizers by the structure of a float model; here they are placed by hand. Either network is
    trained, exported and run alike.

    Parameters
    ----------
    layers : mapping of str to layer
        In execution order. Layers that read the image or make the logits are W8A8 always: 8 stored bits, and a
        BatchNorm set and a code of 8 bits.
    wiring : mapping of str to Wiring
        What each layer reads.
    widths : WidthSet or tuple of int
    image_shape : tuple of int
        (channels, height, width).
    method : str
        How it will be trained, a name in ``quant.methods.METHODS``.

    Raises
    ------
    ValueError
        If the method is unknown or cannot do the widths, or a quantizer is not where or as the hardware has it; the
        message names the layer.

    Examples
    --------
    >>> import torch
    >>> from quant.layers import OutputQuantizer, QuantConv2d, QuantLinear
    >>> convolution = QuantConv2d(
    ...     weight=torch.randn(4, 1, 3, 3), bias=None, batch_norm=None, relu=True, stored_bits=8, stride=1, padding=1,
    ...     output=OutputQuantizer((8,), feeds_add=False, signed=False),
    ... )
    >>> classes = QuantLinear(
    ...     weight=torch.randn(10, 256), bias=None, batch_norm=None, relu=False, stored_bits=8, output=None
    ... )
    >>> wiring = {"conv": Wiring(input="image"), "classes": Wiring(input="conv")}
    >>> model = assemble({"conv": convolution, "classes": classes}, wiring, (8, 4), (1, 8, 8))
    >>> model(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).shape
    torch.Size([2, 10])
    """
    chosen = find_method(method)
    width_set = widths if isinstance(widths, WidthSet) else WidthSet(tuple(widths))
    chosen.check_widths(width_set)
    _check_wiring(layers, wiring)
    network = SwitchableNetwork(width_set, image_shape, layers, wiring)
    for name, layer in network.items():
        if isinstance(layer, QuantMaxPool2d):
            if any(read.skip == name for read in wiring.values()):
                raise ValueError(f"layer {name}: a max pooling stores no skip code and cannot be added")
            continue
        if isinstance(layer, QuantWeightLayer):
            _check_weights(network, name, layer)
        if layer.output is not None:
            _check_output(network, name, layer.output, not isinstance(layer, QuantWeightLayer) or layer.relu)
    network.method = method
    chosen.adjust(network)
    return network


def _check_wiring(layers: Mapping[str, QuantLayer], wiring: Mapping[str, Wiring]) -> None:
    if not layers or set(layers) != set(wiring):
        raise ValueError(f"the wiring must have an entry for each of the layers {list(layers)}, not {list(wiring)}")
    made = [IMAGE]
    for name, layer in layers.items():
        read = wiring[name]
        if read.input not in made:
            raise ValueError(f"layer {name}: its input must be the image or a layer before it, not {read.input!r}")
        if read.skip is not None and read.skip not in made[1:]:
            raise ValueError(f"layer {name}: its skip must be a layer before it, not {read.skip!r}")
        if not isinstance(layer, QuantWeightLayer) and read.input == IMAGE:
            raise ValueError(f"layer {name}: the image must be read by a convolution or linear layer first")
        if not isinstance(layer, QuantWeightLayer) and read.skip is not None:
            raise ValueError(f"layer {name}: only convolutions and linear layers add a skip")
        made.append(name)
        makes_logits = isinstance(layer, QuantWeightLayer) and layer.makes_logits
        if makes_logits != (name == list(layers)[-1]):
            raise ValueError(f"layer {name}: the last layer, and no other, must make the logits (no output quantizer)")


def _check_output(network: SwitchableNetwork, name: str, output: OutputQuantizer, unsigned: bool) -> None:
    widths = network.code_widths(name)
    found = () if output.code is None else output.code.widths
    if found != widths:
        raise ValueError(f"layer {name}: its codes must have the widths {widths}, as its readers do, not {found}")
    if widths and not unsigned:
        raise ValueError(f"layer {name}: is read as a code and needs a ReLU, because activation codes are unsigned")
    if (output.skip is not None) != any(read.skip == name for read in network.wiring.values()):
        raise ValueError(f"layer {name}: must store a skip code (feeds_add) if and only if a layer adds it")
    if output.skip is not None and output.skip.signed == unsigned:
        raise ValueError(f"layer {name}: its skip code must be signed if and only if it has no ReLU")


def _check_weights(network: SwitchableNetwork, name: str, layer: QuantWeightLayer) -> None:
    pinned = network.is_pinned(name)
    stored_bits = PINNED_BITS if pinned else network.width_set.highest
    if layer.stored_bits != stored_bits:
        raise ValueError(f"layer {name}: stored_bits must be {stored_bits}, not {layer.stored_bits}")
    if layer.batch_norm is not None:
        sets = tuple(int(bits) for bits in layer.batch_norm.sets)
        expected = (PINNED_BITS,) if pinned else network.width_set.widths
        if set(sets) != set(expected):
            raise ValueError(f"layer {name}: its BatchNorm must have sets for the widths {expected}, not {sets}")
