"""Exact cycles of a program: a recurrence over tiles and passes, equal to the hardware for every program.

Three engines run side by side and wait for each other only through counters: the *loader* switches tiles of weights
into two staging halves, the *array* runs passes out of them into two accumulator banks, the *drain* requantizes the
banks. Cycle 0 is the one in which an image has passed both barriers (image ready, result space). The hardware's
cycle counter gives the same numbers; what it counts at the barriers is kept apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwsim import spec
from hwsim.machine import (
    ACCUMULATOR_ARRIVAL_CYCLES,
    ACCUMULATOR_HAZARD_CYCLES,
    ACCUMULATOR_LATENCY_CYCLES,
    ACTIVATION_ARRIVAL_CYCLES,
    ADDRESS_LATENCY_CYCLES,
    ARRAY_LATENCY_CYCLES,
    CODE_WRITE_CYCLES,
    FEEDER_PASS_CYCLES,
    IMAGE_WRITE_CYCLES,
    LAYOUT_ROW_CYCLES,
    MAX_POOL_LATENCY_CYCLES,
    MEMORY_LATENCY_CYCLES,
    REQUANTIZER_LATENCY_CYCLES,
    STAGING_WRITE_CYCLES,
    WEIGHT_ARRIVAL_CYCLES,
    WEIGHT_SWITCH_LATENCY_CYCLES,
    Machine,
)
from hwsim.program import AssignmentProgram


def accumulated_cycles(machine: Machine) -> int:
    """Return the cycles from the last pixel of a job to the one in which the drain may read its accumulators."""
    array_latency = ARRAY_LATENCY_CYCLES[machine.datapath]
    read_cycles = ADDRESS_LATENCY_CYCLES + MEMORY_LATENCY_CYCLES + ACTIVATION_ARRIVAL_CYCLES
    return read_cycles + array_latency + ACCUMULATOR_LATENCY_CYCLES


@dataclass(frozen=True)
class LayerTiming:
    """Cycles of one layer.

    Parameters
    ----------
    name : str
    start_cycle : int
        Cycle in which the engines begin.
    end_cycle : int
        Cycle in which the last code has been stored.
    cycles : int
        From the end of the layer before, so that the layers' cycles add up to the image's.
    array_cycles : int
        Cycles in which an activation word enters the array (or the pooling unit).
    load_wait_cycles : int
        Cycles in which the array's feeder waits for a tile of weights that is still being loaded. They belong to what
        ran before: the loader works one tile ahead, and a layer may be too short to load the next one's first tile in.
    """

    name: str
    start_cycle: int
    end_cycle: int
    cycles: int
    array_cycles: int
    load_wait_cycles: int


@dataclass(frozen=True)
class ImageTiming:
    """Cycles of one image at one assignment."""

    layers: tuple[LayerTiming, ...]

    @property
    def cycles(self) -> int:
        """Cycles of the image, barriers not counted."""
        return self.layers[-1].end_cycle


def image_timing(machine: Machine, part: AssignmentProgram) -> ImageTiming:
    """Return the cycles of one image at one resident assignment."""
    # The words of the descriptor, and a cycle in which what the engines derive from it settles.
    fetch_cycles = machine.layer_layout.load_words + MEMORY_LATENCY_CYCLES + 1
    names = list(part.assignment.layers)
    loader = _Loader(part)
    timings = []
    end = 0
    for name, fields in zip(names, part.layers, strict=True):
        start = end + 1 + fetch_cycles
        if fields["is_max_pool"]:
            array_cycles = fields["output_pixels"] * fields["units"] * fields["kernel_height"] * fields["kernel_width"]
            layer_end = start + array_cycles + MAX_POOL_LATENCY_CYCLES + 1
            waited = 0
        else:
            layer_end, array_cycles, waited = _array_layer(machine, fields, start, loader)
        timings.append(LayerTiming(name, start, layer_end, layer_end - end, array_cycles, waited))
        end = layer_end
    return ImageTiming(tuple(timings))


def _array_layer(machine: Machine, fields: Mapping[str, int], start: int, loader: _Loader) -> tuple[int, int, int]:
    """Return the cycle in which a layer's last code has been stored, the cycles it streams, and those it waits."""
    window_units = fields["kernel_height"] * fields["kernel_width"] * fields["units"]
    steps = [min(machine.banks, window_units - first) for first in range(0, window_units, machine.banks)]
    slot_bits = machine.group_bits << fields["slot_index"]
    plane_rows = machine.unit_rows * machine.activations_per_lane(slot_bits)
    planes_of_passes = [1] * fields["passes"]
    if machine.datapath == "dsp":
        planes_of_passes = [fields["first_digit_planes"]] + [slot_bits] * (fields["passes"] - 1)
    strips = _strips(fields["output_pixels"], machine.strip_pixels)

    array_cycles = waited = 0
    begin = start + 1
    # The accumulators and the pixel counter are idle since the layer before was stored.
    take = start - ACCUMULATOR_HAZARD_CYCLES
    pixels = 0
    releases = [start, start]
    drained = start + 1
    groups_left = fields["channel_groups"]
    for _ in range(fields["tiles"]):
        tile_ready = loader.tile_ready()
        waited += max(0, tile_ready - begin)
        begin = max(begin, tile_ready)
        groups = min(groups_left, machine.groups_of_channels)
        groups_left -= groups
        for strip in strips:
            for position, planes in enumerate(planes_of_passes):
                unit_rows = planes * plane_rows
                for step, units in enumerate(steps):
                    keeps = fields["keeps_weights"] and step > 0
                    ready = begin + 1 + units * (1 if keeps else unit_rows)
                    first_of_job = position == 0 and step == 0
                    ready = max(ready, take + ACCUMULATOR_HAZARD_CYCLES, take + pixels + first_of_job)
                    if first_of_job:
                        ready = max(ready, releases[-2] + 1)
                    take = ready
                    pixels = strip
                    array_cycles += strip
                    begin = take + FEEDER_PASS_CYCLES
            accumulated = take + strip + accumulated_cycles(machine)
            drain_begin = max(drained + 1, accumulated + 1)
            drained = drain_begin + groups * (machine.requantizers + 2 + strip)
            releases.append(drained)
        loader.release(take + 1)
    arrived = drained + 1 + MEMORY_LATENCY_CYCLES + ACCUMULATOR_ARRIVAL_CYCLES
    return arrived + 2 * REQUANTIZER_LATENCY_CYCLES + CODE_WRITE_CYCLES, array_cycles, waited


