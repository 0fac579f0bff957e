"""A network whose width is switched at run time: the prepared form of a user's model, in PyTorch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from hwsim.network import IMAGE, IMAGE_SCALE, PINNED_BITS, Assignment, LayerWidths, Shape
from hwsim.precision import WidthSet, check_bits
from quant.layers import (
    LOGIT_SCALE,
    QuantAveragePool2d,
    QuantConv2d,
    QuantMaxPool2d,
    QuantWeightLayer,
    StoredTensor,
)

QuantLayer: TypeAlias = QuantWeightLayer | QuantAveragePool2d | QuantMaxPool2d
Observer: TypeAlias = Callable[[str, Tensor], None]


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """What a layer reads: the tensor whose code it takes, and the tensor whose skip code it adds, if any."""

    input: str
    skip: str | None = None


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Resolved widths: of the weights of every weight layer, and of the code of every tensor that is read."""

    weight_bits: Mapping[str, int]
    code_bits: Mapping[str, int]


def _module_name(name: str) -> str:
    """Return the name of a layer's module: without dots, and not that of an attribute, such as ``keys``."""
    return f"{name}/" if hasattr(nn.ModuleDict(), name) else name.replace(".", "/")


class SwitchableNetwork(nn.Module):
    """Layers in execution order, each with the name of its module in the user's model.

    Made by :func:`quant.convert.prepare` or :func:`quant.assemble.assemble`. The tensor that a layer makes carries the
    layer's name; the input tensor is ``image``. The width is set with :func:`set_width` and starts at the highest.

    Parameters
    ----------
    width_set : WidthSet
    image_shape : tuple of int
        (channels, height, width).
    layers : mapping of str to layer
    wiring : mapping of str to Wiring

    Attributes
    ----------
    method : str
        Name of the method it was prepared for, in ``quant.methods.METHODS``.
    learned : dict of str to Widths
        Widths that training found, by the name that their assignment gets in the network file.
    fused : bool
        Whether passes in training mode run the kernels of ``quant.fused`` where they can; False until training sets it.
        They never do after ``compile``.
    """

    def __init__(
        self,
        width_set: WidthSet,
        image_shape: Shape,
        layers: Mapping[str, QuantLayer],
        wiring: Mapping[str, Wiring],
    ) -> None:
        super().__init__()
        self.width_set = width_set
        self.image_shape = image_shape
        self.names = tuple(layers)
        self.wiring = dict(wiring)
        self.method = ""
        self.learned: dict[str, Widths] = {}
        self.fused = False
        self._is_compiled = False
        self.layers = nn.ModuleDict({_module_name(name): layer for name, layer in layers.items()})
        self._readers: dict[str, tuple[str, ...]] = {
            tensor: tuple(name for name in self.names if self.wiring[name].input == tensor)
            for tensor in (IMAGE, *self.names)
        }
        self.widths = self._resolve_uniform(width_set.highest)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile as ``nn.Module`` does; training runs the plain operators then, since Numba's kernels stay closed."""
        self._is_compiled = True
        super().compile(*args, **kwargs)

    def layer(self, name: str) -> QuantLayer:
        """Return the layer called ``name``, or raise ``ValueError``."""
        if name not in self.wiring:
            raise ValueError(f"the network has no layer {name!r}")
        return self.layers[_module_name(name)]  # type: ignore[return-value]

    def items(self) -> Iterator[tuple[str, QuantLayer]]:
        """Iterate over (name, layer) in execution order."""
        return ((name, self.layer(name)) for name in self.names)

    @property
    def classes(self) -> int:
        """Logits of an image."""
        return len(dict(self.weight_layers())[self.names[-1]].weight)

    def weight_layers(self) -> Iterator[tuple[str, QuantWeightLayer]]:
        """Iterate over (name, layer) of the layers that have stored codes, in execution order."""
        return ((name, layer) for name, layer in self.items() if isinstance(layer, QuantWeightLayer))

    def readers(self, tensor: str) -> tuple[str, ...]:
        """Return the names of the layers that read the code of ``tensor``."""
        return self._readers[tensor]

    def is_pinned(self, name: str) -> bool:
        """Return whether a layer runs at W8A8 always: it reads the image or makes the logits."""
        layer = self.layer(name)
        return isinstance(layer, QuantWeightLayer) and (self.wiring[name].input == IMAGE or layer.makes_logits)

    def forward(
        self, images: Tensor, observe: Observer | None = None, stored: dict[str, StoredTensor] | None = None
    ) -> Tensor:
        """Return the logits at the width that is set.

        Parameters
        ----------
        images : uint8 tensor of shape (n, channels, height, width)
        observe : callable of (str, Tensor), optional
            Called with the name and the real output, before it is stored, of every layer but max pooling.
        stored : dict, optional
            Filled with the stored forms, as real values, of every tensor; the image included, the logits as a code.

        Returns
        -------
        float tensor of shape (n, classes)
            On the grid of the logits' scale.

        Raises
        ------
        TypeError, ValueError
            If the images have another dtype or shape.
        """
        if not isinstance(images, Tensor) or images.dtype != torch.uint8:
            told = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise TypeError(f"images must be a uint8 tensor, not {told}")
        if images.dim() != 4 or tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(f"images must have shape (n, {self._told_shape()}), not {tuple(images.shape)}")
        parameter = next(self.parameters())
        tensors = {} if stored is None else stored
        fuses = self.fused and self.training and observe is None and not self._is_compiled
        narrow = torch.is_autocast_enabled("cpu")
        tensors[IMAGE] = StoredTensor(images.to(parameter.dtype) * IMAGE_SCALE)
        for name, layer in self.items():
            wiring = self.wiring[name]
            values = tensors[wiring.input].code
            assert values is not None
            if isinstance(layer, QuantMaxPool2d):
                tensors[name] = StoredTensor(layer(values))
                continue
            code_bits = self.widths.code_bits.get(name)
            if fuses and isinstance(layer, QuantWeightLayer):
                added = None if wiring.skip is None else tensors[wiring.skip]
                narrow_code = narrow and self._only_convolved(name)
                weight_bits = self.widths.weight_bits[name]
                tensors[name] = layer.forward_fused(values, added, weight_bits, code_bits, narrow, narrow_code)
                continue
            if isinstance(layer, QuantAveragePool2d):
                real = layer.real_output(values)
            else:
                skip = None if wiring.skip is None else tensors[wiring.skip].real_skip
                real = layer.real_output(values, skip, self.widths.weight_bits[name])
            if observe is not None:
                observe(name, real)
            if isinstance(layer, QuantWeightLayer):
                tensors[name] = layer.store(real, code_bits)
            else:
                tensors[name] = layer.output(real, code_bits)
        logits = tensors[self.names[-1]].code
        assert logits is not None
        return logits.flatten(1)

    def _only_convolved(self, tensor: str) -> bool:
        return all(isinstance(self.layer(reader), QuantConv2d) for reader in self.readers(tensor))

    def _told_shape(self) -> str:
        return ", ".join(str(size) for size in self.image_shape)

    def _pinned_code(self, tensor: str) -> bool:
        return tensor == IMAGE or any(self.is_pinned(reader) for reader in self.readers(tensor))

    def code_widths(self, tensor: str) -> tuple[int, ...]:
        """Return the widths at which some assignment reads the code of ``tensor``, in descending order."""
        return code_widths(tensor, self._readers, self._is_max_pool, self.is_pinned, self.width_set)

    def _is_max_pool(self, name: str) -> bool:
        return isinstance(self.layer(name), QuantMaxPool2d)

    def resolve(self, weight_bits: Callable[[str], int], activation_bits: Callable[[str], int]) -> Widths:
        """Return widths from a weight width for each layer and an activation width for each tensor.

        Pinned layers are W8A8 whatever the callables say, and max pooling keeps the width of its reader's code.
        """

        def code_bits(tensor: str) -> int:
            if self._pinned_code(tensor):
                return PINNED_BITS
            for reader in self.readers(tensor):
                if self._is_max_pool(reader):
                    return code_bits(reader)
            return activation_bits(tensor)

        return Widths(
            weight_bits={
                name: PINNED_BITS if self.is_pinned(name) else weight_bits(name) for name, _ in self.weight_layers()
            },
            code_bits={tensor: code_bits(tensor) for tensor in (IMAGE, *self.names) if self.readers(tensor)},
        )

    def _resolve_uniform(self, bits: int) -> Widths:
        return self.resolve(lambda name: bits, lambda tensor: bits)

    def _resolve_layers(self, layers: Mapping[str, LayerWidths]) -> Widths:
        for name in layers:
            self.layer(name)
        for name, layer in self.items():
            if name not in layers:
                if not self.is_pinned(name) and not isinstance(layer, QuantMaxPool2d):
                    raise ValueError(f"layer {name}: has no width")
                continue
            widths = layers[name]
            if isinstance(layer, QuantWeightLayer) and not self.is_pinned(name):
                if widths.weight_bits is None:
                    raise ValueError(f"layer {name}: has no weight width")
                self.width_set.require(widths.weight_bits, f"layer {name}: the weight width")
        asked: dict[str, int] = {}
        for name in self.names:
            tensor = self.wiring[name].input
            bits = PINNED_BITS if self.is_pinned(name) else layers[name].activation_bits if name in layers else None
            if bits is None:
                continue
            if asked.setdefault(tensor, bits) != bits:
                raise ValueError(
                    f"all readers of {tensor} share its width, but {name} reads {bits} bits, not {asked[tensor]}"
                )
            if bits not in self.code_widths(tensor):
                allowed = ", ".join(str(width) for width in self.code_widths(tensor))
                raise ValueError(f"layer {name}: the activation width must be one of {allowed}, not {bits}")

        def weight_bits(name: str) -> int:
            bits = layers[name].weight_bits
            assert bits is not None
            return bits

        return self.resolve(weight_bits, lambda tensor: asked[tensor])

    def layer_widths(self, widths: Widths) -> dict[str, LayerWidths]:
        """Return resolved widths as an assignment of ``hwsim.network`` has them."""
        return {
            name: LayerWidths(widths.weight_bits.get(name), widths.code_bits[self.wiring[name].input])
            for name in self.names
        }

    def random_widths(self, generator: random.Random) -> Widths:
        """Return widths drawn at random for every layer and every tensor that is not pinned."""
        return self.resolve(
            lambda name: generator.choice(self.width_set.widths), lambda tensor: generator.choice(self.width_set.widths)
        )

    @property
    def logit_scale(self) -> float:
        """Real value of one step of the logits."""
        return LOGIT_SCALE


