# amaranth: UnusedElaboratable=no
"""The weight loader: from words as ``hwsim.weight_layout`` describes them to the planes of the switched codes."""

import random

import pytest
from amaranth.hdl import Module

from hwsim import spec
from hwsim.machine import Machine
from hwsim.precision import WidthSet
from rtl.leaves.memory import GatheredMemory, TwoCycleMemory
from rtl.tests import simulate
from rtl.tests.mutation import mutant
from rtl.weight_loader import WeightLoader

LAYERS = ((8, 8, 9), (8, 4, 19), (8, 1, 10), (2, 2, 18), (6, 5, 1), (8, 2, 8), (4, 3, 27))
"""Stored width, width, rows of a tile; every layer has two tiles."""

TILES = 2


def machine_of(port_bits):
    widths = WidthSet((8,))
    options = {"lanes": 8, "columns": 4, "banks": 2, "requantizers": 2, "staging_words": 128, "layer_slots": 8}
    return Machine(weight_widths=widths, activation_widths=widths, weight_port_bits=port_bits, **options)


def stored_and_staged(machine, seed):
    """Return the weight memory, the loader's entries, the words it reads, and what is staged for every tile."""
    rng = random.Random(seed)
    port, spare = machine.weight_port_bits, machine.weight_port_bits // 8 if machine.weight_port_bits % 8 == 0 else 0
    words, entries, tiles, words_read = [], [], [], 0
    for index, (stored, target, rows) in enumerate(LAYERS):
        passes, read = spec.planes_applied(target), spec.planes_read(stored, target)
        fields = {
            "is_last": index == len(LAYERS) - 1,
            "has_weights": 1,
            "rounds": stored > target > 1,
            "target_bits": target,
            "planes_read": read,
            "planes_stored": stored,
            "tiles": TILES,
            "tile_rows": rows,
            "weight_start": len(words),
            "staging_start": (passes - 1) * rows,
        }
        entries.append(machine.tiles_layout.pack({name: int(value) for name, value in fields.items()}))
        for _ in range(TILES):
            codes = [[rng.randrange(-1 << stored - 1, 1 << stored - 1) for _ in range(port)] for _ in range(rows)]
            planes = [
                [bits(code >> stored - 1 - plane & 1 for code in row) for plane in range(stored)] for row in codes
            ]
            for row in range(rows):
                if spare and row % 9 == 8:
                    for earlier in range(8):
                        for plane in range(stored):
                            eighth = planes[row][plane] >> earlier * spare & (1 << spare) - 1
                            words[len(words) - (8 - earlier) * stored + plane] |= eighth << port
                else:
                    words += planes[row]
                    words_read += read
            staged = {}
            for position in range(passes):
                for row in range(rows):
                    switched = [spec.switch(code, stored, target) for code in codes[row]]
                    staged[position * rows + row] = bits(spec.plane_bit(code, target, position) for code in switched)
            tiles.append(staged)
    return words, entries, words_read, tiles


def bits(values):
    return sum(int(value) << index for index, value in enumerate(values))


def wrong_words(component, port_bits):
    """Return how many staged words are wrong, and how many there are."""
    machine = machine_of(port_bits)
    words, entries, words_read, tiles = stored_and_staged(machine, port_bits)
    loader = component(machine)
    top = Module()
    top.submodules.loader = loader
    top.submodules.weights = weights = GatheredMemory(machine.weight_word_bits, machine.weight_words, init=words)
    top.submodules.entries = table = TwoCycleMemory(machine.tiles_layout.bits, machine.layer_slots, init=entries)
    top.d.comb += [
        weights.read_address.eq(loader.weight_address),
        weights.read_enable.eq(loader.weight_read),
        loader.weight_data.eq(weights.read_data),
        table.read_address.eq(loader.tiles_address),
        table.read_enable.eq(1),
        loader.tiles_data.eq(table.read_data),
    ]
    rng = random.Random(1)
    counts = {"wrong": 0, "compared": 0, "read": 0}

    async def process(context):
        staging = {}
        finished = wait = 0
        context.set(loader.start, 1)
        for _ in range(20_000):
            releases = context.get(loader.tile_ready) and wait == 0
            if releases:
                # Both halves are read back, from the one that the array would use.
                for address, word in tiles[finished].items():
                    counts["wrong"] += staging.get((finished % 2) * machine.staging_words + address) != word
                    counts["compared"] += 1
                finished, wait = finished + 1, rng.choice((1, 5, 400))
            wait = max(0, wait - 1)
            context.set(loader.tile_release, releases)
            if context.get(loader.staging_write):
                staging[context.get(loader.staging_address)] = context.get(loader.staging_data)
            counts["read"] += context.get(loader.weight_read)
            await context.tick()
            context.set(loader.start, 0)
            if finished == len(tiles):
                break

    simulate.run(top, process)
    assert counts["read"] == words_read or counts["wrong"]
    assert counts["compared"] == sum(map(len, tiles))
    return counts["wrong"], counts["compared"]


@pytest.mark.parametrize("port_bits", [4, 8, 16])
def test_stages_the_switched_planes(port_bits):
    wrong, compared = wrong_words(WeightLoader, port_bits)
    assert wrong == 0 and compared > 500


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("Mux(is_ninth, 0, entry.planes_stored)", "entry.planes_stored"),
        ("(arrives & (row == index))", "(arrives & (row == index) & (place != 1))"),
        ("return Cat(parts)", "return Cat(reversed(parts))"),
    ],
)
def test_a_wrong_ninth_row_is_noticed(right, wrong):
    assert wrong_words(mutant(WeightLoader, right, wrong), 16)[0] > 0
