"""Where the stored forms of tensors lie in the activation and skip memories, and how they are read back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsim import spec
from hwsim.layer_geometry import channel_groups, layer_geometry, tensor_pitch, tile_count
from hwsim.machine import Machine
from hwsim.network import IMAGE, Assignment, Layer, MaxPool2d, Network, WeightLayer


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
            under = None if lead is None else (known_start(places[layer.input].code_start) // machine.banks, lead)
            code_start = codes.place(words, last, under) * machine.banks
        if network.adders(layer.name):
            last = max(order[name] for name in network.adders(layer.name))
            added = layer.skip if isinstance(layer, WeightLayer) else None
            if added is not None and order[network.adders(added)[-1]] == index:
                # The drain reads each skip code before it writes the sum's: the sum takes the place of what it adds.
                skip_start = skips.take_over(known_start(places[added].skip_start), last)
            else:
                skip_start = skips.place(height * width * channel_groups(machine, channels), last)
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


def known_start(start: int | None) -> int:
    """Return the start of a stored form that the network reads, and that therefore has one."""
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
    start = known_start(place.code_start)
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
    start = known_start(place.skip_start)
    groups = -(-channels // words.shape[1])
    region = words[start : start + height * width * groups].reshape(height * width, -1)[:, :channels]
    values = region.view(np.int8) if signed else region
    return values.astype(np.int16).T.reshape(shape)
