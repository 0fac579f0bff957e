"""Proofs of the DSP datapath's leaves: cells equal their portable twins, and packed products are separate products."""

from __future__ import annotations

from collections.abc import Callable

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from rtl.leaves.digit_column import DigitColumn
from rtl.leaves.digit_packing import (
    LANE_BITS,
    OPERAND_BITS,
    PARITY_BIT,
    PARITY_PAIRS,
    PARITY_SLOT,
    RESULT_POSITION,
    activation_positions,
    digit_positions,
    result_bits,
)
from rtl.leaves.multiplier import Ecp5Multiplier, Multiplier
from rtl.leaves.signed_product import PART_BITS, Ecp5SignedProduct, SignedProduct
from rtl.leaves.unshared_register import UnsharedRegister
from rtl.proofs.array_column import pairwise_sum
from rtl.proofs.bench import Bench
from rtl.proofs.proof import Mutant, Proof
from rtl.targets import CELL_MODELS, ECP5, PORTABLE

REGISTER_BITS = 3
LANES = 2
SLOTS = (8, 4, 2)


def equals_twin(make: Callable[[], wiring.Component], twin: wiring.Component) -> Bench:
    """State that the outputs of a component for ECP5 equal those of its portable twin, from power-up on."""
    bench = Bench(make(), target=ECP5)
    bench.add("twin", twin, PORTABLE)
    for name, member in bench.component.signature.members.items():
        own, other = getattr(bench.component, name), getattr(twin, name)
        if member.flow == wiring.In:
            bench.m.d.comb += other.eq(own)
        else:
            bench.check(own == other, name)
    return bench


def adds_parts(component: type[SignedProduct], a_bits: int, b_bits: int) -> Bench:
    """State that a product of two cells is the sum of the products of both parts of the longer factor."""
    bench = Bench(component(a_bits, b_bits), target=ECP5)
    dut = bench.component
    short, long = sorted((dut.a, dut.b), key=len)
    short = bench.past(short)
    low, high = bench.past(long[:PART_BITS]), bench.past(long[PART_BITS:]).as_signed()
    total = bench.past(short * low) + (bench.past(short * high) << PART_BITS)
    latency = SignedProduct.LATENCY
    bench.implies(bench.after(latency, resets=False), dut.product == bench.past(total), "sum of the parts' products")
    return bench


