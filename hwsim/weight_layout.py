"""How the stored codes of weights lie in the weight memory.

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

import numpy as np
from numpy.typing import NDArray

from hwsim.layer_geometry import POOL_STORED_BITS, image_steps, padded_channels, tile_rows
from hwsim.machine import BUNDLE_ROWS, Machine
from hwsim.network import IMAGE, AveragePool2d, Conv2d, Layer, Linear, Network, WeightLayer


def weight_shapes(network: Network, machine: Machine) -> list[tuple[Layer, int, int]]:
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


def pack_weights(network: Network, machine: Machine) -> tuple[NDArray[np.uint8], dict[str, int]]:
    """Return the weight memory, one bit an element, and the first word of every layer."""
    parts = []
    starts: dict[str, int] = {}
    identity_starts: dict[int, int] = {}
    start = 0
    for layer, _, stored_bits in weight_shapes(network, machine):
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
