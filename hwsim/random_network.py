"""Seeded random networks with realistic scales, to exercise machines, engines and files without any training.

BatchNorm statistics and scales are taken from the network's own accumulators on random images, at every width, so
that codes are spread over their range as in a trained network. Some channels have a negative or a zero gamma.

    network = random_network(7, CATALOG["8-6-4-2"], (1, 8, 8), [
        Convolution(16), Residual(16), Residual(32, stride=2), MaximumPool(2, 2), AveragePool(), Hidden(24),
    ])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hwsim import layers, spec
from hwsim.network import (
    IMAGE,
    IMAGE_SCALE,
    PINNED_BITS,
    Assignment,
    AveragePool2d,
    BatchNorm,
    Conv2d,
    Layer,
    Linear,
    MaxPool2d,
    Network,
    OutputScales,
    Shape,
    assignment_from_weights,
)
from hwsim.precision import WidthSet
from hwsim.requantize import switched_weights

LOGIT_STEPS = 1 << 12
"""Logit steps from zero to the largest logit seen: fine enough for classes, few enough for certified tables."""

CALIBRATION_IMAGES = 6


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A convolution with BatchNorm (or a bias); ``padding`` defaults to kernel // 2.

    ``input`` and ``skip`` name earlier layers; the input defaults to the last tensor made.
    """

    channels: int
    kernel: int | tuple[int, int] = 3
    stride: int = 1
    padding: int | None = None
    relu: bool = True
    batch_norm: bool = True
    input: str | None = None
    skip: str | None = None
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Residual:
    """Two 3x3 convolutions and an add: of the input, or of its 1x1 projection where the shape changes."""

    channels: int
    stride: int = 1


@dataclass(frozen=True, kw_only=True)
class AveragePool:
    """Average pooling; global by default."""

    kernel: int | tuple[int, int] | None = None
    stride: int | None = None


@dataclass(frozen=True, kw_only=True)
class MaximumPool:
    """Max pooling; the stride defaults to the kernel."""

    kernel: int = 2
    stride: int | None = None
    padding: int = 0


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """A linear layer with a bias and a ReLU."""

    features: int


Sketch: TypeAlias = Convolution | Residual | AveragePool | MaximumPool | Hidden

RESNET20: tuple[Sketch, ...] = (
    Convolution(channels=16),
    *(
        Residual(channels=channels, stride=2 if channels > 16 and index == 0 else 1)
        for channels in (16, 32, 64)
        for index in range(3)
    ),
    AveragePool(),
)
"""ResNet-20 for 32 x 32 images: 16, 32, 64 channels, three residual blocks each, 1x1 projections."""

SMALL: tuple[Sketch, ...] = (
    Convolution(channels=8),
    Residual(channels=8),
    Residual(channels=12, stride=2),
    AveragePool(),
)
"""A few thousand weights, with an identity and a projected add."""


