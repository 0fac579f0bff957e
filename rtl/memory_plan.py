"""The memories of the accelerator, and the block RAMs that they take."""

from __future__ import annotations

from collections.abc import Iterable

from hwsim import spec
from hwsim.machine import Machine
from rtl.leaves.block_ram_ecp5 import block_count


def memory_shapes(machine: Machine) -> dict[str, list[tuple[int, int, int]]]:
    """Return (bits, words, bits written together) of every memory of the accelerator."""
    granule = machine.unit_bits // (machine.groups * machine.lane_runs)
    port, requantizers = machine.weight_port_bits, machine.requantizers
    accumulators = (machine.columns * machine.accumulator_bits, 2 * machine.strip_pixels)
    skip, result = requantizers * spec.SKIP_BITS, requantizers * spec.LOGIT_BITS
    layer_words = machine.layer_slots * machine.layer_layout.load_words
    return {
        "weights": [(machine.weight_word_bits, machine.weight_words, machine.weight_word_bits)],
        "staging": [(port, 2 * machine.staging_words, port)],
        "tables": [
            (machine.table_layout.bits, machine.table_words, machine.table_layout.bits),
            (
                machine.requantizer.skip_multiplier_bits,
                machine.skip_table_words,
                machine.requantizer.skip_multiplier_bits,
            ),
        ],
        "activations": [(machine.unit_bits, machine.activation_words, granule)] * machine.banks,
        "skip": [(skip, machine.skip_words, skip)],
        "image": [
            (machine.activation_bits, machine.image_words, 8),
            (8 * machine.image_channels, 2 * machine.raw_image_words, 8),
        ],
        "accumulators": [(*accumulators, accumulators[0])] * 2,
        "descriptors": [
            (32, layer_words, 32),
            (machine.tiles_layout.bits, machine.layer_slots, machine.tiles_layout.bits),
        ],
        "results": [(result, 2 * machine.result_words, result)],
    }


def block_rams(shapes: Iterable[tuple[int, int, int]]) -> int:
    """Return the ECP5 block RAMs of some memories."""
    return sum(block_count(width, depth, granularity) for width, depth, granularity in shapes)


def machine_block_rams(machine: Machine) -> int:
    """Return the ECP5 block RAMs of a machine."""
    return sum(block_rams(shapes) for shapes in memory_shapes(machine).values())
