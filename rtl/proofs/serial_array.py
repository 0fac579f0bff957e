"""Proofs of the array with its accumulator: whatever they are fed, they accumulate integer plane sums.

Which plane sums of weights make a dot product is a matter of integers alone: ``rtl.proofs.dot_product``.
"""

from __future__ import annotations

from collections.abc import Iterable

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring

from hwsim import spec
from rtl.accumulator import Accumulator
from rtl.array import Array
from rtl.delay import delay
from rtl.leaves.array_column import LANE_BITS
from rtl.proofs.array_column import choose, pairwise_sum, slot_sum
from rtl.proofs.bench import Bench
from rtl.proofs.proof import Mutant, Proof


class SerialArray(wiring.Component):
    """The array and its accumulator, connected as in the accelerator: their controls arrive with the activations.

    Parameters
    ----------
    lanes, columns, group_bits, slots, port_bits
        See ``Array``.
    accumulator_bits, depth
        See ``Accumulator``.

    Members
    -------
    activations, enable, slot, swap, weight_write, weight_row, weight_data, weight_groups
        See ``Array``.
    valid, address, clears, doubles, subtracts, drain_address, drain_read, drain_data
        See ``Accumulator``; ``valid`` and those that belong to it come with their ``activations``.
    """

    ARRAY_INPUTS = (
        "activations",
        "enable",
        "slot",
        "swap",
        "weight_write",
        "weight_row",
        "weight_data",
        "weight_groups",
    )
    CONTROLS = ("valid", "address", "clears", "doubles", "subtracts")
    LATENCY = Array.LATENCY + Accumulator.LATENCY
    """Cycles from ``activations`` until the accumulator is in the memory."""

    def __init__(
        self,
        lanes: int,
        columns: int,
        group_bits: int,
        slots: Iterable[int],
        port_bits: int,
        accumulator_bits: int,
        depth: int,
    ) -> None:
        self.array = Array(lanes, columns, group_bits, slots, port_bits)
        self.accumulator = Accumulator(columns, self.array.sum_bits, accumulator_bits, depth)
        array, accumulator = self.array.signature.members, self.accumulator.signature.members
        super().__init__(
            {name: array[name] for name in self.ARRAY_INPUTS}
            | {name: accumulator[name] for name in (*self.CONTROLS, "drain_address", "drain_read", "drain_data")}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.array = array = self.array
        m.submodules.accumulator = accumulator = self.accumulator
        m.d.comb += [getattr(array, name).eq(getattr(self, name)) for name in self.ARRAY_INPUTS]
        for name in self.CONTROLS:
            due = delay(m, getattr(self, name), array.LATENCY - accumulator.SUMS_DELAY, name)
            m.d.comb += getattr(accumulator, name).eq(due)
        m.d.comb += [
            Value.cast(accumulator.sums).eq(Value.cast(array.sums)),
            accumulator.drain_address.eq(self.drain_address),
            accumulator.drain_read.eq(self.drain_read),
            Value.cast(self.drain_data).eq(Value.cast(accumulator.drain_data)),
        ]
        return m


LANES, COLUMNS, GROUP_BITS, PORT_BITS, ACCUMULATOR_BITS, DEPTH = 4, 2, 2, 4, 12, 2
SLOTS = (8, 4, 2)
COLUMN = COLUMNS - 1
"""The column that is followed."""


def accumulates_plane_sums(component: type[SerialArray]) -> Bench:
    """State what any word's accumulator is after any inputs: plane sums of integers, as ``spec.accumulate`` adds them.

    Weights, activations and controls are followed beside the hardware.
    """
    shape = (LANES, COLUMNS, GROUP_BITS, SLOTS, PORT_BITS, ACCUMULATOR_BITS, DEPTH)
    bench = Bench(component(*shape), resets=False)
    m, dut = bench.m, bench.component
    bench.assume(dut.slot < len(SLOTS))

    sums = []
    for k in range(LANE_BITS // GROUP_BITS):
        weights = [follow_weight(bench, k, lane) for lane in range(LANES)]
        parts = [dut.activations[(k * LANES + lane) * GROUP_BITS :][:GROUP_BITS] for lane in range(LANES)]
        sums.append(pairwise_sum(Mux(dut.enable[k] & bit, part, 0) for bit, part in zip(weights, parts, strict=True)))
    plane_sum = choose(dut.slot, [slot_sum(sums, GROUP_BITS, slot) for slot in SLOTS])
    plane_sum = bench.past(plane_sum, Array.LATENCY)
    bench.implies(bench.after(Array.LATENCY), dut.array.sums[COLUMN] == plane_sum, "plane sum")

    address = bench.any_constant(range(DEPTH), "followed")
    arrives = dut.valid & (dut.address == address)
    for cycles in range(1, Accumulator.HAZARD_CYCLES):
        bench.assume(~(arrives & bench.past(arrives, cycles)))
    controls = (arrives, dut.clears, dut.doubles, dut.subtracts)
    arrived, clears, doubles, subtracts = (bench.past(value, Array.LATENCY) for value in controls)
    accumulator = Signal(signed(ACCUMULATOR_BITS), reset_less=True)
    kept = Mux(clears, Const(0, signed(ACCUMULATOR_BITS)), accumulator)
    updated = [spec.accumulate(kept, plane_sum, bool(case & 1), bool(case & 2)) for case in range(4)]
    with m.If(arrived):
        m.d.sync += accumulator.eq(choose(Cat(doubles, subtracts), updated))

    word = bench.past(accumulator, Accumulator.LATENCY - 1).as_unsigned()
    for copy in ("stored", "drained"):
        stored = bench.stored(f"dut.accumulator.{copy}.store", address)
        bench.check(stored.word_select(COLUMN, ACCUMULATOR_BITS) == word, f"accumulator {copy}")
    read = Value.cast(dut.drain_data).word_select(COLUMN, ACCUMULATOR_BITS)
    reads = dut.drain_read & (dut.drain_address == address)
    latency = Accumulator.DRAIN_LATENCY
    bench.implies(bench.past(reads, latency), read == bench.past(word, latency), "accumulator read by the drain")
    return bench


def follow_weight(bench: Bench, k: int, lane: int) -> Value:
    """Return the weight bit of group ``k`` of a lane that the activations of this cycle meet, as it was written."""
    dut = bench.component
    bit = lane * COLUMNS + COLUMN
    row, place = divmod(bit, PORT_BITS)
    written, at_work = (Signal(name=f"{name}_{k}_{lane}", reset_less=True) for name in ("written", "at_work"))
    met = Mux(dut.swap, written, at_work)
    with bench.m.If(dut.weight_write & dut.weight_groups[k] & (dut.weight_row == row)):
        bench.m.d.sync += written.eq(dut.weight_data[place])
    bench.m.d.sync += at_work.eq(met)
    bench.check(bench.signal(f"dut.array.shadow_{k}")[bit] == written, f"weights written, group {k}")
    bench.check(bench.signal(f"dut.array.active_{k}")[bit] == at_work, f"weights at work, group {k}")
    return met


MUTANTS = (
    Mutant("if bits > self.group_bits << level]", "if bits >= self.group_bits << level]", Array),
    Mutant(
        "weights: list[Value] = [bits[lane * self.columns + index]", "weights: list[Value] = [bits[lane + index]", Array
    ),
    Mutant('"subtracts", self.SUMS_DELAY)', '"subtracts", self.SUMS_DELAY - 1)', Accumulator),
    Mutant(
        'delay(self.address, "address", self.SUMS_DELAY + 1)',
        'delay(self.address, "address", self.SUMS_DELAY)',
        Accumulator,
    ),
)

PROOFS = (
    Proof(
        "serial_array.accumulates_plane_sums",
        "the accumulator of any word is what spec.accumulate makes of integer plane sums, and the drain reads it: "
        f"{LANES} lanes x {COLUMNS} columns, slots of {', '.join(map(str, SLOTS))} bits, every activation, weight, "
        "swap and sequence of words, as near as the hazard allows",
        SerialArray,
        accumulates_plane_sums,
        depth=SerialArray.LATENCY + 1,
        mutants=MUTANTS,
        mutant_depth=SerialArray.LATENCY + 4,
    ),
)