class PackedColumn(wiring.Component):
    """A column whose activations and digits of one slot are placed in the operands as ``digit_packing`` has it.

    Members
    -------
    activations : In(8 R)
    digits : In(8 R)
        Digits of the slot, as many as activations.
    swap : In(1)
    parity_factors, correction, total
        See ``DigitColumn``.
    """

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.column = DigitColumn(LANES, SLOTS)
        members = self.column.signature.members
        super().__init__(
            {
                "activations": In(LANE_BITS * LANES),
                "digits": In(LANE_BITS * LANES),
                **{name: members[name] for name in ("swap", "parity_factors", "correction", "total")},
            }
        )

    def parts(self, value: Value, lane: int) -> list[Value]:
        """Return what a lane holds, in index order."""
        lane_bits = value.word_select(lane, LANE_BITS)
        return [lane_bits.word_select(index, self.slot) for index in range(LANE_BITS // self.slot)]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.column = column = self.column
        wider = (1 << sorted(SLOTS).index(self.slot)) - 1
        m.d.comb += [
            column.swap.eq(self.swap),
            column.wider.eq(wider),
            column.parity_factors.eq(self.parity_factors),
            column.correction.eq(self.correction),
            self.total.eq(column.total),
        ]
        for lane in range(LANES):
            operand, digits = (
                place(self.parts(value, lane), positions(self.slot))
                for value, positions in ((self.activations, activation_positions), (self.digits, digit_positions))
            )
            used = Cat(digits[position] for position in column.positions)
            m.d.comb += [
                column.operands.word_select(lane, OPERAND_BITS).eq(operand),
                column.digits.word_select(lane, len(used)).eq(used),
            ]
        return m


def place(values: list[Value], positions: tuple[int, ...]) -> Value:
    """Return the operand that holds ``values`` at ``positions``."""
    bits: list[Value] = [Const(0, 1)] * OPERAND_BITS
    for value, position in zip(values, positions, strict=True):
        bits[position : position + len(value)] = list(value)
    return Cat(bits)


def packed_equals_separate(component: type[PackedColumn], slot: int) -> Bench:
    """State that every lane hands the sum of its separate products to the column's tree."""
    bench = Bench(component(slot))
    dut, m = bench.component, bench.m
    tree = bench.part("dut.column.tree")
    held = Signal(len(dut.digits), reset_less=True)
    with m.If(dut.swap):
        m.d.sync += held.eq(dut.digits)
    factors = []
    for lane in range(LANES):
        multiplier = f"dut.column.multiplier_{lane}"
        activations, digits = dut.parts(bench.past(dut.activations), lane), dut.parts(held, lane)
        for name, values, positions in (("a", activations, activation_positions), ("b", digits, digit_positions)):
            operand = place(values, positions(slot))
            bench.check(bench.internal(f"{multiplier}.{name}") == operand, f"operand {name} held")
        if slot == PARITY_SLOT:
            lowest = Cat(digits[digit][0] for _, digit in PARITY_PAIRS)
            bench.check(bench.signal(f"dut.column.lowest_{lane}") == lowest, "lowest bits of digits held")
            factors += [activations[at][0] for at, _ in PARITY_PAIRS]
        separate = pairwise_sum(activation * digit for activation, digit in zip(activations, digits, strict=True))
        multiplied = bench.internal(f"{multiplier}.multiplied")[RESULT_POSITION:]
        early = without_parity(multiplied, bench.signal(f"dut.column.parity_{lane}_0"), slot)
        late = without_parity(tree.fields.word_select(lane, tree.field_bits), tree.parities[lane], slot)
        bench.check(early == bench.past(separate), f"products of lane {lane} in the multiplier")
        bench.check(late == bench.past(separate, Multiplier.LATENCY - 1), f"products of lane {lane}")
    bench.assume(dut.parity_factors == Cat(factors))
    return bench


def without_parity(field: Value, parity: Value, slot: int) -> Value:
    """Return a lane's sum as the tree reads it."""
    bits = result_bits(slot)
    return Cat(field[:PARITY_BIT], field[PARITY_BIT] ^ parity) if slot == PARITY_SLOT else field[:bits]


def proofs() -> tuple[Proof, ...]:
    """Return the proofs of all leaves."""
    made = [
        Proof(
            "unshared_register.ecp5_equals_portable",
            f"{REGISTER_BITS} TRELLIS_FF cells equal the portable register, every input",
            UnsharedRegister,
            lambda component: equals_twin(lambda: component(REGISTER_BITS), UnsharedRegister(REGISTER_BITS)),
            depth=2,
            mutants=(
                Mutant("i_DI=self.d[bit]", "i_DI=self.d[0]"),
                Mutant("i_LSR=self.clear", "i_LSR=0 & self.clear"),
            ),
            mutant_depth=3,
            cells=CELL_MODELS,
        ),
        Proof(
            "multiplier.ecp5_equals_portable",
            "the multiplier in a MULT18X18D equals the portable one, every operand and sequence of loads",
            Ecp5Multiplier,
            lambda component: equals_twin(component, Multiplier()),
            depth=Multiplier.LATENCY + 1,
            mutants=(
                Mutant('("INPUTB", "CE1")', '("INPUTB", "CE0")'),
                Mutant('f"i_B{bit}": self.b[bit]', 'f"i_B{bit}": self.b[bit ^ 1]'),
                Mutant('"i_SIGNEDA": zero', '"i_SIGNEDA": one'),
            ),
            mutant_depth=Multiplier.LATENCY + 3,
            cells=CELL_MODELS,
        ),
    ]
    made.append(
        Proof(
            "signed_product.one_cell_equals_portable",
            "the product of signed factors of 9 and 18 bits in a MULT18X18D equals the portable one, every operand",
            Ecp5SignedProduct,
            lambda component: equals_twin(lambda: component(9, 18), SignedProduct(9, 18)),
            depth=SignedProduct.LATENCY + 1,
            mutants=(Mutant('"i_SIGNEDB": one', '"i_SIGNEDB": zero'), Mutant('operands["B"][bit]', 'operands["B"][0]')),
            mutant_depth=SignedProduct.LATENCY + 2,
            cells=CELL_MODELS,
        )
    )
    for a_bits, b_bits in ((24, 18), (9, 32)):
        made.append(
            Proof(
                f"signed_product.two_cells_{a_bits}x{b_bits}_add_parts",
                f"the product of signed factors of {a_bits} and {b_bits} bits in two MULT18X18D is the shorter one "
                f"times the low {PART_BITS} bits of the longer one, plus 2**{PART_BITS} times the shorter one times "
                "the rest, every operand; that this is the whole product is the distributive law",
                Ecp5SignedProduct,
                lambda component, a_bits=a_bits, b_bits=b_bits: adds_parts(component, a_bits, b_bits),
                depth=SignedProduct.LATENCY + 1,
                mutants=(
                    Mutant("low >> PART_BITS", "low.as_unsigned() >> PART_BITS"),
                    Mutant("long[PART_BITS:].as_signed()", "long[PART_BITS:]"),
                ),
                mutant_depth=SignedProduct.LATENCY + 2,
                cells=CELL_MODELS,
            )
        )
    for slot in (4, 2):
        made.append(
            Proof(
                f"digit_column.packed_slots_of_{slot}_equal_separate_products",
                f"a lane's {LANE_BITS // slot} products of {slot} x {slot} bits in one multiplication add up to what "
                "separate ones do, as the column's tree receives it: every activation, digit and swap",
                PackedColumn,
                lambda component, slot=slot: packed_equals_separate(component, slot),
                depth=2,
                mutant_depth=Multiplier.LATENCY + 2,
                mutants=(
                    Mutant(
                        "multiplier.product[RESULT_POSITION:]", "multiplier.product[RESULT_POSITION - 1:]", DigitColumn
                    ),
                    Mutant(
                        "digits[position] = self.digits[lane * count + at]",
                        "digits[position] = self.digits[at]",
                        DigitColumn,
                    ),
                )
                + (
                    (Mutant("(held & factors).xor()", "(held & factors).any()", DigitColumn),)
                    if slot == PARITY_SLOT
                    else ()
                ),
            )
        )
    return tuple(made)


PROOFS = proofs()
