"""Proofs of the array's column: the groups of a lane are joined into the integer sum, whatever the slot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from amaranth.hdl import Const, Mux, Value

from rtl.leaves.array_column import LANE_BITS, ArrayColumn, add_in_pairs
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


def pairwise_sum(terms: Iterable[Value]) -> Value:
    """Return the sum of a power of two of terms, pair by pair: the order in which additions are easiest to compare."""
    terms = list(terms)
    while len(terms) > 1:
        terms = add_in_pairs(terms)
    return terms[0]


def slot_sum(group_sums: Iterable[Value], group_bits: int, slot: int) -> Value:
    """Return the sum of the groups' sums: group k weighs ``2**(g * (k mod (slot / g)))``."""
    terms, shift = list(group_sums), group_bits
    while len(terms) > 1:
        step = shift if shift < slot else 0
        terms = [terms[at] + (terms[at + 1] << step) for at in range(0, len(terms), 2)]
        shift *= 2
    return terms[0]


def choose(index: Value, values: Sequence[Value]) -> Value:
    """Return ``values[index]``, signed if one of them is."""
    chosen = values[-1]
    for at, value in enumerate(values[:-1]):
        chosen = Mux(index == at, value, chosen)
    return chosen


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
        bench.implies(
            bench.after(column.LATENCY, resets=False) & (joins == slot_joins),
            column.total == slot_sum(sums, group_bits, slot),
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
