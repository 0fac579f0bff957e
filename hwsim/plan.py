"""A network at one assignment, prepared to run fast: the arguments of ``fused`` for every layer, made and checked once.

Nothing here depends on the images or on their number. A tensor's code is kept channels last with a border as wide as
the largest padding of its readers, so that padding costs nothing when it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwsim import spec
from hwsim.network import IMAGE, Assignment, AveragePool2d, Conv2d, Layer, Linear, MaxPool2d, Network, WeightLayer
from hwsim.requantize import LayerRequantizers, Requantizer, accumulator_range, switched_weights

if TYPE_CHECKING:
    from hwsim.backends import Backend

CHANNEL_GROUP = 4
"""Channels of a code in memory are a multiple of this: machines multiply four bytes at a time."""

OVERREAD_BYTES = 64
"""Bytes behind the last code that a kernel may read (they meet weights of zero)."""


@dataclass(frozen=True)
class Layout:
    """Where the code of a tensor lies: (image, row, column, channel) with a border of zeros around each image."""

    channels: int
    height: int
    width: int
    border: int

    @property
    def column_pitch(self) -> int:
        """Bytes from one column to the next."""
        return -(-self.channels // CHANNEL_GROUP) * CHANNEL_GROUP

    @property
    def row_pitch(self) -> int:
        """Bytes from one row to the next."""
        return (self.width + 2 * self.border) * self.column_pitch

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return (self.height + 2 * self.border) * self.row_pitch

    def windows(self, padding: int = 0, stride: int = 1) -> NDArray[np.int64]:
        """Return (image pitch, row pitch, column pitch, first) of the windows of a layer that reads the code."""
        first = (self.border - padding) * (self.row_pitch + self.column_pitch)
        return np.array([self.image_bytes, stride * self.row_pitch, stride * self.column_pitch, first])


def dense(shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """Return the pitches of a channels-last tensor (c, h, w) without a border, in elements."""
    channels, height, width = shape
    return np.array([height * width * channels, width * channels, channels, 0])


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One layer: what to read, the arguments of its kernel (see ``fused``), and the forms it makes.

    ``weights`` is what the backend made of a convolution's weights; None for pooling.
    """

    layer: Layer
    forms: tuple[str, ...]
    shape: tuple[int, int, int]
    source: NDArray[np.int64]
    kernel: NDArray[np.int64]
    target: NDArray[np.int64]
    weights: Any
    table: NDArray[np.int64]
    code_table: NDArray[np.int64]
    limits: NDArray[np.int64]

    def group_shape(self, images: int) -> NDArray[np.int64]:
        """Return (images, out_height, out_width, channels)."""
        channels, height, width = self.shape
        return np.array([images, height, width, channels])


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """All layers of a network at one assignment.

    Parameters
    ----------
    network : Network
    steps : tuple of Step
    layouts : mapping of str to Layout
        Of every tensor that has a code, the image included.
    last_readers : mapping of (tensor, form) to str
        The layer after which a form is not needed any more.
    """

    network: Network
    steps: tuple[Step, ...]
    layouts: Mapping[str, Layout]
    last_readers: Mapping[tuple[str, str], str]


def forms(
    network: Network, tensor: str, assignment: Assignment, tables: LayerRequantizers
) -> Iterator[tuple[str, Requantizer]]:
    """Yield the stored forms of a tensor with the table that makes each, in the order they are made."""
    layer = network.layer(tensor)
    if isinstance(layer, WeightLayer) and layer.makes_logits:
        yield "logits", tables.primary
    elif network.adders(tensor):
        yield "skip", tables.primary
        if tables.code is not None:
            yield "code", tables.code
    else:
        yield "code", tables.primary


def make_plan(
    network: Network, assignment: Assignment, requantizers: Mapping[str, LayerRequantizers], backend: Backend
) -> Plan:
    """Return the plan of a network at an assignment.

    Raises
    ------
    ValueError
        If a table is missing or belongs to another width, or a sum can leave its integer.
    """
    if assignment.network is not network:
        raise ValueError(f"assignment {assignment.name} belongs to another network")
    layouts = {IMAGE: _layout(network, IMAGE)}
    for layer in network:
        if isinstance(layer, MaxPool2d) or assignment.code_bits(layer.name) is not None:
            layouts[layer.name] = _layout(network, layer.name)
    steps = []
    last_readers = {}
    for layer in network:
        if isinstance(layer, MaxPool2d):
            steps.append(_step(network, layer, layouts, {}, backend, None))
        else:
            if layer.name not in requantizers:
                raise ValueError(f"layer {layer.name}: has no requantizer")
            tables = requantizers[layer.name]
            _check_tables(network, layer.name, assignment, tables)
            made = dict(forms(network, layer.name, assignment, tables))
            low, high = accumulator_range(network, layer, assignment)
            largest = int(max(-low.min(), high.max()))
            _check_sums(layer, tables, largest)
            weights = None
            if isinstance(layer, WeightLayer):
                rows = _kernel_rows(layer, layouts[layer.input], assignment.weight_bits(layer.name))
                weights = backend.pack(rows, int((high - low).max()))
            steps.append(_step(network, layer, layouts, made, backend, weights))
        last_readers[layer.input, "code"] = layer.name
        if isinstance(layer, WeightLayer) and layer.skip is not None:
            last_readers[layer.skip, "skip"] = layer.name
    return Plan(network=network, steps=tuple(steps), layouts=layouts, last_readers=last_readers)