def _strips(pixels: int, strip_pixels: int) -> list[int]:
    """Return the pixels of every strip."""
    strips = [strip_pixels] * (pixels // strip_pixels)
    if pixels % strip_pixels:
        strips.append(pixels % strip_pixels)
    return strips


class _Loader:
    """The loader's tiles, one after another; it runs ahead by two halves."""

    def __init__(self, part: AssignmentProgram) -> None:
        self._tiles = [
            (fields, index)
            for index, fields in enumerate(part.tiles)
            for _ in range(fields["tiles"] if fields["has_weights"] else 0)
        ]
        self._released: list[int] = []
        self._next = 0
        self._finished = 0
        self._layer = -1

    def release(self, cycle: int) -> None:
        """The oldest tile is not needed any more from ``cycle`` on."""
        self._released.append(cycle)

    def tile_ready(self) -> int:
        """Return the first cycle in which the array sees the next tile staged."""
        fields, layer = self._tiles[self._next]
        # A layer: end of the one before, fetch of the entry, begin; layers without weights pass the same way.
        earliest = self._finished + 1
        if layer != self._layer:
            skipped = layer - self._layer - 1
            per_layer = MEMORY_LATENCY_CYCLES + 3
            earliest += skipped * per_layer + per_layer - (self._layer < 0)
            self._layer = layer
        begin = earliest
        if self._next >= 2:
            begin = max(begin, self._released[self._next - 2] + 1)
        planes_applied = spec.planes_applied(fields["target_bits"])
        period = max(planes_applied, fields["planes_read"])
        self._finished = (
            begin
            + (fields["tile_rows"] - 1) * period
            + fields["planes_read"]
            + WEIGHT_ARRIVAL_CYCLES
            + WEIGHT_SWITCH_LATENCY_CYCLES
            + STAGING_WRITE_CYCLES
            + planes_applied
            - 1
        )
        self._next += 1
        return self._finished + 1


def image_load_cycles(machine: Machine, image: Mapping[str, int]) -> int:
    """Return the cycles from an image's first byte until the array may begin, if the bytes come one a cycle.

    Rows of windows are laid out while later rows still arrive; the array may begin when the last byte has arrived and
    enough windows are laid out, see ``hwsim.image_ring``.

    Parameters
    ----------
    machine : Machine
    image : mapping of str to int
        ``Program.image``.
    """
    row_bytes = image["width"] * image["channels"]
    row_windows, lead = image["output_width"], image["windows_lead"]
    window_cycles = image["kernel_height"] * image["kernel_width"] * image["steps"]
    # The layout begins one cycle after the first row is there; a row of windows waits for the rows it reads.
    begin = row_bytes + 1
    for row in range(-(-lead // row_windows)):
        needed = row * image["stride"] + image["kernel_height"] - image["padding"]
        here = min(max(needed, 1), image["height"]) * row_bytes
        windows = min(lead - row * row_windows, row_windows)
        begin = max(begin, here) + LAYOUT_ROW_CYCLES + windows * window_cycles
    return max(begin + IMAGE_WRITE_CYCLES, image["height"] * row_bytes) + 1


def image_interval_cycles(image: Mapping[str, int]) -> int:
    """Return the cycles that the image loader takes from one image to the next: for its bytes, or to lay it out.

    Parameters
    ----------
    image : mapping of str to int
        ``Program.image``.
    """
    window_cycles = image["kernel_height"] * image["kernel_width"] * image["steps"]
    # An image ends with the memory's latency, a cycle to settle and one to begin.
    layout = (
        image["output_height"] * (LAYOUT_ROW_CYCLES + image["output_width"] * window_cycles) + IMAGE_WRITE_CYCLES + 2
    )
    return max(image["image_bytes"], layout)
