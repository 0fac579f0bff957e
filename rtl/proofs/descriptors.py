"""What proofs assume of a program: the rules that its descriptors keep, in one place.

``hwsim.program.build`` makes descriptors by these rules, and refuses what would break them; that every descriptor it
makes keeps them is tested. A product is compared only where its factors are no larger than what bounds it, so that it
needs no more bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Mux, Value

from hwsim import spec
from hwsim.machine import BUNDLE_ROWS, SIZE_BITS, Machine, bits_for
from rtl.multiple import multiple
from rtl.proofs.bench import Bench

SMALL_ROWS = ((1, 3), (1, 5), (2, 4))
"""Units of a pixel and of a row."""

SMALL_WINDOWS = (
    "windows of at most 3 x 3 pixels, a stride of at most 2 and a padding of at most 1, and rows of "
    + " or ".join(f"{of_row} units of {units} a pixel" for units, of_row in SMALL_ROWS)
)


@dataclass(frozen=True)
class Place:
    """Where a tensor of codes lies: what a descriptor was made from and does not hold itself.

    Parameters
    ----------
    start : Value
        Unit address of the first pixel.
    row_units : Value
        Units from one row to the next.
    height : Value
        Rows.
    """

    start: Value
    row_units: Value
    height: Value


def product(first: Value, second: Value, most: int) -> Value:
    """Return a product of factors that are at most ``most``."""
    bits = bits_for(most)
    return first[:bits] * second[:bits]


def product_fits(first: Value, second: Value, most: int) -> Value:
    """Return whether the product of two factors, which are at least 1, is at most ``most``."""
    return (first <= most) & (second <= most) & (product(first, second, most) <= most)


def is_product(value: Value, first: Value, second: Value, most: int) -> Value:
    """Return whether ``value`` is a product that is at most ``most``."""
    return product_fits(first, second, most) & (value == product(first, second, most))


def planes_applied(bits: Value) -> Value:
    """Return the planes that weights of so many bits have in the array."""
    return Mux(bits == 1, spec.planes_applied(1), bits)


def rows_stored(machine: Machine, rows: Value) -> Value:
    """Return ``Machine.weight_rows_stored`` of so many rows."""
    return (rows - rows // BUNDLE_ROWS)[: len(rows)] if machine.weight_spare_bits else rows


def valid_entry(machine: Machine, entry: Value) -> Value:
    """Return whether a loader's entry is valid: widths that go together, planes that fit the memories."""
    passes, rows = planes_applied(entry.target_bits), rows_stored(machine, entry.tile_rows)
    most = machine.weight_words
    tile_words = product(rows, entry.planes_stored, most)
    rounded = Mux(entry.target_bits == 1, spec.planes_read(2, 1), entry.target_bits + entry.rounds)
    weights = (
        (entry.target_bits >= 1)
        & (entry.target_bits <= spec.MAX_BITS)
        & ((entry.planes_read == rounded) | (entry.planes_read == entry.target_bits))
        & (entry.planes_read <= entry.planes_stored)
        & (entry.planes_stored <= spec.MAX_BITS)
        & (entry.tile_rows >= 1)
        & (entry.tiles >= 1)
        & (entry.staging_start >= (passes - 1) * entry.tile_rows)
        & (entry.staging_start + entry.tile_rows <= machine.staging_words)
        & product_fits(rows, entry.planes_stored, most)
        & product_fits(entry.tiles, tile_words, most)
        & (entry.weight_start + product(entry.tiles, tile_words, most) <= most)
    )
    return ~entry.has_weights | weights


def activations_per_lane(machine: Machine, slot_index: Value) -> Value:
    """Return how many activations share a lane, 0 if there is no such slot."""
    found: Value = Const(0)
    for slot in machine.slots:
        found = Mux(slot_index == machine.slot_index(slot), machine.activations_per_lane(slot), found)
    return found


def unit_turns(machine: Machine, layer: Value) -> Value:
    """Return the weight rows of one unit."""
    return multiple(activations_per_lane(machine, layer.slot_index), machine.unit_rows)


def valid_staging(machine: Machine, layer: Value) -> Value:
    """Return whether the feeder's walk through a tile is valid: its planes fit a half, its loops a plane."""
    most = machine.staging_words
    turns = unit_turns(machine, layer)
    tap_rows = product(layer.units, turns, most)
    row_rows = product(layer.kernel_width, tap_rows, most)
    window = product_fits(layer.kernel_width, tap_rows, most) & is_product(
        layer.plane_step, layer.kernel_height, row_rows, most
    )
    return layer.is_max_pool | (
        (turns != 0)
        & counts_from_one(layer)
        & (layer.tiles >= 1)
        & (layer.passes >= 1)
        & product_fits(layer.units, turns, most)
        & Mux(layer.shares_taps, layer.plane_step == tap_rows, window)
        & (~layer.keeps_weights | layer.shares_taps)
        & product_fits(layer.passes, layer.plane_step, most)
        & (layer.staging_start + product(layer.passes, layer.plane_step, most) <= most)
    )


def counts_from_one(layer: Value) -> Value:
    """Return whether every loop of a layer has a turn."""
    counts = ("units", "kernel_width", "kernel_height", "output_width", "output_pixels", "input_width", "input_height")
    return Cat(getattr(layer, name) >= 1 for name in counts).all()


