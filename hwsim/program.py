"""Programs: what makes a machine run a network at given assignments.

A program holds the stored codes once, in planes, and for every assignment the requantizer tables and the descriptors
of its layers. It is made for one machine and is refused, by name and by how much, if something does not fit.

Weights of a tile (``columns`` output channels) are stored as rows of ``weight_port_bits`` bits. One plane of a chunk of
``bank_lanes`` consecutive input channels of one kernel tap, for all columns, is ``unit_rows`` rows; bit
``lane * columns + column`` of it is cut into them. Chunks run over kernel taps (row by row) and, within a tap, over
input channels padded to ``Machine.channel_multiple``. The planes of one row lie together, top plane first, so that a
narrow width reads the first few.

A word of the weight memory is a row of one plane and, if rows are cut into bytes, ``weight_port_bits / 8`` spare bits
above it, since block RAMs have a ninth bit for every byte. The rows of a tile are taken in *bundles* of nine: eight
have words of their own, and of the ninth, plane by plane, eighth number r lies in the spare bits of row r (bits
``r * weight_port_bits / 8`` and up; the same plane). Whoever reads some planes of the eight has those of the ninth. The
last rows of a tile, fewer than nine, have words of their own and leave the spare bits 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim import spec
from hwsim.image_ring import lead_windows
from hwsim.machine import (
    BUNDLE_ROWS,
    KERNEL_BITS,
    LOAD_COUNT_BITS,
    LOAD_TARGETS,
    LOAD_WORD_BITS,
    MEMORY_NAMES,
    SIZE_BITS,
    Machine,
    bits_for,
)
from hwsim.network import (
    FLOOR,
    IMAGE,
    Assignment,
    AveragePool2d,
    Conv2d,
    Layer,
    Linear,
    MaxPool2d,
    Network,
    WeightLayer,
)
from hwsim.requantize import LayerRequantizers, Requantizer, build_requantizers, switched_weights

POOL_STORED_BITS = 2
"""Average pooling runs as a product with the identity, whose ones are the lower plane of a 2-bit code."""


@dataclass(frozen=True)
class LayerGeometry:
    """How one layer runs on the array, whatever its widths.

    Parameters
    ----------
    kernel : (int, int)
        Kernel as the array sees it: 1x1 for the first layer, whose windows the image loader lays out.
    stride, padding : int
    input_height, input_width, output_height, output_width : int
    input_channels, output_channels : int
        Channels as the array sees them.
    """

    kernel: tuple[int, int]
    stride: int
    padding: int
    input_height: int
    input_width: int
    output_height: int
    output_width: int
    input_channels: int
    output_channels: int

    @property
    def output_pixels(self) -> int:
        """Output pixels."""
        return self.output_height * self.output_width

    @property
    def taps(self) -> int:
        """Kernel taps."""
        return self.kernel[0] * self.kernel[1]


def layer_geometry(network: Network, layer: Layer) -> LayerGeometry:
    """Return how a layer runs on the array."""
    channels, height, width = network.shape(layer.input)
    out_channels, out_height, out_width = network.shape(layer.name)
    kernel, stride, padding = window(network, layer)
    if layer.input == IMAGE:
        taps = kernel[0] * kernel[1]
        return LayerGeometry((1, 1), 1, 0, out_height, out_width, out_height, out_width, taps * channels, out_channels)
    return LayerGeometry(kernel, stride, padding, height, width, out_height, out_width, channels, out_channels)


def window(network: Network, layer: Layer) -> tuple[tuple[int, int], int, int]:
    """Return (kernel, stride, padding); a linear layer is a kernel of its input's height and width."""
    if isinstance(layer, Linear):
        _, height, width = network.shape(layer.input)
        return (height, width), 1, 0
    return layer.kernel, layer.stride, 0 if isinstance(layer, AveragePool2d) else layer.padding


