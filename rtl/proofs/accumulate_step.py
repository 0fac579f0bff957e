"""Proofs of the accumulate step: both forms equal ``spec.accumulate``."""

from __future__ import annotations

from amaranth.hdl import Const, Mux, signed

from hwsim import spec
from rtl.leaves.accumulate_step import AccumulateStep, Ecp5AccumulateStep
from rtl.proofs.bench import Bench
from rtl.proofs.proof import CARRY_CELLS, Mutant, Proof
from rtl.targets import ECP5, PORTABLE

SUM_BITS, ACCUMULATOR_BITS = 14, 24
LATENCY = 2


def equals_spec(component, target=PORTABLE):
    bench = Bench(component(SUM_BITS, ACCUMULATOR_BITS), target=target)
    dut = bench.component
    old, cleared, doubled = (bench.past(value, LATENCY) for value in (dut.old, dut.clears, dut.doubles))
    late = LATENCY - component.SUM_DELAY
    plane_sum, subtracted = bench.past(dut.plane_sum, late), bench.past(dut.subtracts, late)
    kept = Mux(cleared, Const(0, signed(ACCUMULATOR_BITS)), old.as_signed())
    for doubles in (False, True):
        for subtracts in (False, True):
            expected = spec.accumulate(kept, plane_sum, doubles, subtracts)
            bench.implies(
                bench.after(LATENCY, resets=False) & (doubled == doubles) & (subtracted == subtracts),
                dut.updated == expected.as_unsigned()[:ACCUMULATOR_BITS],
                f"accumulate, doubles {doubles}, subtracts {subtracts}",
            )
    return bench


WIDTHS = f"plane sums of {SUM_BITS} bits and accumulators of {ACCUMULATOR_BITS}, every input"

PROOFS = (
    Proof(
        "accumulate_step.portable_equals_spec",
        f"the accumulate step equals spec.accumulate: {WIDTHS}",
        AccumulateStep,
        equals_spec,
        depth=LATENCY + 1,
        mutants=(Mutant("kept - self.plane_sum, kept", "kept + ~self.plane_sum, kept"),),
    ),
    Proof(
        "accumulate_step.ecp5_equals_spec",
        f"the accumulate step in CCU2C cells, on Yosys' model of them, equals spec.accumulate: {WIDTHS}",
        Ecp5AccumulateStep,
        lambda component: equals_spec(component, ECP5),
        depth=LATENCY + 1,
        mutants=(
            Mutant("Position(SEPARATOR, self.subtracts)", "Position(SEPARATOR, None)"),
            Mutant("Position(ADD_SIGN, bit", "Position(ADD_OR_SUBTRACT, bit"),
        ),
        cells=CARRY_CELLS,
    ),
)
