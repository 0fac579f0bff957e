"""The requantizer in Verilator against ``spec.requantize``: corners and seeded random over its whole range."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hwsim import spec
from hwsim.machine import Machine
from hwsim.precision import CATALOG
from rtl.drain import SKIP_OPERAND_BITS
from rtl.requantizer import Requantizer
from rtl.tests.mutation import mutant
from sim_tests import design, playback
from sim_tests.scoreboard import Scoreboard

pytestmark = pytest.mark.verilator

MACHINE = Machine(weight_widths=CATALOG["8-6-4-2"], activation_widths=CATALOG["8-6-4-2"])
WITH_SKIP = {
    "operand_bits": MACHINE.accumulator_bits,
    "skip_bits": SKIP_OPERAND_BITS,
    "multiplier_bits": MACHINE.requantizer.multiplier_bits,
    "skip_multiplier_bits": MACHINE.requantizer.skip_multiplier_bits,
    "addend_bits": MACHINE.requantizer.addend_bits,
    "shift_max": MACHINE.requantizer.shift_max,
    "output_bits": spec.LOGIT_BITS,
}
CODE_FROM_SKIP = {**WITH_SKIP, "operand_bits": SKIP_OPERAND_BITS, "skip_bits": 0, "skip_multiplier_bits": 0}
ROWS = 60_000
OPERANDS = ("operand", "multiplier", "skip", "skip_multiplier", "addend")


def rows_of(widths: dict[str, int], count: int, seed: int) -> dict[str, np.ndarray]:
    """Return every combination of extreme operands at every shift, then random rows of every magnitude and clamp."""
    rng = np.random.default_rng(seed)
    names = [name for name in OPERANDS if widths.get(name + "_bits")]
    extremes = [(spec.signed_low(widths[f"{name}_bits"]), spec.signed_high(widths[f"{name}_bits"])) for name in names]
    shifts = 1 << widths["shift_max"].bit_length()
    corners = np.array(list(itertools.product(*extremes, range(shifts))), dtype=np.int64)
    columns = {}
    for at, name in enumerate(names):
        bits = widths[f"{name}_bits"]
        drawn = rng.integers(spec.signed_low(bits), spec.signed_high(bits), count, endpoint=True)
        drawn >>= rng.integers(0, bits, count)
        special = rng.choice([spec.signed_low(bits), spec.signed_high(bits), -1, 0, 1], count)
        columns[name] = np.concatenate([corners[:, at], np.where(rng.random(count) < 0.2, special, drawn)])
    columns["shift"] = np.concatenate([corners[:, -1], rng.integers(0, shifts, count)])
    output = (spec.signed_low(widths["output_bits"]), spec.signed_high(widths["output_bits"]))
    clamps = np.array([output, (0, 255), (0, 63), (0, 15), (0, 3), (-128, 127)])
    chosen = clamps[rng.integers(0, len(clamps), count)]
    # A shift that brings the sum near the clamps half of the time, or nearly every result would be 0, -1 or a clamp.
    total = sum(_sum_terms(columns)).__abs__()
    near = np.array([max(0, int(value).bit_length() - 8) for value in total])[-count:]
    aimed = rng.random(count) < 0.5
    columns["shift"][-count:] = np.where(aimed, np.minimum(near, shifts - 1), columns["shift"][-count:])
    columns["low"] = np.concatenate([np.full(len(corners), output[0]), chosen[:, 0]])
    columns["high"] = np.concatenate([np.full(len(corners), output[1]), chosen[:, 1]])
    return columns


def _sum_terms(columns):
    zero = np.zeros_like(columns["operand"])
    yield columns["operand"] * columns["multiplier"]
    yield columns.get("skip", zero) * columns.get("skip_multiplier", zero)
    yield columns["addend"]


MUTATIONS = [
    ('delay(self.shift, "shift", 4)', 'delay(self.shift, "shift", 5)'),  # the shift of another row
    ("coarse_shifted >> fine_shift", "coarse_shifted.as_unsigned() >> fine_shift"),  # a logical shift
    ("Mux(above, register(high", "Mux(below, register(high"),
]


def run(widths: dict[str, int], columns: dict[str, np.ndarray]) -> list[Scoreboard]:
    """Return the scoreboards of the requantizer and of each of its mutants."""
    kinds = [Requantizer, *(mutant(Requantizer, right, wrong) for right, wrong in MUTATIONS)]
    designs = [design.from_component(kind(**widths), f"requantizer_{at}") for at, kind in enumerate(kinds)]
    expected = expectation(columns)
    boards = []
    for seen in playback.play_side_by_side(designs, columns, ("result",)):
        board = Scoreboard("requantizer")
        results = seen["result"][Requantizer.LATENCY : Requantizer.LATENCY + len(expected)]
        board.compare(results, expected, "result", ("row",))
        boards.append(board)
    return boards


def expectation(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Return the contract's results, having seen that every kind of result is among them."""
    zero = np.zeros_like(columns["operand"])
    named = [columns.get(name, zero) for name in ("operand", "skip", "multiplier", "skip_multiplier")]
    named += [columns[name] for name in ("addend", "shift", "low", "high")]
    expected = np.array([spec.requantize(*row) for row in zip(*(column.tolist() for column in named), strict=True)])
    inside = (expected > columns["low"]) & (expected < columns["high"])
    for what, share in (
        ("low", expected == columns["low"]),
        ("high", expected == columns["high"]),
        ("inside", inside),
        ("inside with a negative multiplier", inside & (columns["multiplier"] < 0)),
        ("inside with a negative skip", inside & (columns.get("skip", zero - 1) < 0)),
    ):
        assert share.sum() > len(expected) // 50, f"only {share.sum()} of {len(expected)} results are {what}"
    return expected


@pytest.mark.parametrize("widths", [WITH_SKIP, CODE_FROM_SKIP], ids=["with skip", "code from skip"])
def test_equals_the_contract_and_a_wrong_requantizer_is_caught(widths):
    right, *wrong = run(widths, rows_of(widths, ROWS, seed=3))
    assert right.finish() >= ROWS
    assert len(wrong) == len(MUTATIONS)
    for board in wrong:
        with pytest.raises(AssertionError, match="values differ: result at row"):
            board.finish()
