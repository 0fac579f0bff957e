"""Array and accumulator in Verilator: dot products at every weight x activation width, against plain integers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwsim import spec
from hwsim.machine import LANE_BITS, Machine
from hwsim.precision import CATALOG, WidthSet
from rtl.accumulator import Accumulator
from rtl.array import Array
from rtl.tests.mutation import mutant
from sim_tests import design, packing, playback
from sim_tests.scoreboard import Scoreboard

pytestmark = pytest.mark.verilator

PIXELS = 8
WORDS = 3
KINDS = ("random", "lowest weights, highest activations", "highest weights, highest activations", "sparse")
EVERY_WIDTH = WidthSet(tuple(range(1, spec.MAX_BITS + 1)))
STANDARD = CATALOG["8-6-4-2"]


class ArrayAndAccumulator(wiring.Component):
    """The array feeding the accumulator memory, as in the accelerator; controls arrive with the activations."""

    CONTROLS = ("valid", "address", "clears", "doubles", "subtracts")
    ARRAY_INPUTS = ("activations", "enable", "slot", "swap", "weight_write", "weight_row", "weight_data")

    def __init__(self, machine: Machine, array_kind: type = Array, accumulator_kind: type = Accumulator) -> None:
        self.array = array_kind(
            machine.lanes, machine.columns, machine.group_bits, machine.slots, machine.weight_port_bits
        )
        self.accumulator = accumulator_kind(machine.columns, self.array.sum_bits, machine.accumulator_bits, PIXELS)
        self.array_inputs = (*self.ARRAY_INPUTS, "weight_groups")
        inputs = {name: In(Value.cast(getattr(self.array, name)).shape()) for name in self.array_inputs}
        inputs |= {name: In(getattr(self.accumulator, name).shape()) for name in (*self.CONTROLS, "drain_address")}
        super().__init__({**inputs, "drain_data": Out(machine.columns * machine.accumulator_bits)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.array = array = self.array
        m.submodules.accumulator = accumulator = self.accumulator
        m.d.comb += [getattr(array, name).eq(getattr(self, name)) for name in self.array_inputs]
        for name in self.CONTROLS:
            control = getattr(self, name)
            for cycle in range(array.LATENCY - accumulator.SUMS_DELAY):
                held = Signal.like(control, name=f"{name}_{cycle}")
                m.d.sync += held.eq(control)
                control = held
            m.d.comb += getattr(accumulator, name).eq(control)
        m.d.comb += [
            accumulator.sums.eq(array.sums),
            accumulator.drain_address.eq(self.drain_address),
            accumulator.drain_read.eq(1),
            self.drain_data.eq(Value.cast(accumulator.drain_data)),
        ]
        return m


LATENCY = Array.LATENCY + Accumulator.LATENCY


@dataclass
class Case:
    """One strip: ``PIXELS`` dot products of ``WORDS`` words for every column."""

    weight_bits: int
    activation_bits: int
    kind: str
    weights: np.ndarray  # (columns, words, slots of a lane, lanes)
    activations: np.ndarray  # (pixels, words, slots of a lane, lanes)

    @property
    def expected(self) -> np.ndarray:
        """Dot products, shape (pixels, columns)."""
        return np.einsum("cwjl,pwjl->pc", self.weights, self.activations)


def cases_of(machine: Machine, seed: int) -> list[Case]:
    """Return every kind of data at every pair of widths, in random order."""
    rng = np.random.default_rng(seed)
    cases = []
    for weight_bits, bits, kind in itertools.product(machine.weight_widths, machine.activation_widths, KINDS):
        slots = machine.activations_per_lane(bits)
        low, high = (-1, 1) if weight_bits == 1 else (spec.signed_low(weight_bits), spec.signed_high(weight_bits))
        weights = rng.integers(low, high, (machine.columns, WORDS, slots, machine.lanes), endpoint=True)
        activations = rng.integers(0, 1 << bits, (PIXELS, WORDS, slots, machine.lanes))
        if kind.startswith("lowest"):
            weights[:], activations[:] = low, spec.unsigned_high(bits)
        elif kind.startswith("highest"):
            weights[:], activations[:] = high, spec.unsigned_high(bits)
        elif kind == "sparse":
            weights[rng.random(weights.shape) < 0.9] = 0
        if weight_bits == 1:
            weights[weights == 0] = 1
        cases.append(Case(weight_bits, bits, kind, weights, activations))
    return [cases[at] for at in rng.permutation(len(cases))]


def activation_bits_of(machine: Machine, case: Case, word: int) -> np.ndarray:
    """Return the bits of one activation word for every pixel, group-major: (pixels, 8 * lanes)."""
    slot = LANE_BITS // machine.activations_per_lane(case.activation_bits)
    lanes = packing.to_bits(case.activations[:, word], slot)  # (pixels, slots, lanes, slot bits)
    lanes = lanes.transpose(0, 2, 1, 3).reshape(PIXELS, machine.lanes, machine.groups, machine.group_bits)
    return lanes.transpose(0, 2, 1, 3).reshape(PIXELS, -1)


def stimulus(machine: Machine, array: Array, cases: list[Case], seed: int) -> tuple[dict[str, np.ndarray], list[int]]:
    """Return the input columns, and the row at which the drain address of each case's first pixel stands.

    While the pixels of one pass meet their weights, the weights of the next one are written. Lanes of groups that are
    not enabled hold rubbish.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    drains = []

    def writes_of(case: Case, position: int, word: int) -> list[dict[str, object]]:
        slots = machine.activations_per_lane(case.activation_bits)
        groups = machine.groups // slots
        plane = np.vectorize(lambda weight: spec.plane_bit(int(weight), case.weight_bits, position))(
            case.weights[:, word]
        )  # (columns, slots, lanes)
        told = []
        for index in range(slots):
            matrix = plane[:, index].T.reshape(-1, machine.weight_port_bits)
            for row in range(len(matrix)):
                told.append(
                    {
                        "weight_write": 1,
                        "weight_row": row,
                        "weight_data": matrix[row],
                        "weight_groups": ((1 << groups) - 1) << (index * groups),
                    }
                )
        return [told[at] for at in rng.permutation(len(told))]

    passes = [
        (case, position, word)
        for case in cases
        for position in range(spec.planes_applied(case.weight_bits))
        for word in range(WORDS)
    ]
    rows += writes_of(*passes[0])
    for at, (case, position, word) in enumerate(passes):
        if position == word == 0 and at:
            # The drain may read a word LATENCY cycles after it was last accumulated, and before it is cleared.
            rows += [{"drain_address": 0}] * LATENCY
            drains.append(len(rows))
            rows += [{"drain_address": pixel} for pixel in range(PIXELS)]
        bits = activation_bits_of(machine, case, word)
        slots = machine.activations_per_lane(case.activation_bits)
        enable = (1 << machine.groups) - 1
        if case.kind == "sparse" and word == WORDS - 1 and slots > 1:
            # Only the first slot of the last word counts, as in a layer whose channels do not fill it.
            enable = (1 << (machine.groups // slots)) - 1
            rubbish = rng.integers(0, 2, bits.shape)
            counts = np.repeat(
                [(enable >> group) & 1 for group in range(machine.groups)], bits.shape[1] // machine.groups
            )
            bits = np.where(counts == 1, bits, rubbish)
            case.activations[:, word, 1:] = 0
        block = [
            {
                "activations": bits[pixel],
                "enable": enable,
                "slot": array.slot_index(spec.slot_bits(case.activation_bits)),
                "swap": int(pixel == 0),
                "valid": 1,
                "address": pixel,
                "clears": int(position == word == 0),
                "doubles": int(word == 0 and position > 0),
                "subtracts": int(spec.plane_subtracts(case.weight_bits, position)),
            }
            for pixel in range(PIXELS)
        ]
        writes = writes_of(*passes[at + 1]) if at + 1 < len(passes) else []
        length = max(PIXELS, len(writes))
        block += [{} for _ in range(length - PIXELS)]
        start = length - len(writes)
        rows += [{**row, **(writes[index - start] if index >= start else {})} for index, row in enumerate(block)]
    rows += [{"drain_address": 0}] * LATENCY
    drains.append(len(rows))
    rows += [{"drain_address": pixel} for pixel in range(PIXELS)]

    columns: dict[str, np.ndarray] = {}
    for name in (*ArrayAndAccumulator.ARRAY_INPUTS, "weight_groups", *ArrayAndAccumulator.CONTROLS, "drain_address"):
        if name in ("activations", "weight_data"):
            width = 8 * machine.lanes if name == "activations" else machine.weight_port_bits
            idle = rng.integers(0, 2, width)
            columns[name] = packing.pack_bits(np.array([row.get(name, idle) for row in rows]))
        else:
            columns[name] = np.array([row.get(name, 0) for row in rows])
    return columns, drains


def run(machine: Machine, kinds: list[tuple[type, type]], seed: int) -> list[Scoreboard]:
    """Return the scoreboard of each (array, accumulator)."""
    parts = [ArrayAndAccumulator(machine, *pair) for pair in kinds]
    cases = cases_of(machine, seed)
    columns, drains = stimulus(machine, parts[0].array, cases, seed)
    designs = [design.from_component(part, f"array_{at}") for at, part in enumerate(parts)]
    boards = []
    for seen in playback.play_side_by_side(designs, columns, ("drain_data",)):
        sums = packing.unpack(seen["drain_data"], machine.accumulator_bits, machine.columns, signed=True)
        board = Scoreboard("array")
        for case, start in zip(cases, drains, strict=True):
            first = start + Accumulator.DRAIN_LATENCY
            where = f"W{case.weight_bits}A{case.activation_bits} {case.kind}"
            board.compare(sums[first : first + PIXELS], case.expected, where, ("pixel", "column"))
        boards.append(board)
    return boards


MUTATIONS = [
    (Array, mutant(Accumulator, "step.subtracts.eq(subtracts)", "step.subtracts.eq(0)")),
    (Array, mutant(Accumulator, "step.doubles.eq(doubles)", "step.doubles.eq(0)")),
    (mutant(Array, "Mux(self.enable[k], self.activations[part], 0)", "self.activations[part]"), Accumulator),
]


def small(widths: WidthSet) -> Machine:
    return Machine(
        weight_widths=widths, activation_widths=widths, lanes=8, columns=4, requantizers=2, weight_port_bits=8
    )


def test_dot_products_at_every_pair_of_widths():
    machine = Machine(weight_widths=STANDARD, activation_widths=STANDARD)
    (board,) = run(machine, [(Array, Accumulator)], seed=1)
    assert board.finish() == len(STANDARD) ** 2 * len(KINDS) * PIXELS * machine.columns


@pytest.mark.parametrize("widths", [EVERY_WIDTH, CATALOG["8-4"], CATALOG["8"]], ids=str)
def test_dot_products_of_other_width_sets(widths):
    machine = small(widths)
    (board,) = run(machine, [(Array, Accumulator)], seed=2)
    assert board.finish() == len(widths) ** 2 * len(KINDS) * PIXELS * machine.columns


def test_a_wrong_array_is_caught():
    boards = run(small(STANDARD), MUTATIONS, seed=3)
    assert len(boards) == len(MUTATIONS)
    for board in boards:
        with pytest.raises(AssertionError, match="values differ: W"):
            board.finish()
