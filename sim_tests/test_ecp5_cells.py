"""The ECP5 leaves in Verilator, on models of their cells, against their portable twins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from amaranth.hdl import Fragment, Module, Value
from amaranth.lib import wiring

from rtl.accumulator import Accumulator
from rtl.array import Array
from rtl.dsp_array import DspArray
from rtl.leaves.block_ram_ecp5 import stack
from rtl.leaves.memory import GatheredMemory, TwoCycleMemory
from rtl.leaves.memory_stack import GATHERED_SEGMENTS, Segment
from rtl.leaves.multiplier import Ecp5Multiplier, Multiplier
from rtl.leaves.signed_product import Ecp5SignedProduct, SignedProduct
from rtl.leaves.unshared_register import UnsharedRegister
from rtl.targets import CELL_MODELS, ECP5
from rtl.tests.mutation import mutant
from sim_tests import design, playback
from sim_tests.design import Design
from sim_tests.scoreboard import Scoreboard

pytestmark = pytest.mark.verilator

ROWS = 1500


class OnEcp5(wiring.Component):
    """A component elaborated for ECP5, whatever it is part of."""

    def __init__(self, component: wiring.Component) -> None:
        self.component = component
        super().__init__(component.signature)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.component = Fragment.get(self.component, ECP5)
        for name, member in self.signature.members.items():
            inner, outer = Value.cast(getattr(self.component, name)), Value.cast(getattr(self, name))
            m.d.comb += inner.eq(outer) if member.flow == wiring.In else outer.eq(inner)
        return m


def twins(make: Callable[[], wiring.Component]) -> list[Design]:
    """Return the portable design and the ECP5 one, with the models of its cells."""
    portable = design.from_component(make(), "portable")
    cells = design.from_component(OnEcp5(make()), "ecp5")
    return [portable, dataclasses.replace(cells, verilog=cells.verilog + CELL_MODELS.read_text())]


def uniform(rng: np.random.Generator, design: Design, rows: int) -> dict[str, np.ndarray]:
    """Return random rows for every input port."""
    columns = {}
    for port in design.ports:
        if port.direction == "input":
            if port.bits < 63:
                columns[port.name] = rng.integers(0, 1 << port.bits, rows)
            else:
                columns[port.name] = rng.integers(0, 256, (rows, -(-port.bits // 8)), dtype=np.uint8)
                columns[port.name][:, -1] &= (1 << (port.bits - 1) % 8 + 1) - 1
    return columns


def compare(designs: list[Design], columns: dict[str, np.ndarray], output: str) -> int:
    right, found = playback.play_side_by_side(designs, columns, (output,))
    board = Scoreboard("ecp5")
    board.compare(found[output], right[output], output)
    assert len(np.unique(right[output], axis=0)) > 4
    return board.finish()


STACKS = [(20, 1300, 10), (72, 2600, 72)]
"""Memories of several shapes of block, one on the other."""


def check_block_ram(width: int, depth: int, granularity: int, kind: type[TwoCycleMemory] = TwoCycleMemory) -> None:
    designs = twins(lambda: kind(width, depth, granularity))
    rng = np.random.default_rng(width)
    columns = uniform(rng, designs[0], ROWS)
    edges = {address for segment in stack(width, depth, granularity) for address in (segment.start - 1, segment.start)}
    few = np.array(sorted({*edges, depth - 1, *rng.choice(depth, 8).tolist()} - {-1}))
    columns["write_address"] = few[rng.integers(0, len(few), ROWS)]
    columns["read_address"] = few[rng.integers(0, len(few), ROWS)]
    # A word that is read while it is written is undefined.
    writes = {name: np.roll(columns[name], kind.WRITE_DELAY) for name in ("write_address", "write_enable")}
    collides = (writes["write_address"] == columns["read_address"]) & (writes["write_enable"] != 0)
    columns["read_enable"] = np.where(collides, 0, columns["read_enable"])
    compared = compare(designs, columns, "read_data")
    assert compared > ROWS


@pytest.mark.parametrize(("width", "depth", "granularity"), [(32, 512, 8), (24, 2000, 8), (3, 9000, 1), *STACKS])
def test_block_ram_reads_what_was_written(width: int, depth: int, granularity: int) -> None:
    assert (len(stack(width, depth, granularity)) > 1) == ((width, depth, granularity) in STACKS)
    check_block_ram(width, depth, granularity)


def test_gathered_block_ram_reads_what_was_written() -> None:
    width, depth, granularity = 36, 9000, 36
    assert len(stack(width, depth, granularity)) > GATHERED_SEGMENTS
    check_block_ram(width, depth, granularity, GatheredMemory)


@pytest.mark.parametrize("shape", [(16, 4, 2, (8, 4, 2), 32), (4, 10, 2, (8, 4, 2), 20)], ids=str)
def test_array_in_carry_cells_equals_the_portable_one(shape: tuple[int, int, int, tuple[int, ...], int]) -> None:
    designs = twins(lambda: Array(*shape))
    columns = uniform(np.random.default_rng(1), designs[0], ROWS)
    columns["slot"] %= 3
    columns["weight_row"] %= 2
    columns["activations"][::5] = 255
    compared = compare(designs, columns, "sums")
    assert compared > ROWS


def test_accumulator_in_carry_cells_and_block_ram_equals_the_portable_one() -> None:
    depth = 64
    designs = twins(lambda: Accumulator(2, 10, 24, depth))
    rng = np.random.default_rng(2)
    columns = uniform(rng, designs[0], ROWS)
    # Addresses in turn keep their distance from each other and from what the drain reads.
    columns["address"] = np.arange(ROWS) % depth
    columns["drain_address"] = (np.arange(ROWS) + depth // 2) % depth
    columns["clears"] = rng.integers(0, 8, ROWS) == 0
    compared = compare(designs, columns, "drain_data")
    assert compared > ROWS


def test_multiplier_cell_equals_the_portable_one_and_its_mutant_does_not() -> None:
    wrong = mutant(Ecp5Multiplier, '("INPUTB", "CE1")', '("INPUTB", "CE0")')
    forms = {"portable": Multiplier, "ecp5": Ecp5Multiplier, "mutant": wrong}
    designs = [design.from_component(form(), name) for name, form in forms.items()]
    designs[0] = dataclasses.replace(designs[0], verilog=designs[0].verilog + CELL_MODELS.read_text())
    columns = uniform(np.random.default_rng(3), designs[0], ROWS)
    columns["a"][::7] = columns["b"][::5] = (1 << 18) - 1
    portable, ecp5, damaged = (seen["product"] for seen in playback.play_side_by_side(designs, columns, ("product",)))
    assert len(np.unique(portable)) > ROWS // 2
    assert (portable == ecp5).all()
    assert (portable != damaged).mean() > 0.2


@pytest.mark.parametrize(
    ("right", "wrong"), [("i_DI=self.d[bit]", "i_DI=self.d[0]"), ("i_LSR=self.clear", "i_LSR=0 & self.clear")]
)
def test_register_cells_equal_the_portable_one_and_a_mutant_does_not(right: str, wrong: str) -> None:
    damaged = mutant(UnsharedRegister, right, wrong)
    components = {
        "portable": UnsharedRegister(3),
        "ecp5": OnEcp5(UnsharedRegister(3)),
        "mutant": OnEcp5(damaged(3)),
    }
    designs = [design.from_component(component, name) for name, component in components.items()]
    designs[0] = dataclasses.replace(designs[0], verilog=designs[0].verilog + CELL_MODELS.read_text())
    columns = uniform(np.random.default_rng(5), designs[0], ROWS)
    portable, ecp5, other = (seen["q"] for seen in playback.play_side_by_side(designs, columns, ("q",)))
    assert (portable[1:ROWS] == np.where(columns["clear"] != 0, 0, columns["d"])[: ROWS - 1]).all()
    assert (portable == ecp5).all()
    assert (portable != other).mean() > 0.2


@pytest.mark.parametrize(("a_bits", "b_bits"), [(24, 18), (9, 32), (9, 18)])
def test_signed_products_in_cells_equal_the_portable_ones(a_bits: int, b_bits: int) -> None:
    wrong = mutant(Ecp5SignedProduct, "low >> PART_BITS", "low.as_unsigned() >> PART_BITS")
    forms = {"portable": SignedProduct, "ecp5": Ecp5SignedProduct, "mutant": wrong}
    designs = [design.from_component(form(a_bits, b_bits), name) for name, form in forms.items()]
    designs[0] = dataclasses.replace(designs[0], verilog=designs[0].verilog + CELL_MODELS.read_text())
    rng = np.random.default_rng(a_bits)
    columns = {}
    for name, bits in (("a", a_bits), ("b", b_bits)):
        low, high = -(1 << bits - 1), (1 << bits - 1) - 1
        special = rng.choice([low, high, -1, 0, 1], ROWS)
        columns[name] = np.where(rng.random(ROWS) < 0.3, special, rng.integers(low, high, ROWS, endpoint=True))
    portable, ecp5, damaged = (seen["product"] for seen in playback.play_side_by_side(designs, columns, ("product",)))
    assert (portable[SignedProduct.LATENCY :][:ROWS] == columns["a"] * columns["b"]).all()
    assert (portable == ecp5).all()
    assert Ecp5SignedProduct.cells(a_bits, b_bits) == 1 or (portable != damaged).mean() > 0.2


def test_dsp_array_in_cells_equals_the_portable_one() -> None:
    designs = twins(lambda: DspArray(4, 2, 2, (8, 4, 2), 4))
    rng = np.random.default_rng(4)
    columns = uniform(rng, designs[0], ROWS)
    columns["slot"] %= 3
    columns["weight_slot"] %= 3
    columns["signed_planes"] %= 9
    columns["weight_clear"] = rng.integers(0, 40, ROWS) == 0
    columns["activations"][::5] = 255
    compared = compare(designs, columns, "sums")
    assert compared > ROWS


def test_a_block_ram_that_enables_the_wrong_bytes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtl.leaves.block_ram_ecp5.BYTE_BITS", 12)
    with pytest.raises(AssertionError):
        check_block_ram(32, 512, 8)


def test_a_stack_that_takes_one_segment_for_another_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Segment.holds

    def holds(segment: Segment, address: Value) -> Value:
        return (
            right(dataclasses.replace(segment, start=0), address) if segment.words == 512 else right(segment, address)
        )

    monkeypatch.setattr(Segment, "holds", holds)
    with pytest.raises(AssertionError):
        check_block_ram(*STACKS[0])
