"""Programs: what makes a machine run a network at given assignments.

A program holds the stored codes once, in planes, and for every assignment the requantizer tables and the descriptors
of its layers. It is made for one machine and is refused, by name and by how much, if something does not fit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim import spec
from hwsim.descriptors import checked_counts, layer_fields, tiles_fields
from hwsim.image_layout import image_fields, image_ring_words
from hwsim.layer_geometry import (
    channel_groups,
    image_steps,
    layer_geometry,
    layer_widths,
    padded_channels,
    tile_count,
    tile_rows,
    window,
)
from hwsim.load_words import packet, split_words, weights_packet
from hwsim.machine import ACCUMULATOR_BITS_MOST, KERNEL_BITS, LOAD_WORD_BITS, MEMORY_NAMES, SIZE_BITS, Machine
from hwsim.network import IMAGE, Assignment, Layer, MaxPool2d, Network, WeightLayer
from hwsim.requantize import LayerRequantizers, build_requantizers, switched_weights
from hwsim.table_layout import adds_skip, skip_table_entries, table_entries
from hwsim.tensor_places import TensorPlace, place_tensors
from hwsim.weight_layout import pack_weights, weight_shapes


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
                layer_words += split_words(machine.layer_layout.pack(fields), machine.layer_layout.load_words)
            tiles += [machine.tiles_layout.pack(fields) for fields in part.tiles]
        table_words = machine.table_layout.load_words
        skip_table_words = -(-machine.requantizer.skip_multiplier_bits // LOAD_WORD_BITS)
        tile_words = machine.tiles_layout.load_words
        packets = [
            packet("image", split_words(machine.image_layout.pack(self.image), machine.image_layout.load_words), 1),
            packet("layers", layer_words, len(layer_words)),
            packet("tiles", [word for tile in tiles for word in split_words(tile, tile_words)], len(tiles)),
            packet(
                "tables", [word for table in self.tables for word in split_words(table, table_words)], len(self.tables)
            ),
            packet(
                "skip_tables",
                [word for entry in self.skip_tables for word in split_words(entry, skip_table_words)],
                len(self.skip_tables),
            ),
            weights_packet(self.weight_words),
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

    weight_words, weight_starts = pack_weights(network, machine)
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
                tables += table_entries(machine, requantizers[layer.name], channels)
                if adds_skip(layer):
                    skip_tables += skip_table_entries(machine, requantizers[layer.name].primary, channels)
            layers.append(checked_counts(layer, layer_fields(network, machine, assignment, layer, places, starts)))
            tiles.append(tiles_fields(network, machine, assignment, layer, weight_starts))
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
            checked_counts(layer, layer_fields(network, machine, assignment, layer, places, (0, 0)))
            for layer in network
        ),
        tiles=tuple(tiles_fields(network, machine, assignment, layer, starts) for layer in network),
    )


def requirements(network: Network, machine: Machine, assignments: Sequence[Assignment]) -> dict[str, int]:
    """Return the memory depths that a network needs on a machine of these lanes and columns, by ``MEMORY_NAMES``."""
    weight_words = staging = table_words = skip_table_words = activation_words = skip_words = 0
    for layer, rows, stored_bits in weight_shapes(network, machine):
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
            entries = channel_groups(machine, geometry.output_channels) * machine.requantizers
            table_words += entries + 1
            skip_table_words += entries if adds_skip(layer) else 0
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
        "result_words": channel_groups(machine, network.classes),
    }
    assert tuple(needs) == MEMORY_NAMES
    return needs


def fit_machine(network: Network, assignments: Sequence[Assignment], machine: Machine) -> Machine:
    """Return ``machine`` with memories as deep as a network needs, its image channels, accumulators and banks.

    Accumulators become wider if the network's weights need it and the machine may, never narrower. Banks become more,
    and so their words shorter, if the channels of bipolar layers would not fill whole words, never fewer.
    """
    machine = _banked(network, assignments, machine)
    reached_bits = [
        spec.signed_bits(*accumulator_range(assignment, layer))
        for assignment in assignments
        for layer in network
        if not isinstance(layer, MaxPool2d)
    ]
    machine = dataclasses.replace(
        machine,
        image_channels=min(4, network.image_shape[0]),
        accumulator_bits=min(max([machine.accumulator_bits, *reached_bits]), ACCUMULATOR_BITS_MOST),
    )
    needs = requirements(network, machine, assignments)
    depths: dict[str, Any] = {name: max(2, need) for name, need in needs.items()}
    return dataclasses.replace(machine, **depths)


def _banked(network: Network, assignments: Sequence[Assignment], machine: Machine) -> Machine:
    """Return ``machine`` with the fewest banks in whose words bipolar weights fit; with all if they fit in none."""
    bipolar = {
        layer.name
        for assignment in assignments
        for layer in network.weight_layers
        if assignment.weight_bits(layer.name) == 1
    }
    while machine.banks < machine.lanes and not all(
        _fills_words(machine, network, network.layer(name)) for name in bipolar
    ):
        bank_lanes = machine.bank_lanes // 2
        machine = dataclasses.replace(
            machine,
            banks=2 * machine.banks,
            requantizers=min(machine.requantizers, bank_lanes * machine.groups),
            weight_port_bits=math.gcd(machine.weight_port_bits, bank_lanes * machine.columns),
        )
    return machine


def _fills_words(machine: Machine, network: Network, layer: Layer) -> bool:
    """Return whether a layer's input channels need no padding, which bipolar weights, never 0, cannot have."""
    return layer_geometry(network, layer).input_channels == padded_channels(machine, network, layer)


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
            if target_bits == 1 and not _fills_words(machine, network, layer):
                raise ValueError(
                    f"{where}: bipolar weights need input channels in a multiple of {machine.channel_multiple}, "
                    f"not {layer_geometry(network, layer).input_channels}"
                )
        low, high = accumulator_range(assignment, layer)
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


def accumulator_range(assignment: Assignment, layer: Layer) -> tuple[int, int]:
    """Return (low, high) that no accumulator of a layer leaves; not of a ``MaxPool2d``, which has none."""
    _, target_bits, activation_bits = layer_widths(assignment, layer)
    if isinstance(layer, WeightLayer):
        return accumulator_bound(switched_weights(layer, target_bits), target_bits, activation_bits)
    return 0, layer_geometry(assignment.network, layer).taps * spec.unsigned_high(activation_bits)


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
