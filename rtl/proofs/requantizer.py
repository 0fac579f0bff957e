"""Proofs of the requantizer: a narrow one equals ``spec.requantize``, a wide one's shift and clamp stages do."""

from __future__ import annotations

from amaranth.hdl import Mux, Value

from hwsim import spec
from hwsim.requantize import RequantizerFormat
from rtl.proofs.bench import Bench
from rtl.proofs.proof import Mutant, Proof
from rtl.requantizer import Requantizer

WIDE = RequantizerFormat()
ACCUMULATOR_BITS = 24
TOTAL_CYCLES = 3
"""Cycles from the inputs to the sum register, as the pipeline of the unit has them, the register excluded."""


def clamp(value: Value, low: Value, high: Value) -> Value:
    """Return ``spec.clamp`` as logic."""
    at_least = Mux(value < low, low, value)
    return Mux(high < at_least, high, at_least)


def narrow_equals_spec(component, skip_bits):
    bench = Bench(
        component(
            operand_bits=4,
            skip_bits=skip_bits,
            multiplier_bits=3,
            skip_multiplier_bits=3 if skip_bits else 0,
            addend_bits=6,
            shift_max=15,
            output_bits=5,
        )
    )
    dut = bench.component

    def then(value):
        return bench.past(value, dut.LATENCY)

    skip = [then(dut.skip), then(dut.skip_multiplier)] if skip_bits else [0, 0]
    scaled = spec.scale_accumulator(
        then(dut.operand), skip[0], then(dut.multiplier), skip[1], then(dut.addend), then(dut.shift)
    )
    low, high = then(dut.low), then(dut.high)
    expected = clamp(scaled, low, high)
    bench.implies(bench.after(dut.LATENCY, resets=False) & (low <= high), dut.result == expected, "result")
    return bench


def wide_equals_spec(component):
    bench = Bench(
        component(
            operand_bits=ACCUMULATOR_BITS,
            skip_bits=spec.SKIP_BITS + 1,
            multiplier_bits=WIDE.multiplier_bits,
            skip_multiplier_bits=WIDE.skip_multiplier_bits,
            addend_bits=WIDE.addend_bits,
            shift_max=WIDE.shift_max,
            output_bits=spec.LOGIT_BITS,
        )
    )
    dut = bench.component
    total = bench.free("dut.total")
    after = dut.LATENCY - TOTAL_CYCLES - 1
    shift, low, high = (bench.past(value, dut.LATENCY) for value in (dut.shift, dut.low, dut.high))
    shifted = bench.past(total, after) >> shift
    expected = clamp(shifted, low, high)
    bench.implies(bench.after(dut.LATENCY, resets=False) & (low <= high), dut.result == expected, "result")
    return bench


PROOFS = (
    Proof(
        "requantizer.narrow_equals_spec",
        "a requantizer of narrow operands (4 bits, M and K 3, B 6, S 0 .. 15) equals spec.requantize, LATENCY cycles "
        "later: every input",
        Requantizer,
        lambda component: narrow_equals_spec(component, 3),
        depth=10,
        mutants=(
            Mutant('self.addend, "addend", 3', 'self.addend, "addend", 2'),
            Mutant("step << fine_bits", "step << 2"),
            Mutant("value > high", "value >= high + 2"),
        ),
    ),
    Proof(
        "requantizer.narrow_without_skip_equals_spec",
        "the same without a skip code",
        Requantizer,
        lambda component: narrow_equals_spec(component, 0),
        depth=10,
        mutants=(Mutant("multiply(self.operand, self.multiplier", "multiply(self.operand, self.operand"),),
    ),
    Proof(
        "requantizer.shift_and_clamp_equal_spec",
        "shift and clamp stages of the machine's requantizer, cut at the sum, equal spec.requantize: every sum, S, "
        "low and high",
        Requantizer,
        wide_equals_spec,
        depth=10,
        mutants=(
            Mutant("coarse_shifted >> fine_shift", "coarse_shifted.as_unsigned() >> fine_shift"),
            Mutant("Mux(below, register(low", "Mux(above, register(low"),
            Mutant("upper.any() ^ upper.all()", "shifted[-1] ^ upper.all()"),
        ),
    ),
)
