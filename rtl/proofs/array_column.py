"""Proofs of the array's column: the groups of a lane are joined into the integer sum, whatever the slot."""

from __future__ import annotations

from amaranth.hdl import Const, Mux, Value

from rtl.leaves.array_column import LANE_BITS, ArrayColumn
from rtl.leaves.array_column_ecp5 import Ecp5ArrayColumn
from rtl.proofs.bench import Bench
from rtl.proofs.proof import CARRY_CELLS, Mutant, Proof
from rtl.targets import ECP5, PORTABLE

ALL_SLOTS = (8, 4, 2, 1)


def lane_word(column: ArrayColumn, activations: Value, lane: int) -> Value:
    """Return the 8 bits of a lane, little end first, out of a group-major word."""
    bits = column.group_bits
    groups = [activations[(k * column.lanes + lane) * bits :][:bits] for k in range(column.groups)]
    return sum((group << (k * bits) for k, group in enumerate(groups)), Const(0))[:LANE_BITS]


def assume_slot(bench: Bench, column: ArrayColumn) -> list[tuple[int, Value]]:
    """Assume that ``joins`` says which slot it is; return the slots with that condition."""
    cases = []
    for slot in ALL_SLOTS:
        if column.group_bits <= slot <= column.slot_bits_max:
            joins = sum(1 << level for level in range(column.join_levels) if slot > column.group_bits << level)
            cases.append((slot, joins))
    bench.assume(sum((column.joins == joins for _, joins in cases), Const(0)) != 0)
    return cases


def equals_sum(component, lanes, group_bits, target=PORTABLE):
    bench = Bench(component(lanes, group_bits, LANE_BITS), target=target)
    column = bench.component
    activations, weights, joins = (
        bench.past(value, column.LATENCY) for value in (column.activations, column.weights, column.joins)
    )
    sums = []
    for k in range(column.groups):
        parts = (activations[(k * lanes + lane) * group_bits :][:group_bits] for lane in range(lanes))
        sums.append(sum((Mux(weights[k * lanes + lane], part, 0) for lane, part in enumerate(parts)), Const(0)))
    for slot, slot_joins in assume_slot(bench, column):
        # Group k of a slot weighs 2**(g * k); pair by pair, in the order in which additions are easiest to compare.
        terms, shift = list(sums), group_bits
        while len(terms) > 1:
            step = shift if shift < slot else 0
            terms = [terms[at] + (terms[at + 1] << step) for at in range(0, len(terms), 2)]
            shift *= 2
        bench.implies(
            bench.after(column.LATENCY, resets=False) & (joins == slot_joins),
            column.total == terms[0],
            f"plane sum, slots of {slot} bits",
        )
    return bench


PORTABLE_MUTANTS = (
    Mutant("chosen[lane].replicate(width)", "chosen[0].replicate(width)"),
    Mutant("high << shift, high)", "high << (shift - 1), high)"),
)
ECP5_MUTANTS = (
    Mutant("self.weights[k * self.lanes + lane]))", "self.weights[k * self.lanes]))"),
    Mutant("high[bit - shift] if shifts", "high[bit - shift] if not shifts"),
)


def proofs() -> tuple[Proof, ...]:
    """Return the proofs of both forms at every group width."""
    made = []
    for lanes, group_bits in ((4, 8), (2, 4), (2, 2), (2, 1)):
        instance = f"{lanes} lanes in groups of {group_bits} bits: every activation, weight bit and slot"
        made.append(
            Proof(
                f"array_column.portable_{lanes}x{group_bits}_equals_sum",
                f"the column equals the integer sum of the activations whose weight bit is one, {instance}",
                ArrayColumn,
                lambda component, lanes=lanes, group_bits=group_bits: equals_sum(component, lanes, group_bits),
                depth=ArrayColumn.LATENCY + 1,
                mutants=PORTABLE_MUTANTS[: 1 if group_bits == LANE_BITS else 2],
            )
        )
        made.append(
            Proof(
                f"array_column.ecp5_{lanes}x{group_bits}_equals_sum",
                f"the column in CCU2C cells, on Yosys' model of them, equals the same sum, {instance}",
                Ecp5ArrayColumn,
                lambda component, lanes=lanes, group_bits=group_bits: equals_sum(component, lanes, group_bits, ECP5),
                depth=ArrayColumn.LATENCY + 1,
                mutants=ECP5_MUTANTS[: 1 if group_bits == LANE_BITS else 2],
                cells=CARRY_CELLS,
            )
        )
    return tuple(made)


PROOFS = proofs()
