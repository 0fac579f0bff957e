"""Entries of the requantizer tables as the memories hold them."""

from __future__ import annotations

from hwsim.layer_geometry import channel_groups
from hwsim.machine import Machine
from hwsim.network import Layer, WeightLayer
from hwsim.requantize import LayerRequantizers, Requantizer


def table_entries(machine: Machine, requantizers: LayerRequantizers, channels: int) -> list[int]:
    """Return the packed entries of a layer: its channels padded to whole groups, then the code's from the skip code."""
    entries = [_table(machine, requantizers.primary, channel) for channel in range(channels)]
    entries += [0] * (channel_groups(machine, channels) * machine.requantizers - channels)
    entries.append(0 if requantizers.code is None else _table(machine, requantizers.code, 0))
    return entries


def adds_skip(layer: Layer) -> bool:
    """Return whether a layer adds a skip code."""
    return isinstance(layer, WeightLayer) and layer.skip is not None


def skip_table_entries(machine: Machine, requantizer: Requantizer, channels: int) -> list[int]:
    """Return K of a layer's channels, padded to whole groups."""
    mask = (1 << machine.requantizer.skip_multiplier_bits) - 1
    entries = [int(requantizer.skip_multiplier[channel]) & mask for channel in range(channels)]
    return entries + [0] * (channel_groups(machine, channels) * machine.requantizers - channels)


def _table(machine: Machine, requantizer: Requantizer, channel: int) -> int:
    layout = machine.table_layout
    values = {
        "multiplier": int(requantizer.multiplier[channel]),
        "addend": int(requantizer.addend[channel]),
        "shift": int(requantizer.shift[channel]),
    }
    return layout.pack({name: values[name] & ((1 << bits) - 1) for name, bits in layout.fields})
