"""The weight switch in Verilator against ``spec.switch``: every code of every stored width to every narrower width."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hwsim import spec
from hwsim.network import PINNED_BITS
from hwsim.precision import CATALOG
from rtl.tests.mutation import mutant
from rtl.weight_switch import WeightSwitch
from sim_tests import design, packing, playback
from sim_tests.scoreboard import Scoreboard

pytestmark = pytest.mark.verilator

WEIGHTS = 64
PAIRS = [(stored, target) for stored in range(1, spec.MAX_BITS + 1) for target in range(1, stored + 1)]

Group = tuple[int, int, list[int]]


def all_groups(seed: int) -> list[Group]:
    """Return (stored width, target width, WEIGHTS codes): every code of every pair, shuffled over lanes and time."""
    rng = random.Random(seed)
    groups = []
    for stored, target in PAIRS:
        codes = list(range(spec.signed_low(stored), spec.signed_high(stored) + 1))
        rng.shuffle(codes)
        codes += codes[: -len(codes) % WEIGHTS] if len(codes) >= WEIGHTS else rng.choices(codes, k=WEIGHTS - len(codes))
        groups += [(stored, target, codes[at : at + WEIGHTS]) for at in range(0, len(codes), WEIGHTS)]
    rng.shuffle(groups)
    return groups


def arrivals(groups: list[Group], gap: float, seed: int) -> dict[str, np.ndarray]:
    """Return the input columns: groups as close as the switch allows, each plane after random gaps."""
    rng = random.Random(seed)
    rows: list[tuple[np.ndarray, int, int, int, int, int]] = []
    nothing = np.zeros(WEIGHTS, dtype=np.uint8)

    def idle() -> None:
        rows.append((nothing, 0, rng.getrandbits(1), rng.getrandbits(1), rng.randrange(9), rng.getrandbits(1)))

    free_from = 0
    for stored, target, codes in groups:
        planes = spec.planes_read(stored, target)
        for index in range(planes):
            while rng.random() < gap or (index == planes - 1 and len(rows) < free_from):
                idle()
            last = index == planes - 1
            bits = (np.array(codes) >> (stored - 1 - index)) & 1
            # Widths count with the last plane only: anything may stand there before.
            told = (target, int(stored > target > 1)) if last else (rng.randrange(9), rng.getrandbits(1))
            rows.append((bits, 1, int(index == 0), int(last), *told))
        free_from = len(rows) - 1 + spec.planes_applied(target)
    idle()
    rows[-1] = (nothing, 0, 0, 0, 0, 0)
    names = ("valid", "first", "last", "target_bits", "rounds")
    columns = {name: np.array([row[at + 1] for row in rows]) for at, name in enumerate(names)}
    return {"plane": packing.pack_bits(np.array([row[0] for row in rows])), **columns}


MUTATIONS = [
    ("~self.plane, self.plane &", "0, self.plane &"),  # wraps instead of saturating
    ("Mux(read_rounds, ripple, 0)", "0"),  # rounds down
    ("ones | kept_ones", "ones"),  # the bipolar sign is not inverted
]


def run(groups: list[Group], gap: float) -> list[Scoreboard]:
    """Return the scoreboards of the switch and of each of its mutants."""
    kinds = [WeightSwitch, *(mutant(WeightSwitch, right, wrong) for right, wrong in MUTATIONS)]
    designs = [design.from_component(kind(WEIGHTS), f"weight_switch_{at}") for at, kind in enumerate(kinds)]
    columns = arrivals(groups, gap, seed=5)
    everything = playback.play_side_by_side(designs, columns, ("o_plane", "o_position", "o_valid"))
    return [compare(seen, columns, groups) for seen in everything]


def compare(seen: dict[str, np.ndarray], columns: dict[str, np.ndarray], groups: list[Group]) -> Scoreboard:
    cycles = len(seen["o_valid"])
    valid, position = np.zeros(cycles, dtype=int), np.zeros(cycles, dtype=int)
    plane = np.zeros((cycles, WEIGHTS), dtype=int)
    lasts = np.flatnonzero(columns["valid"] & columns["last"])
    for at, (stored, target, codes) in zip(lasts, groups, strict=True):
        weights = [spec.switch(code, stored, target) for code in codes]
        for step, pass_position in enumerate(reversed(range(spec.planes_applied(target)))):
            cycle = at + WeightSwitch.LATENCY + step
            valid[cycle], position[cycle] = 1, pass_position
            plane[cycle] = [spec.plane_bit(weight, target, pass_position) for weight in weights]
    board = Scoreboard("weight switch")
    told = valid == 1
    board.compare(seen["o_valid"], valid, "o_valid", ("cycle",))
    board.compare(seen["o_position"][told], position[told], "o_position", ("plane",))
    board.compare(packing.unpack(seen["o_plane"], 1, WEIGHTS)[told], plane[told], "o_plane", ("plane", "weight"))
    return board


def test_every_catalog_pair_is_tried():
    groups = all_groups(seed=2)
    tried = {(stored, target) for stored, target, _ in groups}
    for widths in CATALOG.values():
        assert {(widths.highest, target) for target in widths} <= tried
    assert (PINNED_BITS, PINNED_BITS) in tried
    codes_tried = {(stored, target, code) for stored, target, codes in groups for code in codes}
    assert len(codes_tried) == sum(2**stored for stored, _ in PAIRS)


@pytest.mark.parametrize("gap", [0.0, 0.4])
def test_every_code_of_every_pair_of_widths_and_a_wrong_switch_is_caught(gap):
    groups = all_groups(seed=2)
    planes = sum(spec.planes_applied(target) for _, target, _ in groups)
    right, *wrong = run(groups, gap)
    assert right.finish() > planes * (WEIGHTS + 1)
    assert len(wrong) == len(MUTATIONS)
    for board in wrong:
        with pytest.raises(AssertionError, match="values differ: o_plane at plane"):
            board.finish()
