"""The DSP datapath's array: a multiplier for each column and lane, and whole digits of the weights in every cycle."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.checks import check_count, check_power_of_two
from rtl.delay import delay
from rtl.leaves.array_column import LANE_BITS, ArrayColumn
from rtl.leaves.array_column_ecp5 import Ecp5ArrayColumn
from rtl.leaves.digit_column import DigitColumn
from rtl.leaves.digit_packing import (
    OPERAND_BITS,
    PARITY_PAIRS,
    PARITY_SLOT,
    activation_positions,
    digit_positions,
    used_positions,
)
from rtl.leaves.digit_tree import DigitTree, check_slots, correction_bits, register, total_bits
from rtl.leaves.multiplier import Multiplier
from rtl.leaves.unshared_register import UnsharedRegister
from rtl.targets import target_of


class ActivationSum(ArrayColumn):
    """The sum of all activations of a word: a column whose weights are all one, in fewer cycles."""

    LATENCY = 6


class Ecp5ActivationSum(Ecp5ArrayColumn):
    """``ActivationSum`` in carry cells."""

    LATENCY = ActivationSum.LATENCY


class DspArray(wiring.Component):
    """Digit sums of C columns over R lanes: ``sums[c] = sum over lanes and indices of weight digit * activation``.

    A *digit* of a slot's width s is s planes of the weights, or fewer: what is not written is 0. A lane's ``8 / s``
    activations meet as many digits in one multiplication (``rtl.leaves.digit_packing``): 1, 2 or 4 products in each
    multiplier and cycle at slots of 8, 4 or 2 bits, all exact. Digits are unsigned. A signed one of n planes is written
    with its top plane inverted, which adds ``2**(n - 1)``, and ``signed_planes`` = n subtracts ``2**(n - 1)`` times the
    sum of the activations again; that sum is made once for all columns.

    Throughput: one word a cycle, ``LATENCY`` cycles from ``activations`` to ``sums``. The weights are double-buffered
    and written as in ``Array``, but for the members below; those at work lie in the multipliers' own registers.

    On ECP5, with its accumulators, it takes about 33, 16 and 8 LUTs per MAC and cycle at 8, 4 and 2 bits where
    ``Array`` takes about 125, 31 and 8 (``benchmarks/array_cost.py``): ``Array`` is the wrong choice where multipliers
    are idle and weights have 4 bits or more, this one where most of the work is at 2 bits or the multipliers are wanted
    elsewhere. A clock that nextpnr reports is the fabric's: its timing has no arcs for the stages inside a multiplier.

    Parameters
    ----------
    lanes : int
        R, a power of two of 4 .. 64.
    columns : int
        C, 1 .. 64.
    group_bits : int
        g: 2, 4 or 8.
    slots : iterable of int
        Bits of the slots supported, out of 2, 4, 8, each at least g, each once.
    port_bits : int
        W, weight bits written at once; divides ``R * C``.

    Members
    -------
    activations, enable, slot, swap, weight_write, weight_row, weight_data
        See ``Array``.
    weight_groups : In(G)
        Bit k: the weights are written for the activation in group k; all groups of its slot alike.
    weight_slot : In
        As ``slot``: where the digits' bits belong.
    weight_bit : In(range(8))
        Which bit of the digits is written.
    weight_clear : In(1)
        All shadow weights become 0. A write in the same cycle is lost.
    signed_planes : In(range(9))
        n if the digits at work are signed ones of n planes, 0 if they are unsigned. With ``activations``.
    sums : Out(ArrayLayout(signed(sum_bits), C))
    """

    PLACING_CYCLES = 2
    """From activations to operands."""

    LATENCY = PLACING_CYCLES + DigitColumn.LATENCY

    def __init__(self, lanes: int, columns: int, group_bits: int, slots: Iterable[int], port_bits: int) -> None:
        self.lanes = check_power_of_two(lanes, 4, 64, "lanes")
        self.columns = check_count(columns, 1, 64, "columns")
        self.group_bits = check_power_of_two(group_bits, 2, LANE_BITS, "group_bits")
        self.slots = tuple(check_power_of_two(bits, self.group_bits, LANE_BITS, "a slot") for bits in slots)
        check_slots(self.slots)
        self.port_bits = check_count(port_bits, 1, self.lanes * self.columns, "port_bits")
        if self.lanes * self.columns % self.port_bits:
            raise ValueError(f"port_bits must divide {self.lanes} lanes x {self.columns} columns, not be {port_bits}")
        self.groups = LANE_BITS // self.group_bits
        self.rows = self.lanes * self.columns // self.port_bits
        self.sum_bits = total_bits(self.lanes, self.slots)
        slot_shape = max(1, (len(self.slots) - 1).bit_length())
        super().__init__(
            {
                "activations": In(LANE_BITS * self.lanes),
                "enable": In(self.groups),
                "slot": In(slot_shape),
                "swap": In(1),
                "signed_planes": In(range(LANE_BITS + 1)),
                "weight_write": In(1),
                "weight_row": In(max(1, (self.rows - 1).bit_length())),
                "weight_data": In(self.port_bits),
                "weight_groups": In(self.groups),
                "weight_slot": In(slot_shape),
                "weight_bit": In(range(LANE_BITS)),
                "weight_clear": In(1),
                "sums": Out(data.ArrayLayout(signed(self.sum_bits), self.columns)),
            }
        )

    def slot_index(self, slot_bits: int) -> int:
        """Return what ``slot`` is for slots of ``slot_bits`` bits; ``ValueError`` if they are not supported."""
        if slot_bits not in self.slots:
            raise ValueError(f"a slot must be one of {self.slots} bits, not {slot_bits}")
        return self.slots.index(slot_bits)

    def elaborate(self, platform: object) -> Module:
        what = f"{self.lanes} lanes x {self.columns} columns"
        target_of(platform).require_multipliers(self.lanes * self.columns, what)
        m = Module()
        word = Signal(LANE_BITS * self.lanes, reset_less=True)
        group_size = self.lanes * self.group_bits
        for k in range(self.groups):
            part = slice(k * group_size, (k + 1) * group_size)
            m.d.sync += word[part].eq(Mux(self.enable[k], self.activations[part], 0))
        is_slot = {bits: register(m, self.slot == index, f"is_slot_{bits}") for index, bits in enumerate(self.slots)}

        operands, factors = self._operands(m, word, is_slot)
        correction = self._correction(m, word, is_slot, platform)
        swap = delay(m, self.swap, self.PLACING_CYCLES - 1, "swap")
        narrowest_first = sorted(self.slots)
        wider = Signal(max(1, len(self.slots) - 1))
        for at in range(len(self.slots) - 1):
            m.d.comb += wider[at].eq(Cat(is_slot[bits] for bits in narrowest_first[at + 1 :]).any())
        wider = delay(m, wider, self.PLACING_CYCLES - 1 + Multiplier.LATENCY, "wider")

        shadow = self._shadow(m)
        for index in range(self.columns):
            m.submodules[f"column_{index}"] = column = DigitColumn(self.lanes, self.slots)
            # One register for all multipliers would be the slowest path of the array.
            m.submodules[f"swap_{index}"] = own_swap = UnsharedRegister()
            m.d.comb += [
                own_swap.d.eq(swap),
                column.operands.eq(operands),
                column.digits.eq(
                    Cat(
                        shadow[position][lane * self.columns + index]
                        for lane in range(self.lanes)
                        for position in shadow
                    )
                ),
                column.swap.eq(own_swap.q),
                column.parity_factors.eq(factors),
                column.wider.eq(wider),
                column.correction.eq(correction),
                self.sums[index].eq(column.total),
            ]
        return m

    def _operands(self, m: Module, word: Signal, is_slot: dict[int, Signal]) -> tuple[Value, Value]:
        """Return the lanes' operands, and the parities' factors one cycle later."""
        operands: list[Value] = []
        factors: list[Value] = []
        takes_parity = register(m, is_slot.get(PARITY_SLOT, Const(0, 1)), "takes_parity")
        for lane in range(self.lanes):
            lane_bits = Cat(
                word[(k * self.lanes + lane) * self.group_bits :][: self.group_bits] for k in range(self.groups)
            )
            placed: list[Value] = [Const(0, 1)] * OPERAND_BITS
            for bits, chosen in is_slot.items():
                for index, position in enumerate(activation_positions(bits)):
                    for bit in range(bits):
                        placed[position + bit] = placed[position + bit] | (lane_bits[index * bits + bit] & chosen)
            operand = register(m, Cat(placed), f"operand_{lane}")
            operands.append(operand)
            lowest = Cat(operand[activation_positions(PARITY_SLOT)[index]] & takes_parity for index, _ in PARITY_PAIRS)
            factors.append(register(m, lowest, f"factors_{lane}"))
        return Cat(operands), Cat(factors)

    def _correction(self, m: Module, word: Signal, is_slot: dict[int, Signal], platform: object) -> Value:
        """Return ``2**(n - 1)`` times the sum of the activations, or 0, when the columns' trees are due for it."""
        leaf = Ecp5ActivationSum if target_of(platform).carry_cells else ActivationSum
        m.submodules.activation_sum = total = leaf(self.lanes, self.group_bits, max(self.slots))
        joins = [
            Cat(chosen for bits, chosen in is_slot.items() if bits > self.group_bits << level).any()
            for level in range(total.join_levels)
        ]
        m.d.comb += [total.activations.eq(word), total.weights.eq(~0), total.joins.eq(Cat(joins))]
        planes = delay(m, self.signed_planes, 1 + total.LATENCY, "signed_planes")
        correction = Signal(correction_bits(self.lanes, self.slots), reset_less=True)
        m.d.sync += correction.eq(0)
        with m.Switch(planes):
            for count in range(1, max(self.slots) + 1):
                with m.Case(count):
                    m.d.sync += correction.eq(total.total << (count - 1))
        due = self.PLACING_CYCLES + Multiplier.LATENCY + DigitTree.CORRECTION_DELAY
        return delay(m, correction, due - (2 + total.LATENCY), "correction")

    def _shadow(self, m: Module) -> dict[int, Signal]:
        """Return the shadow weights, ``[position][lane * C + column]``.

        A bit of the port only ever goes to registers of its own lane and column; which of them takes it is a matter of
        clock enables, and zeros come from their resets: no LUTs but the decoder's.
        """
        positions = used_positions(self.slots)
        takes: dict[int, Value] = {position: Const(0, 1) for position in positions}
        for slot, bits in enumerate(self.slots):
            for index, first in enumerate(digit_positions(bits)):
                chosen = (self.weight_slot == slot) & self.weight_groups[index * bits // self.group_bits]
                for bit in range(bits):
                    takes[first + bit] = takes[first + bit] | (chosen & (self.weight_bit == bit))
        # As late as the operands, so that a word with ``swap`` still meets all writes before it.
        rows = [register(m, self.weight_write & (self.weight_row == row), f"row_{row}") for row in range(self.rows)]
        held = {position: register(m, taken, f"takes_{position}") for position, taken in takes.items()}
        weight_data = delay(m, self.weight_data, 2, "weight_data")
        clear = delay(m, self.weight_clear, 2, "weight_clear")
        shadow = {
            position: Signal(self.lanes * self.columns, name=f"shadow_{position}", reset_less=True)
            for position in positions
        }
        for position, weights in shadow.items():
            for row in range(self.rows):
                enable = register(m, rows[row] & held[position], f"enable_{position}_{row}")
                part = weights[row * self.port_bits : (row + 1) * self.port_bits]
                with m.If(clear):
                    m.d.sync += part.eq(0)
                with m.Elif(enable):
                    m.d.sync += part.eq(weight_data)
        return shadow