def has_small_window(layer: Value, row_units: Value) -> Value:
    """Return whether a window is so small that a solver can reason about its addresses: see ``SMALL_WINDOWS``."""
    return (
        (layer.kernel_width <= 3)
        & (layer.kernel_height <= 3)
        & (layer.stride <= 2)
        & (layer.padding <= 1)
        & Cat((layer.units == units) & (row_units == of_row) for units, of_row in SMALL_ROWS).any()
    )


def valid_input(machine: Machine, layer: Value, place: Place) -> Value:
    """Return whether a layer's input lies in the activation memory, and its addresses are those of its windows."""
    bits = machine.unit_address_bits
    most = machine.banks * machine.activation_words
    row_units, units = place.row_units, layer.units
    before = multiple_of(layer.padding, row_units + units, bits)
    return layer.reads_image | (
        counts_from_one(layer)
        & (layer.input_start == (place.start - before)[:bits])
        & (layer.pixel_step == multiple_of(layer.stride, units, bits))
        & (layer.row_step == multiple_of(layer.stride, row_units, bits))
        & (layer.kernel_row_step == row_units)
        & (place.height == layer.input_height)
        & product_fits(layer.input_width, units, most)
        & (product(layer.input_width, units, most) <= row_units)
        & tensor_fits(place, most)
    )


def multiple_of(factor: Value, value: Value, bits: int) -> Value:
    """Return ``factor * value`` as an address that wraps."""
    return (factor[:bits] * value[:bits])[:bits]


def is_of_window(machine: Machine, layer: Value, unit: Value, row: Value, column: Value, unit_of_pixel: Value) -> Value:
    """Return whether a unit of a step is noted as one of a kernel tap."""
    bits = machine.unit_address_bits
    at = multiple_of(row, layer.kernel_row_step, bits) + multiple_of(column, layer.units, bits) + unit_of_pixel
    return (
        (row < layer.kernel_height)
        & (column < layer.kernel_width)
        & (unit_of_pixel < layer.units)
        & (unit.kernel_row == row - layer.padding)
        & (unit.kernel_column == column - layer.padding)
        & (unit.offset == at[:bits])
    )


def any_place(bench: Bench, machine: Machine, tensor: str) -> Place:
    """Return any place of a tensor, always the same."""
    bits = machine.unit_address_bits
    start, row_units = (bench.any_constant(bits, f"{tensor}_{name}") for name in ("start", "row_units"))
    return Place(start, row_units, bench.any_constant(SIZE_BITS, f"{tensor}_height"))


def tensor_fits(place: Place, most: int) -> Value:
    """Return whether all rows of a tensor are among ``most`` units."""
    return (
        (place.height >= 1)
        & (place.row_units >= 1)
        & product_fits(place.height, place.row_units, most)
        & (place.start + product(place.height, place.row_units, most) <= most)
    )


def valid_output(machine: Machine, layer: Value, place: Place) -> Value:
    """Return whether the codes of a layer's output fit the activation memory."""
    most = machine.banks * machine.activation_words
    width_units = product(layer.output_width, layer.output_units, most)
    return ~(layer.makes_code | layer.is_max_pool) | (
        (layer.output_units >= 1)
        & counts_from_one(layer)
        & (place.start == layer.output_start)
        & product_fits(layer.output_width, layer.output_units, most)
        & (place.row_units == width_units + layer.output_row_gap)
        & tensor_fits(place, most)
        & is_product(layer.output_pixels, place.height, layer.output_width, most)
        & (~layer.is_max_pool | (layer.output_units == layer.units))
    )


def valid_drain(machine: Machine, layer: Value) -> Value:
    """Return whether the tables, skip codes and logits of a layer fit their memories."""
    requantizers = machine.requantizers
    channels = multiple(layer.channel_groups, requantizers)
    words = product(layer.channel_groups, layer.output_pixels, machine.skip_words)
    skips = product_fits(layer.channel_groups, layer.output_pixels, machine.skip_words)
    of_unit = multiple(activations_per_lane(machine, layer.output_slot_index), machine.bank_lanes)
    return layer.is_max_pool | (
        counts_from_one(layer)
        & (layer.channel_groups >= 1)
        & (layer.table_start + channels + 1 <= machine.table_words)
        & (
            ~layer.adds
            | (
                (layer.skip_table_start + channels <= machine.skip_table_words)
                & skips
                & (layer.skip_start + words <= machine.skip_words)
            )
        )
        & (~layer.makes_skip | (skips & (layer.skip_output_start + words <= machine.skip_words)))
        & (~layer.makes_logits | (layer.channel_groups <= machine.result_words))
        & (~layer.makes_code | (channels <= layer.output_units * of_unit))
    )


def valid_image(machine: Machine, image: Value) -> Value:
    """Return whether the size of an image is that of its rows, columns and channels, and fits the raw memory."""
    most = machine.raw_image_words * machine.image_channels
    row_bytes = product(image.width, image.channels, most)
    return (
        (image.height >= 1)
        & (image.width >= 1)
        & (image.channels >= 1)
        & product_fits(image.width, image.channels, most)
        & is_product(image.image_bytes, image.height, row_bytes, most)
    )
