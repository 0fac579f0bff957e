"""Storage and weight traffic of a network: exact counts, from its layers and the arithmetic contract alone."""

from __future__ import annotations

from dataclasses import dataclass

from hwsim import spec
from hwsim.machine import Machine
from hwsim.network import FLOOR, PINNED_BITS, Assignment, Network, WeightLayer

FLOAT_BITS = 32


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Bits that keep the weights of one network, by way of keeping them.

    Parameters
    ----------
    weights : int
        Number of weights.
    stored_once_bits : int
        One copy of the stored codes; every width is switched from it.
    float_bits : int
        The same weights as float32.
    model_per_width_bits : int
        One copy of the weights for each width of the set, each at its own width; the pinned layers, at 8 bits in all of
        them, are counted once.
    parameter_bits : int
        Float32 parameters of the network file: weight scales, BatchNorm sets, biases and scales of stored tensors.
    """

    weights: int
    stored_once_bits: int
    float_bits: int
    model_per_width_bits: int
    parameter_bits: int

    @property
    def float_ratio(self) -> float:
        """Float32 bits for each stored bit."""
        return self.float_bits / self.stored_once_bits

    @property
    def model_per_width_ratio(self) -> float:
        """Bits of one model per width for each stored bit."""
        return self.model_per_width_bits / self.stored_once_bits


def storage(network: Network) -> Storage:
    """Return what keeping the weights of ``network`` takes."""
    layers = network.weight_layers
    return Storage(
        weights=sum(layer.codes.size for layer in layers),
        stored_once_bits=sum(layer.codes.size * layer.stored_bits for layer in layers),
        float_bits=sum(layer.codes.size * FLOAT_BITS for layer in layers),
        model_per_width_bits=sum(_bits_of_separate_copies(network, layer) for layer in layers),
        parameter_bits=FLOAT_BITS * _real_parameters(network),
    )


def _bits_of_separate_copies(network: Network, layer: WeightLayer) -> int:
    widths = (PINNED_BITS,) if network.is_pinned(layer) else network.width_set.widths
    return int(layer.codes.size) * sum(widths)


def _real_parameters(network: Network) -> int:
    count = 0
    for layer in network:
        if isinstance(layer, WeightLayer):
            count += layer.out_channels * (1 + (layer.bias is not None))
            count += sum(4 * batch_norm.channels + 1 for batch_norm in layer.batch_norms.values())
        output = getattr(layer, "output", None)
        if output is not None:
            count += len(output.code) + (output.skip is not None) + (output.logit is not None)
    return count


def layer_weight_bits_read(layer: WeightLayer, weight_bits: int) -> int:
    """Return the stored bits that switching every weight of ``layer`` to ``weight_bits`` reads once."""
    # Under the floor rule no rounding plane is needed.
    planes = weight_bits if layer.switch_rule == FLOOR else spec.planes_read(layer.stored_bits, weight_bits)
    return int(layer.codes.size) * int(planes)


def weight_bits_read(network: Network, assignment: Assignment) -> int:
    """Return the stored bits that switching every weight once reads: the planes above and the rounding plane.

    A machine that loads a tile again for every strip of a layer reads a multiple of it.
    """
    return sum(layer_weight_bits_read(layer, assignment.weight_bits(layer.name)) for layer in network.weight_layers)


def macs(network: Network) -> int:
    """Return the multiply-accumulates of one image, padding taps included."""
    return sum(network.macs(layer) for layer in network.weight_layers)


def bit_products(network: Network, assignment: Assignment) -> int:
    """Return the products of one weight bit and one activation bit of one image."""
    return sum(
        network.macs(layer) * assignment.weight_bits(layer.name) * assignment.activation_bits(layer.name)
        for layer in network.weight_layers
    )


def ideal_cycles(network: Network, machine: Machine, assignment: Assignment, layer_name: str) -> float:
    """Return the cycles of a layer's multiply-accumulates at the peak rate of its own widths; 0 for pooling.

    Divided by the cycles it really takes, this is the layer's utilization.
    """
    layer = network.layer(layer_name)
    if not isinstance(layer, WeightLayer):
        return 0.0
    widths = assignment.weight_bits(layer_name), assignment.activation_bits(layer_name)
    return network.macs(layer) / machine.macs_per_cycle(*widths)
