"""Proofs of the DSP datapath's adders: the tree of a column and the accumulate step, in both forms."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Mux, signed

from hwsim import spec
from rtl.leaves.digit_packing import PARITY_BIT, PARITY_SLOT, result_bits
from rtl.leaves.digit_step import DigitStep, Ecp5DigitStep
from rtl.leaves.digit_tree import DigitTree, Ecp5DigitTree
from rtl.proofs.bench import Bench
from rtl.proofs.proof import CARRY_CELLS, Mutant, Proof
from rtl.targets import ECP5, PORTABLE

LANES = 4
SLOTS = (8, 4, 2)
SUM_BITS, ACCUMULATOR_BITS = 20, 24
SHIFTS = (4, 2)
STEP_LATENCY = 2


def tree_equals_sum(component, target=PORTABLE):
    bench = Bench(component(LANES, SLOTS), target=target)
    tree = bench.component
    fields, parities, wider = (bench.past(value, tree.LATENCY) for value in (tree.fields, tree.parities, tree.wider))
    correction = bench.past(tree.correction, tree.LATENCY - tree.CORRECTION_DELAY)
    for at, slot in enumerate(reversed(tree.slots)):
        bits = result_bits(slot)
        terms = []
        for lane in range(LANES):
            term = fields[lane * tree.field_bits :][:bits]
            if slot == PARITY_SLOT:
                term = Cat(term[:PARITY_BIT], term[PARITY_BIT] ^ parities[lane])
            terms.append(term)
        while len(terms) > 1:
            terms = [terms[index] + terms[index + 1] for index in range(0, len(terms), 2)]
        quiet = Const(1, 1) if slot == PARITY_SLOT else parities == 0
        bench.implies(
            bench.after(tree.LATENCY, resets=False) & (wider == (1 << at) - 1) & quiet,
            tree.total == terms[0] - correction,
            f"digit sum, slots of {slot} bits",
        )
    return bench


def step_equals_spec(component, target=PORTABLE):
    bench = Bench(component(SUM_BITS, ACCUMULATOR_BITS, SHIFTS), target=target)
    step = bench.component
    old, cleared, shifts = (bench.past(value, STEP_LATENCY) for value in (step.old, step.clears, step.shift))
    total = bench.past(step.total, STEP_LATENCY - component.SUM_DELAY)
    kept = Mux(cleared, Const(0, signed(ACCUMULATOR_BITS)), old.as_signed())
    for code, shift in ((0, 0), *((1 << at, shift) for at, shift in enumerate(SHIFTS))):
        expected = spec.accumulate_digit(kept, total.as_signed(), shift)
        bench.implies(
            bench.after(STEP_LATENCY, resets=False) & (shifts == code),
            step.updated == expected.as_unsigned()[:ACCUMULATOR_BITS],
            f"accumulate a digit, shift {shift}",
        )
    return bench


TREE = f"{LANES} lanes, slots of 8, 4 and 2 bits, every field, parity and correction"
STEP = f"sums of {SUM_BITS} bits and accumulators of {ACCUMULATOR_BITS}, shifts by 4, 2 and 0, every input"
ON_CELLS = "in CCU2C cells, on Yosys' model of them,"

PROOFS = (
    Proof(
        "digit_tree.portable_equals_sum",
        f"the tree equals the integer sum of the lanes' dot products less the correction: {TREE}",
        DigitTree,
        tree_equals_sum,
        depth=DigitTree.LATENCY + 1,
        mutants=(
            Mutant("fields[0] - self.correction", "fields[0] + ~self.correction"),
            Mutant("value = value ^ parities[lane]", "value = value | parities[lane]"),
        ),
    ),
    Proof(
        "digit_tree.ecp5_equals_sum",
        f"the tree {ON_CELLS} equals the same sum: {TREE}",
        Ecp5DigitTree,
        lambda component: tree_equals_sum(component, ECP5),
        depth=DigitTree.LATENCY + 1,
        mutants=(
            Mutant("chain.add((one, None)", "chain.add((Const(0, 1), None)"),
            Mutant("PARITIES = 0x6996", "PARITIES = 0x6999"),
            Mutant("masks = (keeps, keeps)", "masks = (keeps, one)"),
        ),
        cells=CARRY_CELLS,
    ),
    Proof(
        "digit_step.portable_equals_spec",
        f"the accumulate step of digits equals spec.accumulate_digit: {STEP}",
        DigitStep,
        step_equals_spec,
        depth=STEP_LATENCY + 1,
        mutants=(Mutant("kept + self.total.as_signed()", "kept + self.total"),),
    ),
    Proof(
        "digit_step.ecp5_equals_spec",
        f"the accumulate step of digits {ON_CELLS} equals spec.accumulate_digit: {STEP}",
        Ecp5DigitStep,
        lambda component: step_equals_spec(component, ECP5),
        depth=STEP_LATENCY + 1,
        mutants=(
            Mutant("len(self.total) - 1)], None)", "len(self.total) - 2)], None)"),
            Mutant("self.old[:-shift]), shifted)", "self.old[:-shift]), self.old)"),
        ),
        cells=CARRY_CELLS,
    ),
)
