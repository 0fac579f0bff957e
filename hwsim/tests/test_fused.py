import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from hwsim import compilation, fused, spec, tiles
from hwsim.tests.mutation import interpreted_fused


def random_tables(rng, channels, low, high):
    """Tables that use all of their widths and put the results around ``low .. high``."""
    shift = rng.integers(0, 40, channels)
    multiplier = rng.integers(-(2**17), 2**17, channels)
    skip_multiplier = rng.integers(-(2**31), 2**31, channels)
    addend = rng.integers(low - 40, high + 40, channels) << np.minimum(shift, 30)
    return multiplier, skip_multiplier, addend, shift


def requantize_errors(function):
    """(wrong elements, results strictly inside the clamp) of ``store_sums`` against integers written out here."""
    rng = np.random.default_rng(0)
    wrong, inside = 0, 0
    for form, low, high in (
        ("code", 0, 255),
        ("code", 0, 3),
        ("skip", -128, 127),
        ("logits", -(2**31), 2**31 - 1),
    ):
        for with_skip in (False, True)[: 1 if form == "logits" else 2]:
            channels, pixels = int(rng.integers(1, 40)), 9
            table = np.array(random_tables(rng, channels, low, high))
            reach = 2 ** rng.integers(1, 31, (pixels, channels))
            sums = rng.integers(-reach, reach).astype(np.int32)
            skips = rng.integers(-128, 256, sums.size if with_skip else 0).astype(np.int16)
            outs = {name: np.zeros(sums.size if name == form else 0, kind) for name, kind in
                    (("code", np.uint8), ("skip", np.int16), ("logits", np.int32))}  # fmt: skip
            shape, target = np.array([1, 1, pixels, channels]), np.array([0, 0, channels, 0])
            limits = np.array([low, high, 0, 0])
            function(sums, 0, shape, target, table, np.zeros(4, np.int64), limits, skips, *outs.values())
            found = outs[form].reshape(sums.shape)
            for index in np.ndindex(*sums.shape):
                m, k, b, s = (int(entry) for entry in table[:, index[1]])
                skip = int(skips.reshape(sums.shape)[index]) if with_skip else 0
                wanted = min(max((int(sums[index]) * m + skip * k + b) // 2**s, low), high)
                wrong += int(found[index]) != wanted
                inside += low < wanted < high
    return wrong, inside


def test_the_compiled_requantize_is_requantize():
    wrong, inside = requantize_errors(fused.store_sums)
    assert wrong == 0 and inside > 50


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("scale_accumulator", lambda a, k, m, n, b, s: (a * m - k * n + b) >> s),
        ("scale_accumulator", lambda a, k, m, n, b, s: (abs(a) * m + k * n + b) >> s),
        ("scale_accumulator", lambda a, k, m, n, b, s: (a * m + k * n + b + (1 << int(s) >> 1)) >> s),
        ("clamp", lambda value, low, high: min(max(value, low), high - 1)),
    ],
)
def test_kernels_have_the_arithmetic_of_spec_and_no_other(name, wrong, monkeypatch):
    monkeypatch.setattr(spec, name, wrong)
    assert requantize_errors(interpreted_fused().store_sums)[0]


def tile_operands(vectors, rows=3, runs=2):
    rng = np.random.default_rng(vectors)
    codes = rng.integers(0, 256, 4000).astype(np.uint8)
    weights = rng.integers(-128, 128, 64 + rows * runs * tiles.RUN_BYTES * tiles.LANES * vectors).astype(np.int8)
    codes[:500], weights[:2000] = 255, -128
    origins = rng.integers(0, 4000 - rows * 300 - runs * tiles.RUN_BYTES, tiles.TILE_PIXELS)
    origins[0] = 0
    return codes, origins, 300, rows, runs, weights, 64, vectors