def padded_channels(machine: Machine, network: Network, layer: Layer) -> int:
    """Return the input channels of a tap with their padding; a laid out image fills whole words."""
    channels = layer_geometry(network, layer).input_channels
    if layer.input == IMAGE:
        kernel, _, _ = window(network, layer)
        steps = kernel[0] * kernel[1] * image_steps(network, machine)
        return -(-steps // machine.image_steps_per_word) * machine.lanes
    return -(-channels // machine.channel_multiple) * machine.channel_multiple


def image_lead(network: Network, machine: Machine, ring_words: int) -> int | None:
    """Return the windows to lay out before the first layer may begin, or None if a ring of that size is too small.

    Layers of several tiles read the image several times; then, and if several layers read it, all of it must be there.
    """
    readers = [network.layer(name) for name in network.readers(IMAGE)]
    first = readers[0]
    geometry = layer_geometry(network, first)
    kernel, _, _ = window(network, first)
    words = image_words_per_window(network, machine)
    windows = geometry.output_pixels
    if len(readers) > 1 or tile_count(machine, geometry) > 1:
        return windows if windows * words <= ring_words else None
    passes = len(machine.planes_of_passes(spec.MAX_BITS, spec.MAX_BITS)) * words
    return lead_windows(
        windows=windows,
        row_windows=geometry.output_width,
        window_cycles=kernel[0] * kernel[1] * image_steps(network, machine),
        strip_pixels=machine.strip_pixels,
        strip_cycles=machine.strip_pixels * passes,
        capacity=ring_words // words,
    )


def image_words_per_window(network: Network, machine: Machine) -> int:
    """Return the image words that the window of one output pixel takes."""
    return padded_channels(machine, network, network.layer(network.readers(IMAGE)[0])) // machine.lanes


def image_ring_words(network: Network, machine: Machine) -> int:
    """Return the depth of the smallest ring that serves a network's images, a power of two."""
    ring_words = 2
    while image_lead(network, machine, ring_words) is None:
        ring_words *= 2
    return ring_words


def image_steps(network: Network, machine: Machine) -> int:
    """Return the steps of ``image_channels`` channels that one pixel of the image takes."""
    return -(-network.image_shape[0] // machine.image_channels)


def input_units(machine: Machine, network: Network, layer: Layer, activation_bits: int) -> int:
    """Return the units of one pixel that a layer reads."""
    return padded_channels(machine, network, layer) // (
        machine.bank_lanes * machine.activations_per_lane(activation_bits)
    )


def tile_count(machine: Machine, geometry: LayerGeometry) -> int:
    """Return the tiles of output channels."""
    return -(-geometry.output_channels // machine.columns)


def tile_rows(machine: Machine, network: Network, layer: Layer) -> int:
    """Return the rows of one plane of one tile; average pooling stores one tap for all."""
    taps = 1 if isinstance(layer, AveragePool2d) else layer_geometry(network, layer).taps
    return taps * padded_channels(machine, network, layer) // machine.bank_lanes * machine.unit_rows


def tensor_pitch(network: Network, machine: Machine, assignment: Assignment, tensor: str) -> int:
    """Return the row pitch of a tensor in pixels: the least that keeps the units of every reader's step apart.

    Raises
    ------
    ValueError
        If the kernels of the readers ask for different pitches.
    """
    channels, _, width = network.shape(tensor)
    bits = assignment.code_bits(tensor) or spec.MAX_BITS
    units = machine.units_per_pixel(channels, bits)
    kernels = {
        window(network, network.layer(name))[0]
        for name in network.readers(tensor)
        if not isinstance(network.layer(name), MaxPool2d)
    }
    for pitch in range(width, width + machine.banks):
        if all(kernel[0] == 1 or (pitch - kernel[1]) * units % machine.banks == 0 for kernel in kernels):
            return pitch
    raise ValueError(f"tensor {tensor}: kernels {sorted(kernels)} read it and need different row pitches")


def layer_widths(assignment: Assignment, layer: Layer) -> tuple[int, int, int]:
    """Return (stored width, weight width, activation width) of a layer that runs on the array."""
    activation_bits = assignment.activation_bits(layer.name)
    if isinstance(layer, WeightLayer):
        return layer.stored_bits, assignment.weight_bits(layer.name), activation_bits
    return POOL_STORED_BITS, POOL_STORED_BITS, activation_bits


def accumulator_bound(weights: NDArray[np.int8], target_bits: int, activation_bits: int) -> tuple[int, int]:
    """Return (low, high) that no accumulator leaves at any moment of the bit-serial accumulation.

    While a plane is half done, an index not yet reached counts as ``2 * (w >> (k + 1))``, which is at least ``w - 1``.

    Parameters
    ----------
    weights : ndarray of int8, shape (out, ...)
        Switched weights.
    target_bits, activation_bits : int
    """
    flat = weights.reshape(len(weights), -1).astype(np.int64)
    largest = spec.unsigned_high(activation_bits)
    if target_bits == 1:
        total = flat.shape[1] * largest
        return -total, 2 * total
    low = int(np.where(flat < 0, flat - 1, 0).sum(axis=1).min()) * largest
    high = int(np.where(flat > 0, flat, 0).sum(axis=1).max()) * largest
    return min(low, 0), max(high, 0)


@dataclass(frozen=True)
class TensorPlace:
    """Where the stored forms of a tensor lie; None where there is no such form.

    Parameters
    ----------
    code_start : int or None
        Unit address of the first pixel; a multiple of the number of banks.
    code_bits : int or None
        Width of the code.
    units : int
        Units of one pixel.
    pitch : int
        Pixels from one row to the next.
    skip_start : int or None
        First skip word.
    """

    code_start: int | None
    code_bits: int | None
    units: int
    pitch: int
    skip_start: int | None


@dataclass(frozen=True, kw_only=True, eq=False)
class AssignmentProgram:
    """One resident assignment.

    Parameters
    ----------
    assignment : Assignment
    slot : int
        Layer slot of its first layer: what the run command names.
    requantizers : mapping of str to LayerRequantizers
    places : mapping of str to TensorPlace
        Tensor -> where it lies while this assignment runs.
    layers : tuple of dict
        Fields of ``Machine.layer_layout`` for each layer.
    tiles : tuple of dict
        Fields of ``Machine.tiles_layout`` for each layer.
    """

    assignment: Assignment
    slot: int
    requantizers: Mapping[str, LayerRequantizers]
    places: Mapping[str, TensorPlace]
    layers: tuple[Mapping[str, int], ...]
    tiles: tuple[Mapping[str, int], ...]

    @property
    def layers_exact(self) -> int:
        """Layers whose requantizers equal the trained function on every operand."""
        return sum(requantizers.certificate.exact for requantizers in self.requantizers.values())

    @property
    def layers_displaced(self) -> int:
        """Layers that differ from the trained function somewhere."""
        return len(self.requantizers) - self.layers_exact


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerIntegers:
    """The integers of one layer at one assignment, for people who build their own hardware.

    Parameters
    ----------
    stored_codes, weights : ndarray of int8
        Stored codes, and what they switch to; shape of the layer's codes.
    planes : ndarray of uint8, shape (passes, *codes.shape)
        Bits of the weights in the order of ``spec.plane_bit``.
    requantizers : LayerRequantizers
        M, K, B, S and the clamps.
    """

    stored_codes: NDArray[np.int8]
    weights: NDArray[np.int8]
    planes: NDArray[np.uint8]
    requantizers: LayerRequantizers


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """A network made ready for one machine.

    Parameters
    ----------
    machine : Machine
    network : Network
    assignments : mapping of str to AssignmentProgram
    weight_words : ndarray of uint8, shape (words, weight_word_bits)
        Contents of the weight memory, one bit an element.
    tables, skip_tables : tuple of int
        Contents of the table memory (M, B, S) and of the skip table memory (K).
    image : mapping of str to int
        Fields of ``Machine.image_layout``.
    """

    machine: Machine
    network: Network
    assignments: Mapping[str, AssignmentProgram]
    weight_words: NDArray[np.uint8]
    tables: tuple[int, ...]
    skip_tables: tuple[int, ...]
    image: Mapping[str, int]

    def load_words(self) -> NDArray[np.uint32]:
        """Return the words that the load port takes, in order; shape (words,)."""
        machine = self.machine
        layer_words: list[int] = []
        tiles: list[int] = []
        for part in self.assignments.values():
            for fields in part.layers:
                layer_words += _split(machine.layer_layout.pack(fields), machine.layer_layout.load_words)
            tiles += [machine.tiles_layout.pack(fields) for fields in part.tiles]
        table_words = machine.table_layout.load_words
        skip_table_words = -(-machine.requantizer.skip_multiplier_bits // LOAD_WORD_BITS)
        tile_words = machine.tiles_layout.load_words
        packets = [
            _packet("image", _split(machine.image_layout.pack(self.image), machine.image_layout.load_words), 1),
            _packet("layers", layer_words, len(layer_words)),
            _packet("tiles", [word for tile in tiles for word in _split(tile, tile_words)], len(tiles)),
            _packet("tables", [word for table in self.tables for word in _split(table, table_words)], len(self.tables)),
            _packet(
                "skip_tables",
                [word for entry in self.skip_tables for word in _split(entry, skip_table_words)],
                len(self.skip_tables),
            ),
            _weights_packet(self.weight_words),
        ]
        return np.concatenate(packets)

    @property
    def weight_bits_stored(self) -> int:
        """Bits of the stored codes, without the padding to whole tiles."""
        return sum(layer.codes.size * layer.stored_bits for layer in self.network.weight_layers)

    def weight_planes_read(self, name: str) -> int:
        """Return the words of the weight memory that one image at an assignment reads."""
        return sum(
            fields["tiles"] * self.machine.weight_rows_stored(fields["tile_rows"]) * fields["planes_read"]
            for fields in self.assignments[name].tiles
            if fields["has_weights"]
        )

    def weight_bits_read(self, name: str) -> int:
        """Return the weight memory bits that one image at an assignment reads, padding included."""
        return self.weight_planes_read(name) * self.machine.weight_word_bits

    @property
    def table_bits(self) -> int:
        """Bits of the requantizer tables of all resident assignments."""
        skip_bits = len(self.skip_tables) * self.machine.requantizer.skip_multiplier_bits
        return len(self.tables) * self.machine.table_layout.bits + skip_bits

    def layer_integers(self, layer_name: str, assignment_name: str) -> LayerIntegers:
        """Return codes, switched weights, planes and requantizer tables of a weight layer.

        Raises
        ------
        ValueError
            If the network has no such weight layer or the program no such assignment.
        """
        layer = self.network.layer(layer_name)
        if not isinstance(layer, WeightLayer):
            raise ValueError(f"layer {layer_name} has no weights")
        if assignment_name not in self.assignments:
            known = ", ".join(self.assignments)
            raise ValueError(f"the program has no assignment {assignment_name!r}; it has {known}")
        part = self.assignments[assignment_name]
        bits = part.assignment.weight_bits(layer_name)
        weights = switched_weights(layer, bits)
        bits_at = np.vectorize(spec.plane_bit, otypes=[np.uint8])
        positions = range(spec.planes_applied(bits))
        planes = np.stack([bits_at(weights.astype(object), bits, position) for position in positions])
        return LayerIntegers(
            stored_codes=layer.codes, weights=weights, planes=planes, requantizers=part.requantizers[layer_name]
        )


def _split(record: int, words: int) -> list[int]:
    mask = (1 << LOAD_WORD_BITS) - 1
    return [record >> (LOAD_WORD_BITS * index) & mask for index in range(words)]


def _packet(target: str, words: Sequence[int], records: int) -> NDArray[np.uint32]:
    header = LOAD_TARGETS[target] << LOAD_COUNT_BITS | records
    return np.array([header, 0, *words], dtype=np.uint32)


def _weights_packet(rows: NDArray[np.uint8]) -> NDArray[np.uint32]:
    count, bits = rows.shape
    padded = np.zeros((count, -(-bits // LOAD_WORD_BITS) * LOAD_WORD_BITS), np.uint8)
    padded[:, :bits] = rows
    words = np.packbits(padded, axis=1, bitorder="little").view("<u4").reshape(-1)
    return np.concatenate([_packet("weights", (), count), words.astype(np.uint32)])


def build(network: Network, machine: Machine, assignments: Iterable[Assignment]) -> Program:
    """Return the program that runs a network on a machine at every one of the assignments.

    Raises
    ------
    ValueError
        If there is no assignment or two of one name; if a width, a size, an accumulator bound or a memory does not
        fit the machine.
    """
    chosen = list(assignments)
    if not chosen:
        raise ValueError("a program must have at least one assignment")
    for assignment in chosen:
        if sum(other.name == assignment.name for other in chosen) > 1:
            raise ValueError(f"a program must name each assignment once, not {assignment.name} twice")
        if assignment.network is not network:
            raise ValueError(f"assignment {assignment.name} is of another network")
        _check_widths(machine, assignment)
    _check_sizes(network)

    weight_words, weight_starts = _pack_weights(network, machine)
    tables: list[int] = []
    skip_tables: list[int] = []
    slot = 0
    parts: dict[str, AssignmentProgram] = {}
    for assignment in chosen:
        requantizers = build_requantizers(network, assignment, machine.requantizer)
        places, _ = place_tensors(network, machine, assignment)
        layers, tiles = [], []
        for layer in network:
            starts = len(tables), len(skip_tables)
            if not isinstance(layer, MaxPool2d):
                channels = network.shape(layer.name)[0]
                tables += _tables(machine, requantizers[layer.name], channels)
                if _adds(layer):
                    skip_tables += _skip_tables(machine, requantizers[layer.name].primary, channels)
            layers.append(_checked_counts(layer, _layer_fields(network, machine, assignment, layer, places, starts)))
            tiles.append(_tiles_fields(network, machine, assignment, layer, weight_starts))
        parts[assignment.name] = AssignmentProgram(
            assignment=assignment,
            slot=slot,
            requantizers=requantizers,
            places=places,
            layers=tuple(layers),
            tiles=tuple(tiles),
        )
        slot += len(network.layers)
    needs = requirements(network, machine, chosen)
    for name, need in needs.items():
        have = getattr(machine, name)
        if need > have:
            raise ValueError(f"the network needs {name} = {need}, the machine has {have}: {need - have} too few")
    return Program(
        machine=machine,
        network=network,
        assignments=parts,
        weight_words=weight_words,
        tables=tuple(tables),
        skip_tables=tuple(skip_tables),
        image=image_fields(network, machine),
    )


def describe(network: Network, machine: Machine, assignment: Assignment) -> AssignmentProgram:
    """Return the descriptors of one assignment alone, quickly: no tables, no weights, and none of their addresses.

    They are enough for ``timing`` and ``estimate``, which the tables and the values of the weights do not change.

    Raises
    ------
    ValueError
        If the assignment is of another network, or a width or a size does not fit the machine.
    """
    if assignment.network is not network:
        raise ValueError(f"assignment {assignment.name} is of another network")
    _check_widths(machine, assignment)
    _check_sizes(network)
    places, _ = place_tensors(network, machine, assignment)
    starts = {layer.name: 0 for layer in network}
    return AssignmentProgram(
        assignment=assignment,
        slot=0,
        requantizers={},
        places=places,
        layers=tuple(
            _checked_counts(layer, _layer_fields(network, machine, assignment, layer, places, (0, 0)))
            for layer in network
        ),
        tiles=tuple(_tiles_fields(network, machine, assignment, layer, starts) for layer in network),
    )


def requirements(network: Network, machine: Machine, assignments: Sequence[Assignment]) -> dict[str, int]:
    """Return the memory depths that a network needs on a machine of these lanes and columns, by ``MEMORY_NAMES``."""
    weight_words = staging = table_words = skip_table_words = activation_words = skip_words = 0
    for layer, rows, stored_bits in _weight_shapes(network, machine):
        tiles = tile_count(machine, layer_geometry(network, layer))
        weight_words += machine.weight_rows_stored(rows) * tiles * stored_bits
    for assignment in assignments:
        _, sizes = place_tensors(network, machine, assignment)
        activation_words = max(activation_words, sizes[0])
        skip_words = max(skip_words, sizes[1])
        for layer in network:
            if isinstance(layer, MaxPool2d):
                continue
            geometry = layer_geometry(network, layer)
            _, target_bits, _ = layer_widths(assignment, layer)
            staging = max(staging, tile_rows(machine, network, layer) * spec.planes_applied(target_bits))
            entries = _channel_groups(machine, geometry.output_channels) * machine.requantizers
            table_words += entries + 1
            skip_table_words += entries if _adds(layer) else 0
    _, height, width = network.image_shape
    needs = {
        "weight_words": weight_words,
        "staging_words": staging,
        "table_words": table_words,
        "skip_table_words": skip_table_words,
        "activation_words": activation_words,
        "skip_words": skip_words,
        "image_words": image_ring_words(network, machine),
        "raw_image_words": height * width * image_steps(network, machine),
        "layer_slots": len(network.layers) * len(assignments),
        "result_words": _channel_groups(machine, network.classes),
    }
    assert tuple(needs) == MEMORY_NAMES
    return needs


def fit_machine(network: Network, assignments: Sequence[Assignment], machine: Machine) -> Machine:
    """Return ``machine`` with memories as deep as a network needs, and its image channels."""
    machine = dataclasses.replace(machine, image_channels=min(4, network.image_shape[0]))
    needs = requirements(network, machine, assignments)
    depths: dict[str, Any] = {name: max(2, need) for name, need in needs.items()}
    return dataclasses.replace(machine, **depths)


def _check_widths(machine: Machine, assignment: Assignment) -> None:
    network = assignment.network
    for layer in network:
        if isinstance(layer, MaxPool2d):
            continue
        _, target_bits, activation_bits = layer_widths(assignment, layer)
        where = f"assignment {assignment.name}, layer {layer.name}"
        if isinstance(layer, WeightLayer):
            if not network.is_pinned(layer):
                machine.weight_widths.require(target_bits, f"{where}: on this machine the weight width")
            low, high = accumulator_bound(switched_weights(layer, target_bits), target_bits, activation_bits)
            input_channels = layer_geometry(network, layer).input_channels
            if target_bits == 1 and input_channels != padded_channels(machine, network, layer):
                raise ValueError(
                    f"{where}: bipolar weights need input channels in a multiple of {machine.channel_multiple}, "
                    f"not {input_channels}"
                )
        else:
            geometry = layer_geometry(network, layer)
            low, high = 0, geometry.taps * spec.unsigned_high(activation_bits)
        needed_bits = spec.signed_bits(low, high)
        if needed_bits > machine.accumulator_bits:
            raise ValueError(
                f"{where}: accumulators reach {low} .. {high} and need {needed_bits} bits, "
                f"the machine has {machine.accumulator_bits}"
            )
        if activation_bits != spec.MAX_BITS and activation_bits not in machine.activation_widths:
            raise ValueError(
                f"{where}: reads {activation_bits}-bit activations, the machine has {machine.activation_widths}"
            )


def _check_sizes(network: Network) -> None:
    side = (1 << SIZE_BITS) - 1
    kernel_side = (1 << KERNEL_BITS) - 1
    windows = {window(network, network.layer(name)) for name in network.readers(IMAGE)}
    if len(windows) > 1:
        raise ValueError(f"layers that read the image must share kernel, stride and padding, not {sorted(windows)}")
    for layer in network:
        kernel, stride, padding = window(network, layer)
        sizes = {"kernel height": kernel[0], "kernel width": kernel[1], "stride": stride, "padding": padding}
        limits = dict.fromkeys(sizes, kernel_side)
        for tensor, what in ((layer.input, "input"), (layer.name, "output")):
            for axis, size in zip(("channels", "height", "width"), network.shape(tensor), strict=True):
                sizes[f"{what} {axis}"] = size
                limits[f"{what} {axis}"] = side
        for what, size in sizes.items():
            if size > limits[what]:
                raise ValueError(f"layer {layer.name}: {what} must be at most {limits[what]}, not {size}")


COUNTS = {
    "units": "units of a pixel or image window",
    "output_units": "units of an output pixel",
    "tiles": "tiles of channels",
    "channel_groups": "groups of channels",
}
"""Fields of a layer's descriptor that count something by ``SIZE_BITS``, whatever the memories."""


def _checked_counts(layer: Layer, fields: dict[str, int]) -> dict[str, int]:
    """Return the fields of a layer, or raise ``ValueError`` if the machine cannot count so far."""
    most = (1 << SIZE_BITS) - 1
    for name, what in COUNTS.items():
        if fields[name] > most:
            raise ValueError(f"layer {layer.name}: {what} must be at most {most}, not {fields[name]}")
    return fields


def _channel_groups(machine: Machine, channels: int) -> int:
    return -(-channels // machine.requantizers)


def place_tensors(
    network: Network, machine: Machine, assignment: Assignment
) -> tuple[dict[str, TensorPlace], tuple[int, int]]:
    """Return where every tensor lies, and how many activation and skip words that takes.

    A tensor keeps its place from the layer that makes it to the last one that reads it. A layer of one tile may write
    over what it reads for the last time, see ``_lowest_lead``. A skip code that is added for the last time gives its
    place to the sum's. Places are chosen one after another, each so that the memory grows least.
    """
    order = {layer.name: index for index, layer in enumerate(network.layers)}
    codes = _Placement()
    skips = _Placement()
    places: dict[str, TensorPlace] = {}
    for index, layer in enumerate(network.layers):
        codes.release(index)
        skips.release(index)
        channels, height, width = network.shape(layer.name)
        bits = assignment.code_bits(layer.name)
        code_start = skip_start = None
        units = machine.units_per_pixel(channels, bits or spec.MAX_BITS)
        pitch = tensor_pitch(network, machine, assignment, layer.name)
        if bits is not None:
            last = max(order[name] for name in network.readers(layer.name))
            words = -(-height * pitch * units // machine.banks)
            lead = None
            if layer.input != IMAGE and order[network.readers(layer.input)[-1]] == index:
                lead = _lowest_lead(network, machine, layer, places[layer.input], units, pitch)
            under = None if lead is None else (_known(places[layer.input].code_start) // machine.banks, lead)
            code_start = codes.place(words, last, under) * machine.banks
        if network.adders(layer.name):
            last = max(order[name] for name in network.adders(layer.name))
            added = layer.skip if isinstance(layer, WeightLayer) else None
            if added is not None and order[network.adders(added)[-1]] == index:
                # The drain reads each skip code before it writes the sum's: the sum takes the place of what it adds.
                skip_start = skips.take_over(_known(places[added].skip_start), last)
            else:
                skip_start = skips.place(height * width * _channel_groups(machine, channels), last)
        places[layer.name] = TensorPlace(code_start, bits, units, pitch, skip_start)
    code_low, skip_low = codes.low * machine.banks, skips.low
    moved = {
        name: dataclasses.replace(
            place,
            code_start=None if place.code_start is None else place.code_start - code_low,
            skip_start=None if place.skip_start is None else place.skip_start - skip_low,
        )
        for name, place in places.items()
    }
    return moved, (codes.size, skips.size)


def _lowest_lead(
    network: Network, machine: Machine, layer: Layer, source: TensorPlace, units: int, pitch: int
) -> int | None:
    """Return by how many words a layer's output must begin before its input to be written over it, or None.

    The drain writes a strip after the array has read it for all passes; so with one tile of output channels everything
    that strips up to k write must lie below everything that strips after k read.
    """
    geometry = layer_geometry(network, layer)
    if isinstance(layer, MaxPool2d) or tile_count(machine, geometry) > 1:
        return None
    lead = 0
    for first in range(machine.strip_pixels, geometry.output_pixels, machine.strip_pixels):
        row, column = divmod(first - 1, geometry.output_width)
        written_end = (row * pitch + column + 1) * units
        first_row = max(0, first // geometry.output_width * geometry.stride - geometry.padding)
        lead = max(lead, written_end - first_row * source.pitch * source.units)
    return -(-lead // machine.banks)


class _Placement:
    """Places intervals of words, each until its last reader has run, from ``low`` (below 0 maybe) to ``high``."""

    def __init__(self) -> None:
        self.low = 0
        self.high = 1
        self._placed: list[tuple[int, int, int]] = []

    @property
    def size(self) -> int:
        """Words from the lowest to the highest ever in use."""
        return self.high - self.low

    def release(self, now: int) -> None:
        """Forget intervals whose last reader ran before ``now``."""
        self._placed = [placed for placed in self._placed if placed[2] >= now]

    def take_over(self, start: int, last: int) -> int:
        """Keep the interval that begins at ``start`` until its new last reader, and return ``start``."""
        (kept,) = [placed for placed in self._placed if placed[0] == start]
        self._placed[self._placed.index(kept)] = (start, kept[1], last)
        return start

    def place(self, words: int, last: int, under: tuple[int, int] | None = None) -> int:
        """Return the start of a free interval, the one with which the memory grows least, and of those the lowest.

        Parameters
        ----------
        words : int
        last : int
            Index of the last reader.
        under : (int, int), optional
            Start of a placed interval and a lead: the new one may overlap it if it begins that much lower or more.
        """
        starts = [self.low]
        for start, size, _ in self._placed:
            starts += [start + size, start - words]
        if under is not None:
            starts.append(under[0] - under[1])

        def is_free(start: int) -> bool:
            return all(
                start + words <= other
                or other + size <= start
                or (under is not None and other == under[0] >= start + under[1])
                for other, size, _ in self._placed
            )

        start = min(
            (start for start in starts if is_free(start)),
            key=lambda start: (max(self.high, start + words) - min(self.low, start), start),
        )
        self._placed.append((start, words, last))
        self.low, self.high = min(self.low, start), max(self.high, start + words)
        return start


def _weight_shapes(network: Network, machine: Machine) -> list[tuple[Layer, int, int]]:
    """Return (layer, rows of a plane of a tile, stored width) of what the weight memory holds, identities once."""
    shapes: list[tuple[Layer, int, int]] = []
    identities = set()
    for layer in network:
        channels = network.shape(layer.input)[0]
        if isinstance(layer, WeightLayer):
            shapes.append((layer, tile_rows(machine, network, layer), layer.stored_bits))
        elif isinstance(layer, AveragePool2d) and channels not in identities:
            identities.add(channels)
            shapes.append((layer, tile_rows(machine, network, layer), POOL_STORED_BITS))
    return shapes


def _pack_weights(network: Network, machine: Machine) -> tuple[NDArray[np.uint8], dict[str, int]]:
    """Return the weight memory, one bit an element, and the first word of every layer."""
    parts = []
    starts: dict[str, int] = {}
    identity_starts: dict[int, int] = {}
    start = 0
    for layer, _, stored_bits in _weight_shapes(network, machine):
        words = _layer_words(machine, _index_codes(network, machine, layer), stored_bits)
        starts[layer.name] = start
        if isinstance(layer, AveragePool2d):
            identity_starts[network.shape(layer.input)[0]] = start
        parts.append(words)
        start += len(words)
    for layer in network:
        if isinstance(layer, AveragePool2d):
            starts[layer.name] = identity_starts[network.shape(layer.input)[0]]
    return np.concatenate(parts), starts


def _index_codes(network: Network, machine: Machine, layer: Layer) -> NDArray[np.int8]:
    """Return the stored codes as (index, output channel): taps, then padded channels."""
    channels, height, width = network.shape(layer.input)
    if isinstance(layer, AveragePool2d):
        codes = np.eye(channels, dtype=np.int8)[np.newaxis]
    elif isinstance(layer, Linear):
        codes = layer.codes.reshape(-1, channels, height * width).transpose(2, 1, 0)
    elif isinstance(layer, Conv2d):
        out_channels = layer.out_channels
        codes = layer.codes.reshape(out_channels, channels, -1).transpose(2, 1, 0)
        if layer.input == IMAGE:
            return _image_index_codes(network, machine, codes)
    else:
        raise TypeError(f"layer {layer.name} has no stored codes")
    padding = padded_channels(machine, network, layer) - codes.shape[1]
    padded = np.pad(codes, ((0, 0), (0, padding), (0, 0)))
    return padded.reshape(-1, codes.shape[2])


def _image_index_codes(network: Network, machine: Machine, codes: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return codes (tap, channel, output channel) as the image loader lays out their windows."""
    taps, channels, out_channels = codes.shape
    steps = image_steps(network, machine)
    padded = np.pad(codes, ((0, 0), (0, steps * machine.image_channels - channels), (0, 0)))
    flat = padded.reshape(taps * steps, machine.image_channels, out_channels)
    per_word = machine.image_steps_per_word
    words = np.pad(flat, ((0, -len(flat) % per_word), (0, 0), (0, 0)))
    words = words.reshape(-1, per_word * machine.image_channels, out_channels)
    idle_lanes = machine.lanes - words.shape[1]
    return np.pad(words, ((0, 0), (0, idle_lanes), (0, 0))).reshape(-1, out_channels)


def _layer_words(machine: Machine, codes: NDArray[np.int8], stored_bits: int) -> NDArray[np.uint8]:
    """Return the words of a layer: tile by tile, row by row but the ninth ones, the planes of a row top first."""
    indices, channels = codes.shape
    padded = np.pad(codes, ((0, 0), (0, -channels % machine.columns)))
    tiles = padded.shape[1] // machine.columns
    # (chunk, lane, tile, column) -> (tile, chunk, lane, column) -> rows of the port.
    chunks = padded.reshape(indices // machine.bank_lanes, machine.bank_lanes, tiles, machine.columns)
    port_bits, spare_bits = machine.weight_port_bits, machine.weight_spare_bits
    rows = chunks.transpose(2, 0, 1, 3).reshape(tiles, -1, 1, port_bits)
    planes = np.arange(stored_bits - 1, -1, -1, dtype=np.int8).reshape(1, 1, -1, 1)
    bits = ((rows >> planes) & 1).astype(np.uint8)
    if spare_bits == 0:
        return bits.reshape(-1, port_bits)
    is_ninth = np.arange(bits.shape[1]) % BUNDLE_ROWS == BUNDLE_ROWS - 1
    words = np.zeros((tiles, int((~is_ninth).sum()), stored_bits, machine.weight_word_bits), np.uint8)
    words[..., :port_bits] = bits[:, ~is_ninth]
    ninth = bits[:, is_ninth].reshape(tiles, -1, stored_bits, BUNDLE_ROWS - 1, spare_bits).transpose(0, 1, 3, 2, 4)
    bundled = ninth.shape[1] * (BUNDLE_ROWS - 1)
    words[:, :bundled, :, port_bits:] = ninth.reshape(tiles, bundled, stored_bits, spare_bits)
    return words.reshape(-1, machine.weight_word_bits)


def _tables(machine: Machine, requantizers: LayerRequantizers, channels: int) -> list[int]:
    """Return the packed entries of a layer: its channels padded to whole groups, then the code's from the skip code."""
    entries = [_table(machine, requantizers.primary, channel) for channel in range(channels)]
    entries += [0] * (_channel_groups(machine, channels) * machine.requantizers - channels)
    entries.append(0 if requantizers.code is None else _table(machine, requantizers.code, 0))
    return entries


def _adds(layer: Layer) -> bool:
    """Return whether a layer adds a skip code."""
    return isinstance(layer, WeightLayer) and layer.skip is not None


def _skip_tables(machine: Machine, requantizer: Requantizer, channels: int) -> list[int]:
    """Return K of a layer's channels, padded to whole groups."""
    mask = (1 << machine.requantizer.skip_multiplier_bits) - 1
    entries = [int(requantizer.skip_multiplier[channel]) & mask for channel in range(channels)]
    return entries + [0] * (_channel_groups(machine, channels) * machine.requantizers - channels)


def _table(machine: Machine, requantizer: Requantizer, channel: int) -> int:
    layout = machine.table_layout
    values = {
        "multiplier": int(requantizer.multiplier[channel]),
        "addend": int(requantizer.addend[channel]),
        "shift": int(requantizer.shift[channel]),
    }
    return layout.pack({name: values[name] & ((1 << bits) - 1) for name, bits in layout.fields})


def _layer_fields(
    network: Network,
    machine: Machine,
    assignment: Assignment,
    layer: Layer,
    places: Mapping[str, TensorPlace],
    table_starts: tuple[int, int],
) -> dict[str, int]:
    """Return the descriptor of a layer, whose entries begin at ``table_starts`` in the tables and the skip tables."""
    geometry = layer_geometry(network, layer)
    activation_bits = assignment.activation_bits(layer.name)
    reads_image = layer.input == IMAGE
    units = input_units(machine, network, layer, activation_bits)
    input_start = 0 if reads_image else _known(places[layer.input].code_start)
    pitch = geometry.input_width if reads_image else places[layer.input].pitch
    address_mask = (1 << machine.unit_address_bits) - 1
    row_units = pitch * units
    place = places[layer.name]
    output_bits = place.code_bits or spec.MAX_BITS
    fields = {name: 0 for name, _ in machine.layer_layout.fields}
    fields |= {
        "is_last": layer is network.layers[-1],
        "reads_image": reads_image,
        "releases_image": reads_image and layer.name == network.readers(IMAGE)[-1],
        "slot_index": machine.slot_index(activation_bits),
        # Addresses wrap, so padding may start before the tensor; such pixels are masked.
        "input_start": (input_start - geometry.padding * (row_units + units)) & address_mask,
        "pixel_step": geometry.stride * units & address_mask,
        "row_step": geometry.stride * row_units & address_mask,
        "kernel_row_step": row_units & address_mask,
        "units": units,
        "input_width": geometry.input_width,
        "input_height": geometry.input_height,
        "output_width": geometry.output_width,
        "output_pixels": geometry.output_pixels,
        "kernel_width": geometry.kernel[1],
        "kernel_height": geometry.kernel[0],
        "stride": geometry.stride,
        "padding": geometry.padding,
        "output_start": place.code_start or 0,
        "output_units": place.units,
        "output_row_gap": (place.pitch - geometry.output_width) * place.units & address_mask,
        "output_slot_index": machine.slot_index(output_bits),
    }
    if isinstance(layer, MaxPool2d):
        return fields | {"is_max_pool": 1}

    _, target_bits, _ = layer_widths(assignment, layer)
    rows = tile_rows(machine, network, layer)
    pools = isinstance(layer, AveragePool2d)
    planes_of_passes = (1,) if pools else machine.planes_of_passes(target_bits, activation_bits)
    skip_low = network.skip_range(layer.name)[0]
    fields |= {
        "tiles": tile_count(machine, geometry),
        "passes": len(planes_of_passes),
        "subtracts_first": not pools and spec.plane_subtracts(target_bits, 0),
        "subtracts_second": not pools and spec.plane_subtracts(target_bits, 1),
        "staging_start": rows if pools else 0,
        "plane_step": rows,
        "shares_taps": pools,
        "keeps_weights": pools and machine.banks % units == 0,
        "table_start": table_starts[0],
        "channel_groups": _channel_groups(machine, geometry.output_channels),
        "makes_skip": place.skip_start is not None,
        "makes_signed_skip": place.skip_start is not None and skip_low < 0,
        "skip_output_start": place.skip_start or 0,
        "makes_code": place.code_start is not None,
        "code_high": spec.unsigned_high(output_bits),
    }
    if machine.datapath == "dsp":
        fields["first_digit_planes"] = planes_of_passes[0]
    if isinstance(layer, WeightLayer):
        fields["makes_logits"] = layer.makes_logits
        if layer.skip is not None:
            fields["adds"] = 1
            fields["skip_table_start"] = table_starts[1]
            fields["skip_is_signed"] = network.skip_range(layer.skip)[0] < 0
            fields["skip_start"] = _known(places[layer.skip].skip_start)
    return {name: int(value) for name, value in fields.items()}


def _tiles_fields(
    network: Network, machine: Machine, assignment: Assignment, layer: Layer, weight_starts: Mapping[str, int]
) -> dict[str, int]:
    """Return the loader's entry of a layer."""
    fields = {name: 0 for name, _ in machine.tiles_layout.fields}
    fields["is_last"] = int(layer is network.layers[-1])
    if isinstance(layer, MaxPool2d):
        return fields
    geometry = layer_geometry(network, layer)
    stored_bits, target_bits, _ = layer_widths(assignment, layer)
    rows = tile_rows(machine, network, layer)
    # Without a rounding bit the switch passes the top planes as they are: the floor rule.
    rounds = stored_bits > target_bits > 1
    planes_read = spec.planes_read(stored_bits, target_bits)
    if isinstance(layer, WeightLayer) and layer.switch_rule == FLOOR:
        rounds, planes_read = False, target_bits
    return fields | {
        "has_weights": 1,
        "rounds": int(rounds),
        "target_bits": target_bits,
        "planes_read": planes_read,
        "planes_stored": stored_bits,
        "tiles": tile_count(machine, geometry),
        "tile_rows": rows,
        "weight_start": weight_starts[layer.name],
        "staging_start": (spec.planes_applied(target_bits) - 1) * rows,
    }


def image_fields(network: Network, machine: Machine) -> dict[str, int]:
    """Return the geometry record for the image loader and the result buffer.

    Raises
    ------
    ValueError
        If the image memory is too small for the network.
    """
    first = network.layer(network.readers(IMAGE)[0])
    kernel, stride, padding = window(network, first)
    channels, height, width = network.image_shape
    _, out_height, out_width = network.shape(first.name)
    steps = image_steps(network, machine)
    window_words = image_words_per_window(network, machine)
    lead = image_lead(network, machine, machine.image_words)
    if lead is None:
        need = image_ring_words(network, machine)
        raise ValueError(f"the network needs image_words = {need}, the machine has {machine.image_words}")
    address_mask = (1 << bits_for(machine.raw_image_words - 1)) - 1
    return {
        "channels": channels,
        "height": height,
        "width": width,
        "output_height": out_height,
        "output_width": out_width,
        "kernel_height": kernel[0],
        "kernel_width": kernel[1],
        "stride": stride,
        "padding": padding,
        "steps": steps,
        "start": -padding * (width + 1) * steps & address_mask,
        "row_step": width * steps & address_mask,
        "window_step": stride * steps & address_mask,
        "window_row_step": stride * width * steps & address_mask,
        "image_bytes": channels * height * width,
        "words": out_height * out_width * window_words & machine.image_words - 1,
        "windows_held": machine.image_words // window_words,
        "windows_lead": lead,
        "classes": network.classes,
    }


def _known(start: int | None) -> int:
    assert start is not None, "a tensor that is read has a place"
    return start


def read_codes(
    machine: Machine, words: NDArray[np.uint8], place: TensorPlace, shape: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Return the codes of a tensor from the contents of the activation memory.

    Parameters
    ----------
    machine : Machine
    words : ndarray of uint8, shape (activation_words, activation_bits)
        The memory, one bit an element.
    place : TensorPlace
    shape : (channels, height, width)

    Returns
    -------
    ndarray of uint8, shape (channels, height, width)
    """
    channels, height, width = shape
    bits = place.code_bits or spec.MAX_BITS
    start = _known(place.code_start)
    slot = machine.group_bits << machine.slot_index(bits)
    per_lane = machine.activations_per_lane(bits)
    units = words.reshape(-1, machine.unit_bits)
    row_units = place.pitch * place.units
    rows = [units[start + y * row_units : start + y * row_units + width * place.units] for y in range(height)]
    # (pixel, unit, activation of the lane, group of the activation, lane, bit) -> channel order, bits together.
    cut = np.concatenate(rows).reshape(
        height * width, place.units, per_lane, slot // machine.group_bits, machine.bank_lanes, machine.group_bits
    )
    codes = cut.transpose(0, 1, 2, 4, 3, 5).reshape(height * width, -1, slot)[:, :channels]
    values = (codes.astype(np.uint16) << np.arange(slot, dtype=np.uint16)).sum(axis=2)
    return values.astype(np.uint8).T.reshape(shape)


def read_skip_codes(
    words: NDArray[np.uint8], place: TensorPlace, shape: tuple[int, int, int], signed: bool
) -> NDArray[np.int16]:
    """Return the skip codes of a tensor from the contents of the skip memory.

    Parameters
    ----------
    words : ndarray of uint8, shape (skip_words, requantizers)
        The memory, one code an element.
    place : TensorPlace
    shape : (channels, height, width)
    signed : bool

    Returns
    -------
    ndarray of int16, shape (channels, height, width)
    """
    channels, height, width = shape
    start = _known(place.skip_start)
    groups = -(-channels // words.shape[1])
    region = words[start : start + height * width * groups].reshape(height * width, -1)[:, :channels]
    values = region.view(np.int8) if signed else region
    return values.astype(np.int16).T.reshape(shape)