def _layout(network: Network, tensor: str) -> Layout:
    readers = [network.layer(name) for name in network.readers(tensor)]
    border = max((reader.padding for reader in readers if isinstance(reader, Conv2d | MaxPool2d)), default=0)
    channels, height, width = network.shape(tensor)
    return Layout(channels, height, width, border)


def _kernel_rows(layer: WeightLayer, layout: Layout, weight_bits: int) -> NDArray[np.int8]:
    """Return the switched weights as the bytes of the codes they meet: (out, kernel rows, bytes of a kernel row)."""
    weights = switched_weights(layer, weight_bits)
    if isinstance(layer, Linear):
        weights = weights.reshape(len(weights), layout.channels, layout.height, layout.width)
    out, channels, height, width = weights.shape
    rows = np.zeros((out, height, width, layout.column_pitch), np.int8)
    rows[..., :channels] = weights.transpose(0, 2, 3, 1)
    return rows.reshape(out, height, -1)


def _step(
    network: Network,
    layer: Layer,
    layouts: Mapping[str, Layout],
    made: Mapping[str, Requantizer],
    backend: Backend,
    weights: Any,
) -> Step:
    layout = layouts[layer.input]
    if isinstance(layer, Linear):
        source = layout.windows()
        kernel = backend.kernel(layout.row_pitch, layout.height, layout.width * layout.column_pitch)
    elif isinstance(layer, Conv2d):
        source = layout.windows(layer.padding, layer.stride)
        kernel = backend.kernel(layout.row_pitch, layer.kernel[0], layer.kernel[1] * layout.column_pitch)
    else:
        source = layout.windows(layer.padding if isinstance(layer, MaxPool2d) else 0, layer.stride)
        kernel = np.array([layout.row_pitch, layout.column_pitch, *layer.kernel])
    target = layouts[layer.name].windows() if layer.name in layouts else np.zeros(4, np.int64)
    primary = next(iter(made.values()), None)
    table, code_table, limits = np.zeros((4, 0), np.int64), np.zeros(4, np.int64), np.zeros(4, np.int64)
    if primary is not None:
        table = _rows(primary)
        limits[:2] = primary.low, primary.high
    if "skip" in made and "code" in made:
        code_table = _rows(made["code"])[:, 0].copy()
        limits[2:] = made["code"].low, made["code"].high
    return Step(
        layer=layer,
        forms=tuple(made) or ("code",),
        shape=network.shape(layer.name),
        source=source,
        kernel=kernel,
        target=target,
        weights=weights,
        table=table,
        code_table=code_table,
        limits=limits,
    )


def _rows(table: Requantizer) -> NDArray[np.int64]:
    return np.ascontiguousarray([table.multiplier, table.skip_multiplier, table.addend, table.shift], np.int64)


def _check_tables(network: Network, tensor: str, assignment: Assignment, tables: LayerRequantizers) -> None:
    channels = network.shape(tensor)[0]
    bits = assignment.code_bits(tensor)
    if tables.primary.channels != channels:
        raise ValueError(f"layer {tensor}: has {channels} channels, but its requantizer {tables.primary.channels}")
    if network.adders(tensor) and (tables.code is None) != (bits is None):
        raise ValueError(f"layer {tensor}: its requantizers do not make the forms that {assignment.name} stores")
    for form, table in forms(network, tensor, assignment, tables):
        if form == "code" and bits is not None and table.high != spec.unsigned_high(bits):
            raise ValueError(f"layer {tensor}: its requantizer makes codes up to {table.high}, not {bits} bits")


def _check_sums(layer: WeightLayer | AveragePool2d, tables: LayerRequantizers, largest: int) -> None:
    """Refuse accumulators beyond 32 bits and requantizers' sums beyond 64."""
    if largest > spec.signed_high(32):
        raise ValueError(f"layer {layer.name}: an accumulator can reach {largest}, and 32 bits are the most")
    skip_high = spec.unsigned_high(spec.SKIP_BITS)
    adds = isinstance(layer, WeightLayer) and layer.skip is not None
    pairs = [(tables.primary, largest, skip_high if adds else 0)]
    if tables.code is not None:
        pairs.append((tables.code, skip_high, 0))
    for table, accumulator, skip in pairs:
        sizes = (_largest(table.multiplier), _largest(table.skip_multiplier), _largest(table.addend))
        bound = accumulator * sizes[0] + skip * sizes[1] + sizes[2]
        if bound > spec.signed_high(64) or not 0 <= int(table.shift.min()) <= int(table.shift.max()) <= 62:
            raise ValueError(
                f"layer {layer.name}: a requantizer's sum can reach {bound} and must fit 64 bits, its shift 0 .. 62"
            )


def _largest(values: NDArray[np.int64]) -> int:
    return max(abs(int(values.min())), abs(int(values.max())))
