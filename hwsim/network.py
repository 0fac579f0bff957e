"""Networks: layers with stored codes and real parameters, and the assignment of a width to every layer.

A network is a list of layers in execution order. Each layer names the tensor it reads; the tensor it makes carries
the layer's own name. The input tensor is called ``image``. A tensor has up to two stored forms: the *code*, unsigned,
at the activation width of the layers that read it, and the *skip code*, 8 bits with a scale of its own, if it feeds
an add. Where both exist the code is made from the skip code by a second requantization.

The first and the last weight layer are *pinned*: stored at 8 bits and run at W8A8 in every assignment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hwsim import spec
from hwsim.precision import WidthSet, check_bits

IMAGE = "image"
IMAGE_SCALE = 1 / 255
PINNED_BITS = 8

ROUND, FLOOR = "round", "floor"
SWITCH_RULES: dict[str, Callable[[int, int, int], int]] = {ROUND: spec.switch, FLOOR: spec.switch_floor}
"""How a layer's stored codes are switched: (code, stored bits, target bits) -> weight."""

Shape: TypeAlias = tuple[int, int, int]
"""(channels, height, width) of one tensor of one image."""

Float32Vector: TypeAlias = NDArray[np.float32]


def _float32_vector(values: object, length: int, what: str) -> Float32Vector:
    array = np.asarray(values)
    if array.dtype != np.float32 or array.shape != (length,):
        raise ValueError(f"{what} must be float32 of shape ({length},), not {array.dtype} of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} must be finite, not {array[~np.isfinite(array)][0]}")
    array = array.copy()
    array.setflags(write=False)
    return array


def _positive_float32(value: object, what: str) -> float:
    scale = float(np.float32(value))  # type: ignore[arg-type]
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"{what} must be positive and finite, not {value!r}")
    return scale


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchNorm:
    """Inference parameters of one BatchNorm set, each float32 of shape (channels,); ``epsilon`` is a float32 number."""

    gamma: Float32Vector
    beta: Float32Vector
    mean: Float32Vector
    variance: Float32Vector
    epsilon: float

    def __post_init__(self) -> None:
        channels = len(np.atleast_1d(self.gamma))
        for name in ("gamma", "beta", "mean", "variance"):
            object.__setattr__(self, name, _float32_vector(getattr(self, name), channels, f"BatchNorm {name}"))
        if (self.variance < 0).any():
            raise ValueError(f"BatchNorm variance must not be negative, not {self.variance.min()}")
        object.__setattr__(self, "epsilon", _positive_float32(self.epsilon, "BatchNorm epsilon"))

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.gamma)