def random_images(shape: Shape, count: int, seed: int) -> NDArray[np.uint8]:
    """Return random images, uint8 (count, c, h, w): noise of several levels, then one of zeros and one of 255s."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.2, 1.0, size=(count, 1, 1, 1))
    images = (rng.integers(0, 256, size=(count, *shape)) * level).astype(np.uint8)
    if count > 2:
        images[-1] = spec.unsigned_high(spec.IMAGE_BITS)
        images[-2] = 0
    return images


def random_network(
    seed: int,
    width_set: WidthSet,
    image_shape: Shape = (1, 8, 8),
    sketches: Sequence[Sketch] = SMALL,
    classes: int = 10,
) -> Network:
    """Return a valid network with random weights; the same arguments give the same network.

    Parameters
    ----------
    seed : int
    width_set : WidthSet
    image_shape : tuple of int
        (channels, height, width).
    sketches : sequence of Convolution, Residual, AveragePool, MaximumPool, Hidden
        The layers before the linear layer of the logits, which is added. Layers are called ``conv1``, ``conv2`` ...,
        ``block1_a``, ``block1_shortcut``, ``block1_b``, ``average1``, ``maximum1``, ``hidden1``, ``logits``.
    classes : int

    Raises
    ------
    ValueError
        If the sketches make no valid network.
    """
    builder = _Builder(seed, width_set, image_shape)
    blocks = 0
    for sketch in sketches:
        if isinstance(sketch, Residual):
            blocks += 1
            _add_residual(builder, sketch, f"block{blocks}")
        elif isinstance(sketch, Convolution):
            builder.add_convolution(sketch)
        elif isinstance(sketch, AveragePool):
            builder.add_average_pool(sketch)
        elif isinstance(sketch, MaximumPool):
            builder.add_maximum_pool(sketch)
        else:
            builder.add_linear(sketch.features, builder.unused_name("hidden"), makes_logits=False)
    builder.add_linear(classes, "logits", makes_logits=True)
    return Network(
        width_set=width_set,
        image_shape=image_shape,
        layers=tuple(builder.layers),
        provenance={"made_by": "hwsim.random_network", "seed": str(seed)},
    )


def resnet20(seed: int, width_set: WidthSet, classes: int = 10) -> Network:
    """Return a ResNet-20 for 3 x 32 x 32 images with random weights."""
    return random_network(seed, width_set, (3, 32, 32), RESNET20, classes)


def random_assignment(network: Network, seed: int) -> Assignment:
    """Return a mixed assignment: a random width of the set for every layer's weights and every tensor's code."""
    rng = np.random.default_rng(seed)
    widths = list(network.width_set)
    tensors = {layer.name: int(rng.choice(widths)) for layer in network}
    weights = {layer.name: int(rng.choice(widths)) for layer in network.weight_layers}
    assignment: Assignment = assignment_from_weights(network, f"random-{seed}", weights, tensors.__getitem__)
    return assignment


def _add_residual(builder: _Builder, sketch: Residual, name: str) -> None:
    source = builder.last
    builder.add_convolution(Convolution(channels=sketch.channels, stride=sketch.stride, name=f"{name}_a"))
    skip = source
    if source == IMAGE or sketch.stride != 1 or sketch.channels != builder.channels(source):
        skip = f"{name}_shortcut"
        builder.add_convolution(
            Convolution(
                channels=sketch.channels,
                kernel=1,
                stride=sketch.stride,
                relu=False,
                input=source,
                name=skip,
            )
        )
    builder.add_convolution(Convolution(channels=sketch.channels, input=f"{name}_a", skip=skip, name=f"{name}_b"))


@dataclass
class _Builder:
    """Makes layers one by one and simulates them, in real values, at every width of the set."""

    seed: int
    width_set: WidthSet
    image_shape: Shape
    layers: list[Layer] = field(default_factory=list)
    last: str = IMAGE

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        images = random_images(self.image_shape, CALIBRATION_IMAGES, self.seed + 1)
        # Real values of every tensor at every weight width, before they are quantized.
        self._values: dict[str, dict[int, NDArray[Any]]] = {IMAGE: dict.fromkeys(self.width_set, images * IMAGE_SCALE)}
        self._scales: dict[str, dict[int, float]] = {IMAGE: {PINNED_BITS: IMAGE_SCALE}}

    def channels(self, tensor: str) -> int:
        return int(self._values[tensor][self.width_set.highest].shape[1])

    def unused_name(self, kind: str) -> str:
        return f"{kind}{sum(layer.name.startswith(kind) for layer in self.layers) + 1}"

    def add_convolution(self, sketch: Convolution) -> None:
        source = sketch.input or self.last
        kernel = (sketch.kernel, sketch.kernel) if isinstance(sketch.kernel, int) else sketch.kernel
        pinned = source == IMAGE
        codes = self._codes((sketch.channels, self.channels(source), *kernel), pinned)
        name = sketch.name or self.unused_name("conv")
        layer = Conv2d(
            name=name,
            input=source,
            codes=codes,
            stored_bits=self._stored_bits(pinned),
            weight_scale=self._weight_scale(codes),
            stride=sketch.stride,
            padding=min(kernel) // 2 if sketch.padding is None else sketch.padding,
            relu=sketch.relu,
            skip=sketch.skip,
            output=OutputScales(),
        )
        self._check_fit(name, source, kernel, layer.padding)
        self._finish(layer, sketch.batch_norm, makes_logits=False)

    def add_linear(self, features: int, name: str, *, makes_logits: bool) -> None:
        source = self.last
        inputs = int(self._values[source][self.width_set.highest][0].size)
        pinned = makes_logits or source == IMAGE
        codes = self._codes((features, inputs), pinned)
        layer = Linear(
            name=name,
            input=source,
            codes=codes,
            stored_bits=self._stored_bits(pinned),
            weight_scale=self._weight_scale(codes),
            relu=not makes_logits,
            output=OutputScales(),
        )
        self._finish(layer, False, makes_logits=makes_logits)

    def add_average_pool(self, sketch: AveragePool) -> None:
        source = self.last
        _, _, height, width = self._values[source][self.width_set.highest].shape
        kernel = (height, width) if sketch.kernel is None else sketch.kernel
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        stride = min(kernel) if sketch.stride is None else sketch.stride
        layer = AveragePool2d(
            name=self.unused_name("average"), input=source, kernel=kernel, stride=stride, output=OutputScales()
        )
        self._check_fit(layer.name, source, kernel, 0)
        values = {}
        for bits in self.width_set:
            codes, scale = self._quantized(source, bits)
            values[bits] = layers.sum_windows(layer, codes) * (scale / (kernel[0] * kernel[1]))
        self._keep(layer, values, relu=True)

    def add_maximum_pool(self, sketch: MaximumPool) -> None:
        source = self.last
        stride = sketch.kernel if sketch.stride is None else sketch.stride
        layer = MaxPool2d(
            name=self.unused_name("maximum"),
            input=source,
            kernel=(sketch.kernel, sketch.kernel),
            stride=stride,
            padding=sketch.padding,
        )
        self._check_fit(layer.name, source, layer.kernel, layer.padding)
        values = {}
        for bits in self.width_set:
            codes, scale = self._quantized(source, bits)
            values[bits] = layers.max_windows(layer, codes) * scale
        self.layers.append(layer)
        self._values[layer.name] = values
        self._scales[layer.name] = self._scales[source]
        self.last = layer.name

    def _check_fit(self, name: str, source: str, kernel: tuple[int, int], padding: int) -> None:
        height, width = self._values[source][self.width_set.highest].shape[2:]
        if kernel[0] > height + 2 * padding or kernel[1] > width + 2 * padding:
            raise ValueError(f"layer {name}: a kernel of {kernel} does not fit into {source} of {height} x {width}")

    def _stored_bits(self, pinned: bool) -> int:
        return PINNED_BITS if pinned else self.width_set.highest

    def _codes(self, shape: tuple[int, ...], pinned: bool) -> NDArray[np.int8]:
        bits = self._stored_bits(pinned)
        low, high = spec.signed_low(bits), spec.signed_high(bits)
        spread = max(-low / 2.5, 0.8)
        return np.clip(np.rint(self._rng.normal(0, spread, shape)), low, high).astype(np.int8)

    def _weight_scale(self, codes: NDArray[np.int8]) -> NDArray[np.float32]:
        fan_in = codes[0].size
        spread = max(float(codes.std()), 0.5)
        jitter = self._rng.uniform(0.7, 1.4, len(codes))
        return (jitter * np.sqrt(2 / fan_in) / spread).astype(np.float32)

    def _quantized(self, tensor: str, bits: int, code_bits: int | None = None) -> tuple[NDArray[np.uint8], float]:
        """Return the codes of a tensor at ``code_bits`` (default ``bits``) in the simulation at ``bits``."""
        code_bits = PINNED_BITS if tensor == IMAGE else code_bits or bits
        scale = self._scales[tensor][code_bits]
        codes = np.clip(np.rint(self._values[tensor][bits] / scale), 0, spec.unsigned_high(code_bits))
        return codes.astype(np.uint8), scale

    def _finish(self, layer: Conv2d | Linear, batch_norm: bool, *, makes_logits: bool) -> None:
        pinned = makes_logits or layer.input == IMAGE
        channels = layer.out_channels
        gamma = (self._rng.uniform(0.6, 1.4, channels) * self._rng.choice([1, -1], channels, p=[0.9, 0.1])).astype(
            np.float32
        )
        gamma[self._rng.random(channels) < 0.02] = 0
        beta = self._rng.normal(0.4, 0.4, channels).astype(np.float32)
        norms = {}
        values = {}
        for bits in self.width_set:
            weight_bits = PINNED_BITS if pinned else bits
            codes, scale = self._quantized(layer.input, bits, PINNED_BITS if pinned else None)
            accumulators = layers.accumulate(layer, switched_weights(layer, weight_bits), codes)
            step = layer.weight_scale * 2.0 ** spec.switch_scale_exponent(layer.stored_bits, weight_bits) * scale
            real = accumulators * step[:, None, None]
            if batch_norm:
                if weight_bits not in norms:
                    norms[weight_bits] = BatchNorm(
                        gamma=gamma,
                        beta=beta,
                        mean=real.mean(axis=(0, 2, 3)).astype(np.float32),
                        variance=np.maximum(real.var(axis=(0, 2, 3)), 1e-3).astype(np.float32),
                        epsilon=1e-5,
                    )
                norm = norms[weight_bits]
                gain = gamma / np.sqrt(norm.variance + norm.epsilon)
                real = (real - norm.mean[:, None, None]) * gain[:, None, None] + beta[:, None, None]
            values[bits] = real
        bias = None if batch_norm else self._bias(values[self.width_set.highest])
        for bits in self.width_set:
            if bias is not None:
                values[bits] = values[bits] + bias[:, None, None]
            if layer.skip is not None:
                values[bits] = values[bits] + self._values[layer.skip][bits]
        fields = {**vars(layer), "batch_norms": norms, "bias": bias}
        self._keep(type(layer)(**fields), values, relu=layer.relu, makes_logits=makes_logits)

    def _bias(self, values: NDArray[Any]) -> NDArray[np.float32]:
        centre = values.mean(axis=(0, 2, 3))
        return (values.std() * self._rng.normal(0.3, 0.3, len(centre)) - centre).astype(np.float32)

    def _keep(
        self,
        layer: Conv2d | Linear | AveragePool2d,
        values: dict[int, NDArray[Any]],
        *,
        relu: bool,
        makes_logits: bool = False,
    ) -> None:
        """Choose the output scales from the simulated values, and append the layer."""
        seen = values[self.width_set.highest]
        if makes_logits:
            largest = max(float(np.abs(seen).max()), 1e-3)
            output = OutputScales(logit=largest / LOGIT_STEPS)
        else:
            top = max(float(np.quantile(seen, 0.995)), 1e-3)
            # Few codes pay with a little more clipping, as trained scales do.
            code = {
                bits: top * self._rng.uniform(0.85, 1.0) / max(spec.unsigned_high(bits), 2)
                for bits in {*self.width_set, PINNED_BITS}
            }
            reach = max(float(np.abs(seen).max()), 1e-3) * 0.95
            steps = spec.unsigned_high(spec.SKIP_BITS) if relu else spec.signed_high(spec.SKIP_BITS)
            output = OutputScales(code=code, skip=reach / steps)
            self._scales[layer.name] = output.code  # type: ignore[assignment]
        if relu:
            values = {bits: np.maximum(real, 0) for bits, real in values.items()}
        self.layers.append(type(layer)(**{**vars(layer), "output": output}))
        self._values[layer.name] = values
        self.last = layer.name
