"""The designs that the array is compared with compute what they claim to: sums of products at their widths."""

import random

import pytest

from benchmarks.array_designs import ACCUMULATOR_BITS, WEIGHT_PORT_BITS, FixedArray, FusionArray
from rtl.tests import simulate

LATENCY_MAX = 24


def run(array, activations, weights, mode):
    """Return the accumulators after one word of activations met one matrix of weights (packed for the registers)."""
    result = []

    async def process(context):
        context.set(array.weight_write, 1)
        for row in range(array.rows):
            context.set(array.weight_row, row)
            context.set(array.weight_data, weights >> (row * WEIGHT_PORT_BITS) & ((1 << WEIGHT_PORT_BITS) - 1))
            await context.tick()
        context.set(array.weight_write, 0)
        context.set(array.swap, 1)
        context.set(array.mode, mode)
        context.set(array.activations, activations)
        context.set(array.accumulator_clears, 1)
        await context.tick().repeat(LATENCY_MAX)
        context.set(array.accumulator_valid, 1)
        context.set(array.accumulator_address, 5)
        await context.tick().repeat(8)
        context.set(array.accumulator_drain_address, 5)
        context.set(array.accumulator_drain_read, 1)
        await context.tick().repeat(3)
        data = context.get(array.accumulator_drain_data)
        for column in range(array.columns):
            value = data >> (column * ACCUMULATOR_BITS) & ((1 << ACCUMULATOR_BITS) - 1)
            result.append(value - (value >> (ACCUMULATOR_BITS - 1) << ACCUMULATOR_BITS))

    simulate.run(array, process)
    return result


@pytest.mark.parametrize("bits", [8, 6, 4, 2])
def test_fixed_width_array(bits):
    rng = random.Random(bits)
    lanes, columns = 8, 4
    activations = [rng.randrange(1 << bits) for _ in range(lanes)]
    weights = [[rng.randrange(-(1 << bits - 1), 1 << bits - 1) for _ in range(lanes)] for _ in range(columns)]
    word = sum(value << (lane * bits) for lane, value in enumerate(activations))
    flat = [value for row in weights for value in row]
    packed = sum((value & ((1 << bits) - 1)) << (at * bits) for at, value in enumerate(flat))
    found = run(FixedArray(lanes, columns, bits, bits), word, packed, 0)
    assert found == [sum(a * w for a, w in zip(activations, row, strict=True)) for row in weights]


@pytest.mark.parametrize(("mode", "bits"), [(2, 8), (1, 4), (0, 2)])
def test_fusion_units_at_every_width(mode, bits):
    """Products of a lane: 1 of 8 x 8, 4 of 4 x 4 (one a block of four bricks), or 16 of 2 x 2 (one a brick)."""
    rng = random.Random(bits)
    lanes, columns, products = 2, 4, (8 // bits) ** 2
    low, high = -(1 << bits - 1), 1 << bits - 1
    activations = [[rng.randrange(1 << bits) for _ in range(products)] for _ in range(lanes)]
    weights = [[[rng.randrange(low, high) for _ in range(products)] for _ in range(lanes)] for _ in range(columns)]

    def bricks(lane_activations, lane_weights):
        """Return the two-bit parts of activations and weights in the place of every brick."""
        a_word = w_word = 0
        for block_i in range(2):
            for block_j in range(2):
                for i in range(2):
                    for j in range(2):
                        at = (block_i * 2 + block_j) * 4 + i * 2 + j
                        product = {8: 0, 4: at // 4, 2: at}[bits]
                        part_i = {8: block_i * 2 + i, 4: i, 2: 0}[bits]
                        part_j = {8: block_j * 2 + j, 4: j, 2: 0}[bits]
                        a_word |= (lane_activations[product] >> (2 * part_i) & 3) << (2 * at)
                        w_word |= (lane_weights[product] >> (2 * part_j) & 3) << (2 * at)
        return a_word, w_word

    word = sum(bricks(activations[lane], weights[0][lane])[0] << (32 * lane) for lane in range(lanes))
    packed = sum(
        bricks(activations[lane], weights[column][lane])[1] << (32 * (column * lanes + lane))
        for column in range(columns)
        for lane in range(lanes)
    )
    found = run(FusionArray(lanes, columns), word, packed, mode)
    assert found == [
        sum(a * w for lane in range(lanes) for a, w in zip(activations[lane], weights[column][lane], strict=True))
        for column in range(columns)
    ]
