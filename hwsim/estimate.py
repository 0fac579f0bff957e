"""What a network takes: storage, and for a machine and an assignment the time, the memory traffic and the roofline.

Counts are exact: those of the network follow from its layers and the arithmetic contract alone, the cycles are
``timing``'s, and the traffic is read off the same descriptors that the hardware runs by. Only a clock, which
place-and-route gives, turns cycles into seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hwsim import spec
from hwsim.image_layout import image_fields
from hwsim.machine import Machine
from hwsim.network import FLOOR, PINNED_BITS, Assignment, Network, WeightLayer
from hwsim.program import AssignmentProgram, describe, requirements
from hwsim.timing import LayerTiming, image_interval_cycles, image_load_cycles, image_timing

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


@dataclass(frozen=True)
class Keeping:
    """One way to keep a network that runs at several widths, in bits; the requantizer tables are the same in all.

    Parameters
    ----------
    name : str
    weight_bits, table_bits, parameter_bits : int
        Weights; requantizer tables of every assignment; float32 parameters, 0 where the tables have replaced them.
    """

    name: str
    weight_bits: int
    table_bits: int
    parameter_bits: int = 0

    @property
    def total_bits(self) -> int:
        """All of it."""
        return self.weight_bits + self.table_bits + self.parameter_bits


def ways_of_keeping(network: Network, machine: Machine, assignments: Sequence[Assignment]) -> tuple[Keeping, ...]:
    """Return what a machine needs to run a network at some assignments, by the way of keeping the weights.

    Methods that learn every width's quantizer apart (Any-Precision, Hot-Swap, MultiQuant; "32 bit" in table 1 of
    arXiv 2502.01199) quantize from float32 at each switch, so they keep float32 weights, and the float32 parameters
    that tables are made from.
    """
    kept, tables = storage(network), table_bits(network, machine, assignments)
    return (
        Keeping("stored once, integers", kept.stored_once_bits, tables),
        Keeping("one model per width", kept.model_per_width_bits, tables),
        Keeping("float32 copy, as Any-Precision, Hot-Swap or MultiQuant", kept.float_bits, tables, kept.parameter_bits),
    )


def table_bits(network: Network, machine: Machine, assignments: Sequence[Assignment]) -> int:
    """Return the bits of the requantizer tables that keep some assignments resident on a machine."""
    needs = requirements(network, machine, assignments)
    skip_bits = needs["skip_table_words"] * machine.requantizer.skip_multiplier_bits
    return needs["table_words"] * machine.table_layout.bits + skip_bits


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


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bits that one layer moves for one image, by memory; padding to whole words included.

    Parameters
    ----------
    weight_bits : int
        Read from the weight memory by the switch.
    staged_bits : int
        Switched planes, written to the staging memory once a tile.
    array_weight_bits : int
        Planes, read from the staging memory into the array.
    activation_bits_read, activation_bits_written : int
        Codes, into the array or the pooling unit, and of the layer's output.
    skip_bits_read, skip_bits_written : int
        Skip codes.
    table_bits : int
        Requantizer entries, read once for every strip.
    """

    weight_bits: int = 0
    staged_bits: int = 0
    array_weight_bits: int = 0
    activation_bits_read: int = 0
    activation_bits_written: int = 0
    skip_bits_read: int = 0
    skip_bits_written: int = 0
    table_bits: int = 0

    @property
    def total_bits(self) -> int:
        """All of it."""
        return sum(vars(self).values())

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(**{name: value + getattr(other, name) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class LayerEstimate:
    """One layer of one image on a machine.

    Parameters
    ----------
    name, widths : str
        Widths as ``W4A8``, or ``A8`` without weights.
    macs : int
        Multiply-accumulates, padding taps included; 0 for pooling.
    cycles : int
        ``LayerTiming.cycles``, equal to the hardware's.
    ideal_cycles : float
        Cycles of the multiply-accumulates at the array's peak for these widths.
    array_cycles, weight_port_cycles, requantizer_cycles : int
        Cycles in which the array, the path from the weight memory and the requantizers are busy: each a lower bound.
    traffic : Traffic
    """

    name: str
    widths: str
    macs: int
    cycles: int
    ideal_cycles: float
    array_cycles: int
    weight_port_cycles: int
    requantizer_cycles: int
    traffic: Traffic

    @property
    def utilization(self) -> float:
        """Share of the array's peak at the layer's own widths, 0 .. 1."""
        return self.ideal_cycles / self.cycles

    @property
    def macs_per_cycle(self) -> float:
        """Multiply-accumulates a cycle, as attained."""
        return self.macs / self.cycles

    @property
    def peak_macs_per_cycle(self) -> float:
        """The array's peak at the layer's own widths; 0 for pooling."""
        return self.macs / self.ideal_cycles if self.ideal_cycles else 0.0

    @property
    def macs_per_weight_bit(self) -> float:
        """Operational intensity: multiply-accumulates for each bit read from the weight memory."""
        return self.macs / self.traffic.weight_bits if self.traffic.weight_bits else 0.0

    @property
    def bound(self) -> str:
        """What is busy longest: ``array``, ``weight port`` or ``requantizers``."""
        busy = {
            "array": self.array_cycles,
            "weight port": self.weight_port_cycles,
            "requantizers": self.requantizer_cycles,
        }
        return max(busy, key=busy.__getitem__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimate:
    """One network on one machine at one assignment.

    Parameters
    ----------
    machine : Machine
    assignment : Assignment
    layers : tuple of LayerEstimate
    image_load_cycles : int
        From an image's first byte until the array may begin, if the bytes come one a cycle.
    image_interval_cycles : int
        From one image to the next, as far as receiving it and laying it out go.
    """

    machine: Machine
    assignment: Assignment
    layers: tuple[LayerEstimate, ...]
    image_load_cycles: int
    image_interval_cycles: int

    @property
    def cycles(self) -> int:
        """Cycles of one image from the barrier to its last logit."""
        return sum(layer.cycles for layer in self.layers)

    @property
    def interval_cycles(self) -> int:
        """Cycles from one image to the next where images wait: the next one is laid out while this one runs."""
        return max(self.cycles + COMMAND_CYCLES, self.image_interval_cycles)

    @property
    def latency_cycles(self) -> int:
        """Cycles from the first byte of an image to its last logit on an idle machine."""
        return self.image_load_cycles + self.cycles

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return sum(layer.macs for layer in self.layers)

    @property
    def ideal_cycles(self) -> float:
        """Cycles at the array's peak for each layer's own widths."""
        return sum(layer.ideal_cycles for layer in self.layers)

    @property
    def utilization(self) -> float:
        """Share of the array's peak, 0 .. 1."""
        return self.ideal_cycles / self.cycles

    @property
    def macs_per_cycle(self) -> float:
        """Multiply-accumulates a cycle, as attained."""
        return self.macs / self.cycles

    @property
    def traffic(self) -> Traffic:
        """Bits moved for one image."""
        return sum((layer.traffic for layer in self.layers), Traffic())

    def images_per_s(self, clock_hz: float) -> float:
        """Return the images a second at a clock, one machine, images waiting."""
        return clock_hz / self.interval_cycles

    def latency_s(self, clock_hz: float) -> float:
        """Return the seconds from an image's first byte to its last logit."""
        return self.latency_cycles / clock_hz

    def macs_per_s(self, clock_hz: float) -> float:
        """Return the multiply-accumulates a second."""
        return self.macs * self.images_per_s(clock_hz)


COMMAND_CYCLES = 1
"""Cycles of an image that are no layer's: that in which the command is taken."""


def estimate(network: Network, machine: Machine, assignment: Assignment) -> Estimate:
    """Return what one image takes at an assignment.

    Raises
    ------
    ValueError
        If a width or a size does not fit the machine.
    """
    part = describe(network, machine, assignment)
    timing = image_timing(machine, part)
    image = image_fields(network, machine)
    return Estimate(
        machine=machine,
        assignment=assignment,
        layers=tuple(
            _layer_estimate(network, machine, part, index, layer) for index, layer in enumerate(timing.layers)
        ),
        image_load_cycles=image_load_cycles(machine, image),
        image_interval_cycles=image_interval_cycles(image),
    )


def _layer_estimate(
    network: Network, machine: Machine, part: AssignmentProgram, index: int, timing: LayerTiming
) -> LayerEstimate:
    layer, assignment = network.layers[index], part.assignment
    fields, tiles = part.layers[index], part.tiles[index]
    traffic = layer_traffic(machine, fields, tiles, timing.array_cycles)
    return LayerEstimate(
        name=layer.name,
        widths=str(assignment.layers[layer.name]),
        macs=network.macs(layer) if isinstance(layer, WeightLayer) else 0,
        cycles=timing.cycles,
        ideal_cycles=ideal_cycles(network, machine, assignment, layer.name),
        array_cycles=timing.array_cycles,
        weight_port_cycles=tiles["tiles"] * tiles["tile_rows"] * tiles["planes_read"],
        requantizer_cycles=0 if fields["is_max_pool"] else fields["channel_groups"] * fields["output_pixels"],
        traffic=traffic,
    )


def layer_traffic(machine: Machine, fields: Mapping[str, int], tiles: Mapping[str, int], array_cycles: int) -> Traffic:
    """Return the bits that a layer moves, from its two descriptors and the cycles that it streams."""
    pixels = fields["output_pixels"]
    written = pixels * fields["output_units"] * machine.unit_bits
    if fields["is_max_pool"]:
        return Traffic(activation_bits_read=array_cycles * machine.unit_bits, activation_bits_written=written)
    window_units = fields["kernel_height"] * fields["kernel_width"] * fields["units"]
    strips = -(-pixels // machine.strip_pixels)
    tile_bits = tiles["tile_rows"] * machine.weight_port_bits
    words_read = machine.weight_rows_stored(tiles["tile_rows"]) * tiles["planes_read"]
    planes = spec.planes_applied(tiles["target_bits"])
    skip_bits = pixels * fields["channel_groups"] * machine.requantizers * spec.SKIP_BITS
    entry_bits = machine.table_layout.bits + (machine.requantizer.skip_multiplier_bits if fields["adds"] else 0)
    units_fed = min(window_units, machine.banks) if fields["keeps_weights"] else window_units
    unit_rows = machine.unit_rows * machine.activations_per_lane(machine.group_bits << fields["slot_index"])
    planes_fed = fields["passes"]
    if machine.datapath == "dsp":
        slot_bits = machine.group_bits << fields["slot_index"]
        planes_fed = fields["first_digit_planes"] + slot_bits * (fields["passes"] - 1)
    return Traffic(
        weight_bits=fields["tiles"] * words_read * machine.weight_word_bits,
        staged_bits=fields["tiles"] * tile_bits * planes,
        array_weight_bits=fields["tiles"] * planes_fed * strips * units_fed * unit_rows * machine.weight_port_bits,
        activation_bits_read=fields["tiles"] * fields["passes"] * pixels * window_units * machine.unit_bits,
        activation_bits_written=written if fields["makes_code"] else 0,
        skip_bits_read=skip_bits if fields["adds"] else 0,
        skip_bits_written=skip_bits if fields["makes_skip"] else 0,
        table_bits=strips * fields["channel_groups"] * machine.requantizers * entry_bits,
    )