@pytest.mark.parametrize("vectors", [1, 2])
def test_a_tile_is_the_dot_products(vectors):
    codes, origins, pitch, rows, runs, weights, first, _ = operands = tile_operands(vectors)
    channels = tiles.LANES * vectors
    blocks = weights[first:].reshape(rows, runs * tiles.RUN_BYTES // 4, channels, 4).astype(int)
    wanted = [
        sum(
            np.einsum("gcb,gb->c", blocks[row], codes[at : at + runs * tiles.RUN_BYTES].reshape(-1, 4).astype(int))
            for row, at in enumerate(range(origin, origin + rows * pitch, pitch))
        )
        for origin in origins.tolist()
    ]
    for multiply in (tiles.multiply_tile, tiles.portable_tile):
        sums = np.full(tiles.TILE_PIXELS * tiles.BLOCK_CHANNELS, -1, np.int32)
        multiply(*operands, sums)
        assert (sums[: tiles.TILE_PIXELS * channels].reshape(-1, channels) == wanted).all()


def walk_errors(module):
    """Wrong places of a walk over three images of 3 x 5 pixels, in tiles of ``TILE_PIXELS``, from any pixel on."""
    layout, height, width, pixels = np.array([1000, 100, 7, 20003]), 3, 5, 45
    wrong = 0
    for first in range(pixels):
        at = module._start(first, layout, height, width)
        for tile in range(first, pixels, tiles.TILE_PIXELS):
            count = min(tiles.TILE_PIXELS, pixels - tile)
            places = np.zeros(tiles.TILE_PIXELS, np.int64)
            module._walk(at, layout, height, width, count, places)
            for index, place in enumerate(places.tolist()):
                image, inside = divmod(tile + min(index, count - 1), height * width)
                wrong += place != 20003 + 1000 * image + 100 * (inside // width) + 7 * (inside % width)
    return wrong


def test_a_walk_visits_every_pixel_in_order():
    assert walk_errors(fused) == 0
    assert walk_errors(interpreted_fused()) == 0


@pytest.mark.parametrize(
    "change",
    [
        ("next_image = layout[0] -", "next_image = layout[0] + 1 -"),
        ("next_row = layout[1] -", "next_row = layout[1] + 1 -"),
        ("at[0], at[1], at[2] = place, row, column", "at[0], at[1], at[2] = place, row, 0"),
        ("out[np.uintp(index)] = last\n", "out[np.uintp(index)] = place\n"),
    ],
)
def test_a_wrong_walk_is_caught(change):
    assert walk_errors(interpreted_fused(change))


@numba.njit
def moved(values, at, out, place):
    tiles.move_vector(values, np.uintp(at), out, np.uintp(place))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (np.int32, np.uint8), (np.int32, np.int16), (np.int32, np.int32), (np.int16, np.int16), (np.float32, np.int32),
        (np.float64, np.int32), (np.int16, np.int32), (np.uint8, np.uint8), (np.uint8, np.float32),
        (np.uint8, np.float64), (np.uint8, np.int16), (np.int16, np.float32),
    ],
)  # fmt: skip
def test_a_vector_is_moved_and_nothing_beside_it(source, target):
    limits = [np.iinfo(kind) for kind in (source, target) if np.issubdtype(kind, np.integer)]
    low, high = max(-(2**15), *(one.min for one in limits)), min(2**15 - 1, *(one.max for one in limits))
    values = np.random.default_rng(0).integers(low, high, 40, endpoint=True).astype(source)
    values[5:7] = low, high
    for move in (moved, tiles.portable_move):
        out = np.full(40, 77, target)
        move(values, 5, out, 9)
        assert (out[9 : 9 + tiles.LANES] == values[5 : 5 + tiles.LANES]).all()
        assert (out[:9] == 77).all() and (out[9 + tiles.LANES :] == 77).all()


PROGRAM = """
import sys
import numpy as np
from hwsim import fused, tiles
codes = np.zeros(8, np.uint8)
fused.store_sums(np.array([[100]], np.int32), 0, np.array([1, 1, 1, 1]), np.array([0, 0, 1, 0]),
                 np.array([[3], [0], [8], [4]]), np.zeros(4, np.int64), np.array([0, 255, 0, 0]),
                 np.empty(0, np.int16), codes, np.empty(0, np.int16), np.empty(0, np.int32))
print(codes[0], sum(fused.store_sums.stats.cache_hits.values()), tiles.has_byte_products())
"""


def run_program(folder, **environment):
    environment = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "cache"), **environment}
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True, text=True).stdout


def test_the_cache_is_used_again_and_never_outlives_spec(tmp_path):
    package = Path(compilation.__file__).parent
    shutil.copytree(package, tmp_path / "hwsim", ignore=shutil.ignore_patterns("__pycache__", "tests"))
    assert run_program(tmp_path).startswith("19 0 ")
    assert run_program(tmp_path).startswith("19 1 ")
    changed = tmp_path / "hwsim" / "spec.py"
    old = "return (accumulator * multiplier + skip * skip_multiplier + addend) >> shift"
    assert changed.read_text().count(old) == 1
    changed.write_text(changed.read_text().replace(old, old + " << 1"))
    assert run_program(tmp_path).startswith("38 0 ")


def test_without_byte_products_the_portable_tile_serves():
    environment = {**os.environ, "NUMBA_CPU_NAME": "generic"}
    program = "from hwsim import tiles; print(tiles.multiply_tile.py_func is tiles.portable_tile)"
    command = [sys.executable, "-c", program]
    folder = Path(compilation.__file__).parent.parent
    found = subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "True"
