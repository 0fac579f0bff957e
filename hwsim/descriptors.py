"""Descriptors of layers: what the sequencer and the weight loader are told of each."""

from __future__ import annotations

from collections.abc import Mapping

from hwsim import spec
from hwsim.layer_geometry import channel_groups, input_units, layer_geometry, layer_widths, tile_count, tile_rows
from hwsim.machine import SIZE_BITS, Machine
from hwsim.network import FLOOR, IMAGE, Assignment, AveragePool2d, Layer, MaxPool2d, Network, WeightLayer
from hwsim.tensor_places import TensorPlace, known_start

COUNTS = {
    "units": "units of a pixel or image window",
    "output_units": "units of an output pixel",
    "tiles": "tiles of channels",
    "channel_groups": "groups of channels",
}
"""Fields of a layer's descriptor that count something by ``SIZE_BITS``, whatever the memories."""


def checked_counts(layer: Layer, fields: dict[str, int]) -> dict[str, int]:
    """Return the fields of a layer, or raise ``ValueError`` if the machine cannot count so far."""
    most = (1 << SIZE_BITS) - 1
    for name, what in COUNTS.items():
        if fields[name] > most:
            raise ValueError(f"layer {layer.name}: {what} must be at most {most}, not {fields[name]}")
    return fields


def layer_fields(
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
    input_start = 0 if reads_image else known_start(places[layer.input].code_start)
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
        "channel_groups": channel_groups(machine, geometry.output_channels),
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
            fields["skip_start"] = known_start(places[layer.skip].skip_start)
    return {name: int(value) for name, value in fields.items()}


def tiles_fields(
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