def code_widths(
    tensor: str,
    readers: Mapping[str, tuple[str, ...]],
    is_max_pool: Callable[[str], bool],
    is_pinned: Callable[[str], bool],
    width_set: WidthSet,
) -> tuple[int, ...]:
    """Return the widths at which the code of ``tensor`` has a scale, in descending order; empty if nothing reads it.

    Parameters
    ----------
    readers : mapping of str to tuple of str
        Tensor -> layers that read its code.
    is_max_pool, is_pinned : callable of str to bool
        Whether a layer is a max pooling; whether it runs at W8A8 always.
    """
    widths: set[int] = set()
    for reader in readers[tensor]:
        if is_max_pool(reader):
            widths.update(code_widths(reader, readers, is_max_pool, is_pinned, width_set))
        elif is_pinned(reader):
            widths.add(PINNED_BITS)
        else:
            widths.update(width_set.widths)
    return tuple(sorted(widths, reverse=True))


def set_width(
    model: SwitchableNetwork, width: int | Assignment | Widths | Mapping[str, int | LayerWidths]
) -> SwitchableNetwork:
    """Set the widths at which a prepared model runs, and return the model.

    Parameters
    ----------
    model : SwitchableNetwork
    width : int, Assignment, Widths or mapping
        One width of the set for all weights and activations, an assignment of ``hwsim.network``, or for every layer
        that is not pinned its ``LayerWidths`` (an int stands for both the weights and the input activations).

    Raises
    ------
    TypeError, ValueError
        If a width is not in the set, a layer is missing or unknown, or readers of one tensor disagree.
    """
    if isinstance(width, Widths):
        model.widths = width
    elif isinstance(width, Assignment):
        model.widths = model._resolve_layers(width.layers)
    elif isinstance(width, Mapping):
        layers = {
            name: bits if isinstance(bits, LayerWidths) else LayerWidths(bits, check_bits(bits, f"layer {name}"))
            for name, bits in width.items()
        }
        model.widths = model._resolve_layers(layers)
    else:
        bits = check_bits(width, "the width")
        model.width_set.require(bits, "the width")
        model.widths = model._resolve_uniform(bits)
    return model
