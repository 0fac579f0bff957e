"""How the layers of a network run on the array of a machine: kernels, padding, tiles, units of a pixel."""

from __future__ import annotations

from dataclasses import dataclass

from hwsim import spec
from hwsim.machine import Machine
from hwsim.network import IMAGE, Assignment, AveragePool2d, Layer, Linear, MaxPool2d, Network, WeightLayer

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


def channel_groups(machine: Machine, channels: int) -> int:
    """Return the groups of channels that the requantizers take one after another."""
    return -(-channels // machine.requantizers)
