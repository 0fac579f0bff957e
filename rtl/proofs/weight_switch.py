"""Proof of the weight switch: it equals ``spec.switch``.

In two halves, since a solver cannot take them at once: a short formula for the switched weight equals ``spec.switch``
for every code and every pair of widths, and the unit's planes are those of the formula.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Mux, Signal, Value, signed

from hwsim import spec
from rtl.proofs.bench import Bench
from rtl.proofs.proof import Mutant, Proof
from rtl.proofs.switch_formula import SwitchFormula
from rtl.weight_switch import WeightSwitch

BITS = spec.MAX_BITS


def formula_equals_spec(component):
    bench = Bench(component())
    m, dut = bench.m, bench.component
    stored_bits = bench.any_value(range(BITS + 1), "stored_bits")
    code = bench.any_value(signed(BITS), "code")
    known = Signal()
    for stored in range(2, BITS + 1):
        for target in range(1, stored + 1):
            with m.If((stored_bits == stored) & (dut.target_bits == target)):
                read = spec.planes_read(stored, target)
                m.d.comb += known.eq((dut.read == code[stored - read : stored]) & (dut.rounds == (stored > target > 1)))
    bench.assume(known)
    for stored in range(2, BITS + 1):
        for target in range(1, stored + 1):
            passes = spec.planes_applied(target)
            planes = switched_planes(code[:stored].as_signed(), stored, target)
            bench.implies(
                (stored_bits == stored) & (dut.target_bits == target),
                (dut.planes[:passes] == planes) & (dut.passes == passes),
                f"switch of {stored} bits to {target}",
            )
    return bench


def switched_planes(code: Value, stored_bits: int, target_bits: int) -> Value:
    """Return ``spec.plane_bit(spec.switch(code, stored_bits, target_bits), target_bits, i)``, the last pass first."""
    if target_bits == 1:
        # A Python conditional in the specification: both of its branches, chosen by its condition.
        positive, negative = (Const(spec.switch(sign, stored_bits, 1), signed(2)) for sign in (0, -1))
        weight = Mux(code >= 0, positive, negative)
    else:
        rounded = spec.round_shift(code, stored_bits - target_bits)
        high = spec.signed_high(target_bits)
        weight = Mux(rounded < high, rounded, high)
    passes = reversed(range(spec.planes_applied(target_bits)))
    return Cat(Value.cast(spec.plane_bit(weight, target_bits, position))[0] for position in passes)


def equals_formula(component):
    bench = Bench(component(1))
    m, dut = bench.m, bench.component

    # A group is the top planes of a code, with gaps of any length anywhere; `seen` has its planes, first one highest.
    count, planes = Signal(range(BITS + 1)), Signal(BITS)
    seen = Signal(BITS)
    m.d.comb += seen.eq(Cat(dut.plane, Mux(dut.first, 0, planes)))
    done = dut.valid & dut.last
    with m.If(dut.valid):
        m.d.sync += [count.eq(Mux(dut.last, 0, count + 1)), planes.eq(Mux(dut.last, 0, seen))]
    bench.assume(~dut.valid | (dut.first == (count == 0)))
    bench.assume(~dut.valid | dut.last | (count < BITS - 1))
    bench.assume(~done | (dut.target_bits + dut.rounds == count + 1))
    bench.assume(~done | (dut.target_bits != 0) & ((dut.target_bits > 1) | ~dut.rounds))

    formula = SwitchFormula()
    bench.add("formula", formula)
    m.d.comb += [formula.read.eq(seen), formula.target_bits.eq(dut.target_bits), formula.rounds.eq(dut.rounds)]

    # One plane a cycle from then on, the last pass first; the next group is done no earlier than that.
    left, leaving = Signal(range(BITS + 1)), Signal(BITS)
    m.d.sync += leaving.eq(leaving >> 1)
    with m.If(left != 0):
        m.d.sync += left.eq(left - 1)
    with m.If(done):
        m.d.sync += [left.eq(formula.passes), leaving.eq(formula.planes)]
    bench.assume(~done | (left <= 1))
    bench.check(left <= BITS, "passes")

    wait = dut.LATENCY - 1
    valid = Signal(wait)
    m.d.sync += valid.eq(Cat(left != 0, valid))
    bench.check(dut.o_valid == valid[-1], "o_valid")
    bench.implies(dut.o_valid, dut.o_position == bench.past((left - 1)[:3], wait), "o_position")
    bench.implies(dut.o_valid, dut.o_plane == bench.past(leaving[0], wait), "o_plane")

    # What the induction needs to know about groups that take longer to arrive than it looks back.
    bench.check((count < BITS) & (planes >> count == 0), "count")
    bench.implies(count != 0, bench.internal("dut.arrivals") == count[:3], "arrivals")
    ones = planes == (1 << (count - 1)[:3]) - 1
    bench.implies(count != 0, bench.internal("dut.ripple") == ones, "ripple")
    fills = bench.internal("dut.fills")
    for at in range(BITS):
        word = bench.stored("dut.buffers", Cat(Const(at, 3), fills))
        bench.implies(count > at, word == planes.bit_select((count - 1 - at)[:3], 1), f"plane {at}")
    return bench


PROOFS = (
    Proof(
        "weight_switch.formula_equals_spec",
        "a short formula for the switched weight equals spec.switch, plane by plane: every code, every stored width "
        "2 .. 8 and every target width",
        SwitchFormula,
        formula_equals_spec,
        depth=1,
        mutants=(Mutant("self.read + ~overflows", "self.read + 1"), Mutant("Cat(1, ~self.read[0])", "Cat(1, 1)")),
    ),
    Proof(
        "weight_switch.equals_formula",
        "what leaves the weight switch are the planes of the formula, last pass first, LATENCY cycles after the last "
        "plane read: every code, every pair of widths, every pause (weights do not meet, so one is all)",
        WeightSwitch,
        equals_formula,
        depth=12,
        mutants=(
            Mutant("(ripple ^ is_rounding_bit", "(~is_rounding_bit"),
            Mutant("read_rounds.eq(self.rounds & ~bipolar)", "read_rounds.eq(0)"),
            Mutant("read_position.eq(1)", "read_position.eq(0)"),
            Mutant("drains.eq(fills)", "drains.eq(~fills)"),
        ),
    ),
)
