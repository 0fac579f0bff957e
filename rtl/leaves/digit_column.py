"""One column of the DSP datapath: a multiplier a lane and the sum of what they find."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth.hdl import Cat, Const, Module, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.checks import check_power_of_two
from rtl.leaves.digit_packing import (
    OPERAND_BITS,
    PARITY_PAIRS,
    PARITY_SLOT,
    RESULT_POSITION,
    digit_positions,
    used_positions,
)
from rtl.leaves.digit_tree import DigitTree, Ecp5DigitTree, check_slots, correction_bits, total_bits
from rtl.leaves.multiplier import Ecp5Multiplier, Multiplier
from rtl.targets import target_of


class DigitColumn(wiring.Component):
    """Dot products of one output channel: ``total = sum over lanes of activations . digits - correction``.

    Latency: ``LATENCY`` cycles from ``operands`` and ``swap`` to ``total``. Throughput: one word a cycle.

    Parameters
    ----------
    lanes : int
        R, a power of two of 2 .. 64.
    slots : iterable of int
        Slots in use, out of 8, 4, 2.

    Members
    -------
    operands : In(18 R)
        Of each lane, its activations as ``digit_packing`` places them.
    digits : In(len(used_positions(slots)) * R)
        Of each lane, the bits at ``used_positions``.
    swap : In(1)
        Take ``digits``: they meet the operands of this cycle and of those after it.
    parity_factors : In(2 R)
        Of each lane, the lowest bits of the activations in ``PARITY_PAIRS``, 0 unless the slot is ``PARITY_SLOT``; one
        cycle after its operand.
    wider, correction
        See ``DigitTree``; due ``Multiplier.LATENCY`` cycles after the operands, the correction so many more.
    total : Out(signed(sum_bits))
    """

    LATENCY = Multiplier.LATENCY + DigitTree.LATENCY

    def __init__(self, lanes: int, slots: Iterable[int]) -> None:
        self.lanes = check_power_of_two(lanes, 2, 64, "lanes of a column")
        self.slots = check_slots(slots)
        self.sum_bits = total_bits(self.lanes, self.slots)
        self.positions = used_positions(self.slots)
        super().__init__(
            {
                "operands": In(OPERAND_BITS * self.lanes),
                "digits": In(len(self.positions) * self.lanes),
                "swap": In(1),
                "parity_factors": In(len(PARITY_PAIRS) * self.lanes),
                "wider": In(max(1, len(self.slots) - 1)),
                "correction": In(correction_bits(self.lanes, self.slots)),
                "total": Out(signed(self.sum_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        target = target_of(platform)
        make_tree = Ecp5DigitTree if target.carry_cells else DigitTree
        make_multiplier = Ecp5Multiplier if target.multipliers else Multiplier
        m.submodules.tree = tree = make_tree(self.lanes, self.slots)
        count = len(self.positions)
        for lane in range(self.lanes):
            m.submodules[f"multiplier_{lane}"] = multiplier = make_multiplier()
            digits: list[Value] = [Const(0, 1)] * OPERAND_BITS
            for at, position in enumerate(self.positions):
                digits[position] = self.digits[lane * count + at]
            m.d.comb += [
                multiplier.a.eq(self.operands.word_select(lane, OPERAND_BITS)),
                multiplier.b.eq(Cat(digits)),
                multiplier.load.eq(self.swap),
                tree.fields.word_select(lane, tree.field_bits).eq(multiplier.product[RESULT_POSITION:]),
            ]
            if PARITY_SLOT in self.slots:
                lowest = [digits[digit_positions(PARITY_SLOT)[digit]] for _, digit in PARITY_PAIRS]
                held = Signal(len(PARITY_PAIRS), name=f"lowest_{lane}", reset_less=True)
                parity, parity_held = (Signal(name=f"parity_{lane}_{at}", reset_less=True) for at in range(2))
                factors = self.parity_factors.word_select(lane, len(PARITY_PAIRS))
                with m.If(self.swap):
                    m.d.sync += held.eq(Cat(lowest))
                m.d.sync += [parity.eq((held & factors).xor()), parity_held.eq(parity)]
                m.d.comb += tree.parities[lane].eq(parity_held)
        m.d.comb += [tree.wider.eq(self.wider), tree.correction.eq(self.correction), self.total.eq(tree.total)]
        return m