@dataclass(frozen=True, kw_only=True, eq=False)
class OutputScales:
    """Real value of one step of each stored form of a tensor.

    Parameters
    ----------
    code : mapping of int to float
        Activation width in bits -> float32 scale of the unsigned code. Empty if no layer reads the code.
    skip : float or None
        Float32 scale of the 8-bit skip code, or None if the tensor feeds no add.
    logit : float or None
        Float32 scale of the int32 logits, for the last layer only; then the other two are empty.
    """

    code: Mapping[int, float] = field(default_factory=dict)
    skip: float | None = None
    logit: float | None = None

    def __post_init__(self) -> None:
        code = {
            check_bits(bits, "an activation width"): _positive_float32(scale, f"the scale at {bits} bits")
            for bits, scale in self.code.items()
        }
        object.__setattr__(self, "code", code)
        if self.skip is not None:
            object.__setattr__(self, "skip", _positive_float32(self.skip, "the skip scale"))
        if self.logit is not None:
            object.__setattr__(self, "logit", _positive_float32(self.logit, "the logit scale"))
            if code or self.skip is not None:
                raise ValueError("a layer that makes logits stores neither a code nor a skip code")


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightLayer:
    """What a convolution and a linear layer have in common.

    The layer makes ``BatchNorm(scale * accumulator + bias) [+ skip]``, then ReLU if ``relu``, then the stored forms.

    Parameters
    ----------
    name, input : str
        The layer (and the tensor it makes); the tensor it reads.
    codes : ndarray of int8
        Stored codes; shape (out, in, kernel_height, kernel_width) or (out, in).
    stored_bits : int
        h, the width of the stored codes.
    weight_scale : ndarray of float32, shape (out,)
        Real value of one step of the stored code, one for each output channel; serves every width.
    batch_norms : mapping of int to BatchNorm
        Weight width -> BatchNorm set; empty if the layer has none.
    bias : ndarray of float32, shape (out,), or None
    relu : bool
    skip : str or None
        Tensor whose skip code is added before the ReLU.
    output : OutputScales
    switch_rule : str
        Name in ``SWITCH_RULES``.

    Raises
    ------
    ValueError
        If shapes, dtypes or code ranges disagree.
    """

    name: str
    input: str
    codes: NDArray[np.int8]
    stored_bits: int
    weight_scale: Float32Vector
    batch_norms: Mapping[int, BatchNorm] = field(default_factory=dict)
    bias: Float32Vector | None = None
    relu: bool = False
    skip: str | None = None
    output: OutputScales
    switch_rule: str = ROUND

    CODE_DIMENSIONS: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check_bits(self.stored_bits, f"layer {self.name}: the stored width")
        if not isinstance(self.relu, bool):
            raise TypeError(f"layer {self.name}: relu must be True or False, not {self.relu!r}")
        if self.switch_rule not in SWITCH_RULES:
            known = " or ".join(SWITCH_RULES)
            raise ValueError(f"layer {self.name}: the switch rule must be {known}, not {self.switch_rule!r}")
        codes = np.asarray(self.codes)
        if codes.dtype != np.int8 or codes.ndim != self.CODE_DIMENSIONS or codes.size == 0:
            raise ValueError(
                f"layer {self.name}: codes must be int8 with {self.CODE_DIMENSIONS} dimensions, "
                f"not {codes.dtype} of shape {codes.shape}"
            )
        low, high = spec.signed_low(self.stored_bits), spec.signed_high(self.stored_bits)
        if codes.min() < low or codes.max() > high:
            raise ValueError(
                f"layer {self.name}: codes of {self.stored_bits} bits must be {low} .. {high}, "
                f"not {codes.min()} .. {codes.max()}"
            )
        codes = codes.copy()
        codes.setflags(write=False)
        object.__setattr__(self, "codes", codes)
        channels = codes.shape[0]
        scale = _float32_vector(self.weight_scale, channels, f"layer {self.name}: the weight scale")
        if (scale <= 0).any():
            raise ValueError(f"layer {self.name}: the weight scale must be positive, not {scale.min()}")
        object.__setattr__(self, "weight_scale", scale)
        if self.bias is not None:
            bias = _float32_vector(self.bias, channels, f"layer {self.name}: the bias")
            object.__setattr__(self, "bias", bias)
        for bits, batch_norm in self.batch_norms.items():
            check_bits(bits, f"layer {self.name}: a BatchNorm width")
            if batch_norm.channels != channels:
                raise ValueError(
                    f"layer {self.name}: BatchNorm at {bits} bits must have {channels} channels, "
                    f"not {batch_norm.channels}"
                )

    @property
    def out_channels(self) -> int:
        """Number of output channels."""
        return int(self.codes.shape[0])

    @property
    def makes_logits(self) -> bool:
        """Whether the output leaves as int32 logits."""
        return self.output.logit is not None


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv2d(WeightLayer):
    """A 2-D convolution; ``codes`` have shape (out, in, kernel_height, kernel_width), ``padding`` zeros around it."""

    stride: int = 1
    padding: int = 0

    CODE_DIMENSIONS: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_window(self.name, self.kernel, self.stride, self.padding)

    @property
    def kernel(self) -> tuple[int, int]:
        """(height, width) of the kernel."""
        return int(self.codes.shape[2]), int(self.codes.shape[3])


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear(WeightLayer):
    """A linear layer over the input tensor flattened in (channel, row, column) order; ``codes`` are (out, in)."""

    CODE_DIMENSIONS: ClassVar[int] = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class AveragePool2d:
    """Average pooling without padding: codes of a window are summed and requantized once.

    ``kernel`` is (height, width); global average pooling has the input's own height and width.
    """

    name: str
    input: str
    kernel: tuple[int, int]
    stride: int
    output: OutputScales

    def __post_init__(self) -> None:
        _check_window(self.name, self.kernel, self.stride, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool2d:
    """Max pooling of codes; the output keeps the input's width and scale, and padding (code 0) never wins."""

    name: str
    input: str
    kernel: tuple[int, int]
    stride: int
    padding: int = 0

    def __post_init__(self) -> None:
        _check_window(self.name, self.kernel, self.stride, self.padding)


Layer: TypeAlias = Conv2d | Linear | AveragePool2d | MaxPool2d


def _check_window(name: str, kernel: tuple[int, int], stride: int, padding: int) -> None:
    for value in (*kernel, stride, padding):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"layer {name}: kernel, stride and padding must be integers, not {value!r}")
    if min(kernel) < 1 or stride < 1:
        raise ValueError(f"layer {name}: kernel and stride must be at least 1, not {kernel} and {stride}")
    if not 0 <= padding < min(kernel):
        raise ValueError(f"layer {name}: padding must be 0 .. kernel - 1, not {padding} for a kernel of {kernel}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A network, checked when made.

    Parameters
    ----------
    width_set : WidthSet
        Widths the network was trained for.
    image_shape : tuple of int
        (channels, height, width) of an image.
    layers : tuple of Layer
        In execution order; the last one makes the logits.
    provenance : mapping of str to str
        How the network was made; free text for people.
    learned : mapping of str to mapping of str to LayerWidths
        Assignments that training found, by name: the widths of every layer. Not called like the standard ones.

    Raises
    ------
    ValueError
        If a name is used twice, an input is unknown or made later, shapes disagree, or a scale or BatchNorm set that
        an assignment may ask for is missing.
    """

    width_set: WidthSet
    image_shape: Shape
    layers: tuple[Layer, ...]
    provenance: Mapping[str, str] = field(default_factory=dict)
    learned: Mapping[str, Mapping[str, LayerWidths]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise ValueError(f"image shape must be (channels, height, width), not {self.image_shape}")
        if not self.layers:
            raise ValueError("a network must have at least one layer")
        object.__setattr__(self, "layers", tuple(self.layers))
        shapes: dict[str, Shape] = {IMAGE: self.image_shape}
        for layer in self.layers:
            if layer.name in shapes:
                raise ValueError(f"layer {layer.name}: the name is used twice")
            if layer.input not in shapes:
                raise ValueError(f"layer {layer.name}: its input {layer.input!r} is not made by an earlier layer")
            shapes[layer.name] = _output_shape(layer, shapes[layer.input])
            self._check_skip(layer, shapes)
        object.__setattr__(self, "_shapes", shapes)
        object.__setattr__(self, "_by_name", {layer.name: layer for layer in self.layers})
        self._check_forms()
        for name, widths in self.learned.items():
            if name.startswith(("W", "mixed-")) or not name or set(name) & set(", "):
                raise ValueError(f"a learned assignment must have a name of its own, not {name!r}")
            Assignment(name=name, network=self, layers=widths)

    def _check_skip(self, layer: Layer, shapes: Mapping[str, Shape]) -> None:
        skip = layer.skip if isinstance(layer, WeightLayer) else None
        if skip is None:
            return
        if skip not in shapes or skip in (IMAGE, layer.name):
            raise ValueError(f"layer {layer.name}: its skip {skip!r} is not made by an earlier layer")
        if shapes[skip] != shapes[layer.name]:
            raise ValueError(f"layer {layer.name}: adds {shapes[skip]} of {skip} to its own {shapes[layer.name]}")

    def _check_forms(self) -> None:
        last = self.layers[-1]
        for layer in self.layers:
            if isinstance(layer, WeightLayer) and layer.makes_logits != (layer is last):
                raise ValueError(f"layer {layer.name}: the last layer, and no other, must make logits")
            readers = self.readers(layer.name)
            adders = self.adders(layer.name)
            if layer is not last and not readers and not adders:
                raise ValueError(f"layer {layer.name}: nothing reads its output")
            if isinstance(layer, WeightLayer):
                self._check_weight_layer(layer)
            if isinstance(layer, MaxPool2d):
                if adders:
                    raise ValueError(f"layer {layer.name}: max pooling stores no skip code, yet {adders[0]} adds it")
                if layer.input == IMAGE:
                    raise ValueError(f"layer {layer.name}: the image must be read by a weight layer first")
                continue
            if isinstance(layer, AveragePool2d) and layer.input == IMAGE:
                raise ValueError(f"layer {layer.name}: the image must be read by a weight layer first")
            if adders and layer.output.skip is None:
                raise ValueError(f"layer {layer.name}: feeds the add of {adders[0]} and needs a skip scale")
            for bits in self._code_widths(layer.name):
                if bits not in layer.output.code:
                    raise ValueError(f"layer {layer.name}: its output is read at {bits} bits and has no scale there")
        if not isinstance(last, WeightLayer):
            raise ValueError(f"layer {last.name}: the last layer must be a weight layer that makes logits")

    def _check_weight_layer(self, layer: WeightLayer) -> None:
        pinned = self.is_pinned(layer)
        stored_bits = PINNED_BITS if pinned else self.width_set.highest
        if layer.stored_bits != stored_bits:
            raise ValueError(f"layer {layer.name}: must store {stored_bits}-bit codes, not {layer.stored_bits}")
        if layer.batch_norms:
            for bits in (PINNED_BITS,) if pinned else self.width_set.widths:
                if bits not in layer.batch_norms:
                    raise ValueError(f"layer {layer.name}: has no BatchNorm set at {bits} bits")
        source = self._by_name.get(layer.skip) if layer.skip else None  # type: ignore[attr-defined]
        if source is not None and isinstance(source, MaxPool2d):
            raise ValueError(f"layer {layer.name}: adds {source.name}, but max pooling stores no skip code")

    def _code_widths(self, tensor: str) -> tuple[int, ...]:
        """Widths at which some assignment reads the code of ``tensor``."""
        widths: set[int] = set()
        for name in self.readers(tensor):
            reader = self.layer(name)
            if isinstance(reader, MaxPool2d):
                widths.update(self._code_widths(name))
            elif self.is_pinned(reader):
                widths.add(PINNED_BITS)
            else:
                widths.update(self.width_set.widths)
        return tuple(sorted(widths, reverse=True))

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def layer(self, name: str) -> Layer:
        """Return the layer called ``name``, or raise ``ValueError``."""
        try:
            return self._by_name[name]  # type: ignore[attr-defined,no-any-return]
        except KeyError:
            raise ValueError(f"the network has no layer {name!r}") from None

    def shape(self, tensor: str) -> Shape:
        """Return (channels, height, width) of a tensor."""
        return self._shapes[tensor]  # type: ignore[attr-defined,no-any-return]

    def readers(self, tensor: str) -> tuple[str, ...]:
        """Return the names of the layers that read the code of ``tensor``."""
        return tuple(layer.name for layer in self.layers if layer.input == tensor)

    def adders(self, tensor: str) -> tuple[str, ...]:
        """Return the names of the layers that add the skip code of ``tensor``."""
        return tuple(layer.name for layer in self.layers if isinstance(layer, WeightLayer) and layer.skip == tensor)

    def is_pinned(self, layer: Layer | WeightLayer) -> bool:
        """Return whether a layer runs at W8A8 in every assignment: it reads the image or makes the logits."""
        return isinstance(layer, WeightLayer) and (layer.input == IMAGE or layer.makes_logits)

    def skip_range(self, tensor: str) -> tuple[int, int]:
        """Return the range of the skip code of ``tensor``: unsigned after a ReLU or a pooling, signed otherwise."""
        layer = self.layer(tensor)
        if isinstance(layer, WeightLayer) and not layer.relu:
            return spec.signed_low(spec.SKIP_BITS), spec.signed_high(spec.SKIP_BITS)
        return 0, spec.unsigned_high(spec.SKIP_BITS)

    @property
    def weight_layers(self) -> tuple[WeightLayer, ...]:
        """The layers that have stored codes, in execution order."""
        return tuple(layer for layer in self.layers if isinstance(layer, WeightLayer))

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.weight_layers[-1].out_channels

    def macs(self, layer: WeightLayer) -> int:
        """Return the multiply-accumulates of a layer for one image, padding taps included."""
        _, height, width = self.shape(layer.name)
        return int(layer.codes.size) * height * width


def _output_shape(layer: Layer, shape: Shape) -> Shape:
    channels, height, width = shape
    if isinstance(layer, Linear):
        if layer.codes.shape[1] != channels * height * width:
            raise ValueError(
                f"layer {layer.name}: has {layer.codes.shape[1]} inputs, but {layer.input} has shape {shape}"
            )
        return layer.out_channels, 1, 1
    kernel_height, kernel_width = layer.kernel
    padding = 0 if isinstance(layer, AveragePool2d) else layer.padding
    out_height = (height + 2 * padding - kernel_height) // layer.stride + 1
    out_width = (width + 2 * padding - kernel_width) // layer.stride + 1
    if out_height < 1 or out_width < 1:
        raise ValueError(f"layer {layer.name}: a kernel of {layer.kernel} does not fit into {layer.input} of {shape}")
    if isinstance(layer, Conv2d):
        if layer.codes.shape[1] != channels:
            raise ValueError(
                f"layer {layer.name}: has {layer.codes.shape[1]} input channels, but {layer.input} has {channels}"
            )
        return layer.out_channels, out_height, out_width
    return channels, out_height, out_width


@dataclass(frozen=True)
class LayerWidths:
    """Widths of one layer: of its weights (None for pooling) and of the activations it reads."""

    weight_bits: int | None
    activation_bits: int

    def __str__(self) -> str:
        return f"A{self.activation_bits}" if self.weight_bits is None else f"W{self.weight_bits}A{self.activation_bits}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Assignment:
    """For every layer of one network, the width of its weights and of its input activations.

    Parameters
    ----------
    name : str
        ``W4A4`` and the like for uniform ones.
    network : Network
    layers : mapping of str to LayerWidths
        One entry for each layer of the network, in any order; kept in execution order.

    Raises
    ------
    ValueError
        If a layer is missing or unknown, a width is not in the network's set, a pinned layer is not W8A8, or the
        readers of one tensor disagree on its width.
    """

    name: str
    network: Network
    layers: Mapping[str, LayerWidths]

    def __post_init__(self) -> None:
        network = self.network
        for name in self.layers:
            network.layer(name)
        for layer in network:
            if layer.name not in self.layers:
                raise ValueError(f"assignment {self.name}: has no widths for layer {layer.name}")
            self._check_layer(layer, self.layers[layer.name])
        # Whoever goes through an assignment meets the layers in execution order.
        object.__setattr__(self, "layers", {layer.name: self.layers[layer.name] for layer in network})
        for tensor in (IMAGE, *(layer.name for layer in network)):
            self._check_readers(tensor)

    def _check_layer(self, layer: Layer, widths: LayerWidths) -> None:
        where = f"assignment {self.name}, layer {layer.name}"
        if self.network.is_pinned(layer):
            if widths != LayerWidths(PINNED_BITS, PINNED_BITS):
                raise ValueError(f"{where}: the first and the last layer must be W8A8, not {widths}")
            return
        if isinstance(layer, WeightLayer):
            if widths.weight_bits is None:
                raise ValueError(f"{where}: has no weight width")
            self.network.width_set.require(widths.weight_bits, f"{where}: the weight width")
        elif widths.weight_bits is not None:
            raise ValueError(f"{where}: pooling has no weights, yet a weight width of {widths.weight_bits}")
        allowed = (*self.network.width_set.widths, PINNED_BITS)
        if widths.activation_bits not in allowed:
            raise ValueError(
                f"{where}: the activation width must be one of {self.network.width_set}, not {widths.activation_bits}"
            )

    def _check_readers(self, tensor: str) -> None:
        readers = self.network.readers(tensor)
        bits = {self.layers[name].activation_bits for name in readers}
        if len(bits) > 1:
            told = ", ".join(f"{name} at {self.layers[name].activation_bits}" for name in readers)
            raise ValueError(f"assignment {self.name}: all readers of {tensor} share its width, not {told}")
        if readers and tensor != IMAGE:
            producer = self.network.layer(tensor)
            if isinstance(producer, MaxPool2d):
                made = self.layers[tensor].activation_bits
                if bits != {made}:
                    raise ValueError(
                        f"assignment {self.name}: max pooling {tensor} keeps its width of {made} bits, "
                        f"but {readers[0]} reads {bits.pop()}"
                    )
            elif bits and min(bits) not in producer.output.code:
                raise ValueError(f"assignment {self.name}: {tensor} has no scale at {bits.pop()} bits")

    def weight_bits(self, layer: str) -> int:
        """Return the weight width of a weight layer."""
        bits = self.layers[layer].weight_bits
        if bits is None:
            raise ValueError(f"layer {layer} has no weights")
        return bits

    def activation_bits(self, layer: str) -> int:
        """Return the width of the activations that a layer reads."""
        return self.layers[layer].activation_bits

    def code_bits(self, tensor: str) -> int | None:
        """Return the width of the code of a tensor, or None if no layer reads its code."""
        readers = self.network.readers(tensor)
        return self.layers[readers[0]].activation_bits if readers else None

    @property
    def average_weight_bits(self) -> float:
        """Weight bits switched to, divided by the number of weights, over the layers that are not pinned."""
        layers = [layer for layer in self.network.weight_layers if not self.network.is_pinned(layer)]
        if not layers:
            return float(PINNED_BITS)
        return sum(self.weight_bits(layer.name) * layer.codes.size for layer in layers) / sum(
            layer.codes.size for layer in layers
        )


def uniform_assignment(network: Network, weight_bits: int, activation_bits: int | None = None) -> Assignment:
    """Return the assignment ``W<weight_bits>A<activation_bits>``; the activation width defaults to the weights'.

    Raises
    ------
    ValueError
        If a width is not in the network's set.
    """
    activation_bits = weight_bits if activation_bits is None else activation_bits
    name = f"W{weight_bits}A{activation_bits}"
    network.width_set.require(weight_bits, "the weight width")
    network.width_set.require(activation_bits, "the activation width")
    return assignment_from_weights(
        network, name, {layer.name: weight_bits for layer in network.weight_layers}, lambda tensor: activation_bits
    )


def assignment_from_weights(
    network: Network, name: str, weight_bits: Mapping[str, int], activation_bits: Callable[[str], int]
) -> Assignment:
    """Return an assignment from a weight width for each layer and an activation width for each tensor.

    Parameters
    ----------
    network : Network
    name : str
    weight_bits : mapping of str to int
        Weight layer -> width; pinned layers are W8 whatever it says.
    activation_bits : callable of str to int
        Tensor -> width of its code; tensors read by pinned layers are 8 bits whatever it says.
    """

    def code_bits(tensor: str) -> int:
        if tensor == IMAGE or any(network.is_pinned(network.layer(reader)) for reader in network.readers(tensor)):
            return PINNED_BITS
        for reader in network.readers(tensor):
            if isinstance(network.layer(reader), MaxPool2d):
                return code_bits(reader)
        return int(activation_bits(tensor))

    layers = {}
    for layer in network:
        bits = None
        if isinstance(layer, WeightLayer):
            bits = PINNED_BITS if network.is_pinned(layer) else int(weight_bits[layer.name])
        layers[layer.name] = LayerWidths(bits, code_bits(layer.input))
    return Assignment(name=name, network=network, layers=layers)
