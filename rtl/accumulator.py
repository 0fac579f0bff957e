"""The accumulator memory: one accumulator for each column and pixel of a strip, updated by one plane sum a cycle."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.checks import check_count, check_power_of_two
from rtl.leaves.accumulate_step import AccumulateStep, Ecp5AccumulateStep
from rtl.leaves.digit_step import DigitStep, Ecp5DigitStep
from rtl.leaves.memory import TwoCycleMemory
from rtl.targets import target_of


class Accumulator(wiring.Component):
    """Read, ``spec.accumulate``, write: C accumulators a cycle, and an independent read for the drain.

    The words are kept twice, once for the accumulation and once for the drain: with at most 512 words on ECP5 that
    takes no more block RAMs than two halves would, no multiplexers, and the drain may read whatever it likes.

    Latency: the ``sums`` of a word are due ``SUMS_DELAY`` cycles after its ``valid`` and the members with it, so that
    they need no registers here. The word may be read by the drain ``LATENCY`` cycles after its sums, and accumulated
    again ``HAZARD_CYCLES`` after it was before. An access nearer than that may meet the older word. Throughput: one
    word and one drain read a cycle.

    Parameters
    ----------
    columns : int
        C, 1 .. 64.
    sum_bits : int
        Width of an unsigned plane sum.
    accumulator_bits : int
        Width of a signed accumulator, more than ``sum_bits``, at most 48. Sums beyond it wrap: the machine refuses
        networks whose bound does not fit.
    depth : int
        Words, a power of two of 2 .. 65536.
    digit_shifts : tuple of int
        With the DSP datapath: the shifts by a digit. The sums are signed then, ``shift`` takes the place of ``doubles``
        and ``subtracts``, and ``spec.accumulate_digit`` that of ``spec.accumulate``.

    Members
    -------
    sums : In(ArrayLayout(sum_bits, C))
        Plane sums of the word that ``valid`` announced ``SUMS_DELAY`` cycles before.
    valid : In(1)
        A word of plane sums is coming; the members down to ``subtracts`` belong to it.
    address : In(range(depth))
    clears : In(1)
        Start from 0 instead of the stored word.
    doubles : In(1)
        Double the stored word first: the first word of a plane.
    subtracts : In(1)
        Subtract the plane sums instead of adding them.
    shift : In(len(digit_shifts))
        Bit i: shift the stored word by ``digit_shifts[i]`` first: the first word of a digit. At most one bit is set.
    drain_address : In(range(depth))
    drain_read : In(1)
    drain_data : Out(ArrayLayout(signed(accumulator_bits), C))
        The word, ``DRAIN_LATENCY`` cycles after ``drain_read``; kept until the next one.
    """

    SUMS_DELAY = TwoCycleMemory.LATENCY + AccumulateStep.SUM_DELAY
    assert AccumulateStep.SUM_DELAY == DigitStep.SUM_DELAY
    LATENCY = 2
    HAZARD_CYCLES = SUMS_DELAY + LATENCY
    DRAIN_LATENCY = TwoCycleMemory.LATENCY

    def __init__(
        self, columns: int, sum_bits: int, accumulator_bits: int, depth: int, digit_shifts: tuple[int, ...] = ()
    ) -> None:
        self.columns = check_count(columns, 1, 64, "columns")
        self.sum_bits = check_count(sum_bits, 1, 32, "sum_bits")
        self.accumulator_bits = check_count(accumulator_bits, self.sum_bits + 1, 48, "accumulator_bits")
        self.depth = check_power_of_two(depth, 2, 65536, "depth of the accumulator")
        self.digit_shifts = digit_shifts
        sum_shape = signed(self.sum_bits) if digit_shifts else unsigned(self.sum_bits)
        controls = {"shift": In(len(digit_shifts))} if digit_shifts else {"doubles": In(1), "subtracts": In(1)}
        super().__init__(
            {
                "sums": In(data.ArrayLayout(sum_shape, self.columns)),
                "valid": In(1),
                "address": In(range(self.depth)),
                "clears": In(1),
                **controls,
                "drain_address": In(range(self.depth)),
                "drain_read": In(1),
                "drain_data": Out(data.ArrayLayout(signed(self.accumulator_bits), self.columns)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        word_bits = self.columns * self.accumulator_bits
        m.submodules.stored = stored = TwoCycleMemory(word_bits, self.depth)
        m.submodules.drained = drained = TwoCycleMemory(word_bits, self.depth)

        def delay(value: Value, name: str, cycles: int, resets: bool = False) -> Value:
            for cycle in range(cycles):
                held = Signal(len(value), name=f"{name}_{cycle + 1}", reset_less=not resets)
                m.d.sync += held.eq(value)
                value = held
            return value

        clears = delay(self.clears, "clears", TwoCycleMemory.LATENCY)
        if self.digit_shifts:
            shift = delay(self.shift, "shift", TwoCycleMemory.LATENCY)
        else:
            doubles = delay(self.doubles, "doubles", TwoCycleMemory.LATENCY)
            subtracts = delay(self.subtracts, "subtracts", self.SUMS_DELAY)
        m.d.comb += [stored.read_address.eq(self.address), stored.read_enable.eq(self.valid)]

        updated = []
        carry_cells = target_of(platform).carry_cells
        for column in range(self.columns):
            step: AccumulateStep | DigitStep
            column_sum = self.sums[column]
            if self.digit_shifts:
                digit_leaf = Ecp5DigitStep if carry_cells else DigitStep
                step = digit_leaf(self.sum_bits, self.accumulator_bits, self.digit_shifts)
                m.d.comb += [step.total.eq(column_sum), step.shift.eq(shift)]
            else:
                leaf = Ecp5AccumulateStep if carry_cells else AccumulateStep
                step = leaf(self.sum_bits, self.accumulator_bits)
                m.d.comb += [
                    step.plane_sum.eq(column_sum),
                    step.doubles.eq(doubles),
                    step.subtracts.eq(subtracts),
                ]
            m.submodules[f"step_{column}"] = step
            m.d.comb += [
                step.old.eq(stored.read_data.word_select(column, self.accumulator_bits)),
                step.clears.eq(clears),
            ]
            updated.append(step.updated)

        write_address = delay(self.address, "address", self.SUMS_DELAY + 1)
        writes = delay(self.valid, "valid", self.SUMS_DELAY + 1, resets=True)
        for copy in (stored, drained):
            m.d.comb += [
                copy.write_address.eq(write_address),
                copy.write_data.eq(Cat(updated)),
                copy.write_enable.eq(writes),
            ]
        m.d.comb += [
            drained.read_address.eq(self.drain_address),
            drained.read_enable.eq(self.drain_read),
            Value.cast(self.drain_data).eq(drained.read_data),
        ]
        return m
