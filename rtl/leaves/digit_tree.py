"""The sum of the lanes' dot products of one column, less what the signed digits were shifted up by."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.checks import check_power_of_two
from rtl.leaves.array_column import add_in_pairs, plan_stages
from rtl.leaves.array_column_ecp5 import ChainBuilder
from rtl.leaves.carry_chain import ADD_OR_SUBTRACT, PRODUCTS, Position
from rtl.leaves.digit_packing import DIGIT_SLOTS, PARITY_BIT, PARITY_SLOT, result_bits, result_max
from rtl.leaves.unshared_register import UnsharedRegister

PARITIES = 0x6996
"""``(A xor B) + (C xor D) + carry``: adds bits and takes parities out of them in the same cell."""


def check_slots(slots: Iterable[int]) -> tuple[int, ...]:
    """Return the slots, widest first; ``ValueError`` if they are not one or more of ``DIGIT_SLOTS``, each once."""
    checked = tuple(slots)
    if not checked or len(set(checked)) != len(checked) or set(checked) - set(DIGIT_SLOTS):
        raise ValueError(f"slots must be one or more of {DIGIT_SLOTS}, each once, not {checked}")
    return tuple(sorted(checked, reverse=True))


def correction_bits(lanes: int, slots: Iterable[int]) -> int:
    """Return the bits of the largest sum of the lanes' dot products; no correction is larger."""
    return (lanes * max(result_max(bits) for bits in slots)).bit_length()


def total_bits(lanes: int, slots: Iterable[int]) -> int:
    """Return the bits of the signed totals of ``lanes`` lanes."""
    return correction_bits(lanes, slots) + 1


class DigitTree(wiring.Component):
    """``total = sum over lanes of the slot's part of the field, its parity taken out, less the correction``.

    The fields are registered first: multipliers lie in few rows of an FPGA, and the way from there is long.

    Latency: ``LATENCY`` cycles from ``fields``, ``parities`` and ``wider`` to ``total``; ``correction`` is due
    ``CORRECTION_DELAY`` cycles after them. Throughput: one a cycle.

    Parameters
    ----------
    lanes : int
        R, a power of two of 2 .. 64.
    slots : iterable of int
        Slots in use, out of 8, 4, 2.

    Members
    -------
    fields : In(field_bits * R)
        Of each lane, the bits of the product from ``RESULT_POSITION`` on: the dot product and, above it, others.
    parities : In(R)
        To be taken out of bit ``PARITY_BIT``; 0 unless the slot is ``PARITY_SLOT``.
    wider : In(max(1, len(slots) - 1))
        Bit i: the slot is wider than the i-th narrowest of ``slots``. The bits beyond a slot's dot product are ignored.
    correction : In(correction_bits)
        Unsigned; subtracted.
    total : Out(signed(sum_bits))
    """

    TREE_STAGES = 3
    CORRECTION_DELAY = 1 + TREE_STAGES
    LATENCY = CORRECTION_DELAY + 1

    def __init__(self, lanes: int, slots: Iterable[int]) -> None:
        self.lanes = check_power_of_two(lanes, 2, 64, "lanes of a column")
        self.slots = check_slots(slots)
        self.field_bits = result_bits(self.slots[0])
        self.correction_bits = correction_bits(self.lanes, self.slots)
        self.sum_bits = total_bits(self.lanes, self.slots)
        super().__init__(
            {
                "fields": In(self.field_bits * self.lanes),
                "parities": In(self.lanes),
                "wider": In(max(1, len(self.slots) - 1)),
                "correction": In(self.correction_bits),
                "total": Out(signed(self.sum_bits)),
            }
        )

    @property
    def levels(self) -> int:
        """Levels of adders before the correction."""
        return self.lanes.bit_length() - 1

    def keeps(self, wider: Value, bit: int) -> Value | None:
        """Return whether ``bit`` of a field counts, ``None`` if it always does."""
        narrower = [at for at, slot in enumerate(reversed(self.slots)) if result_bits(slot) <= bit]
        return wider[max(narrower)] if narrower else None

    def has_parity(self, bit: int) -> bool:
        """Return whether ``bit`` of a field may have to have a parity taken out."""
        return bit == PARITY_BIT and PARITY_SLOT in self.slots

    def registers(self, m: Module) -> tuple[Signal, Signal, Value]:
        """Return fields, parities and ``wider``, one cycle later."""
        fields = register(m, self.fields, "fields_held")
        parities = register(m, self.parities, "parities_held")
        wider = []
        for at, bit in enumerate(self.wider):
            # The trees of all columns wait for the same.
            m.submodules[f"wider_{at}"] = own = UnsharedRegister()
            m.d.comb += own.d.eq(bit)
            wider.append(own.q)
        return fields, parities, Cat(wider)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        held, parities, wider = self.registers(m)
        fields: list[Value] = []
        for lane in range(self.lanes):
            bits = []
            for bit in range(self.field_bits):
                value: Value = held[lane * self.field_bits + bit]
                keeps = self.keeps(wider, bit)
                if self.has_parity(bit):
                    value = value ^ parities[lane]
                elif keeps is not None:
                    value = Mux(keeps, value, 0)
                bits.append(value)
            fields.append(Cat(bits))
        for stage, count in enumerate(plan_stages(self.levels, self.TREE_STAGES)):
            for _ in range(count):
                fields = add_in_pairs(fields)
            fields = [register(m, field, f"sum_{stage}_{index}") for index, field in enumerate(fields)]
        m.d.comb += self.total.eq(register(m, fields[0] - self.correction, "corrected"))
        return m


class Ecp5DigitTree(DigitTree):
    """``DigitTree`` in carry cells, which mask the fields and take the parities out for nothing."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        one = Const(1, 1)
        held, parities, wider = self.registers(m)
        fields = [list(held[lane * self.field_bits :][: self.field_bits]) for lane in range(self.lanes)]
        level = 0
        for stage, count in enumerate(plan_stages(self.levels, self.TREE_STAGES)):
            for _ in range(count):
                added = []
                for index in range(0, len(fields), 2):
                    columns, sums = [], []
                    for bit, (left, right) in enumerate(zip(*fields[index : index + 2], strict=True)):
                        masks: tuple[Value, Value] = (one, one)
                        table = PRODUCTS
                        keeps = self.keeps(wider, bit) if level == 0 else None
                        if level == 0 and self.has_parity(bit):
                            table, masks = PARITIES, (parities[index], parities[index + 1])
                        elif keeps is not None:
                            masks = (keeps, keeps)
                        columns.append(Position(table, left, masks[0], right, masks[1]))
                        sums.append(Signal(name=f"level_{level}_{index}_{bit}"))
                    carry = Signal(name=f"level_{level}_{index}_carry")
                    chain = ChainBuilder(m, f"level_{level}_{index}")
                    chain.add(None, columns, carry, sums)
                    chain.finish()
                    added.append([*sums, carry])
                fields = added
                level += 1
            fields = [list(register(m, Cat(field), f"sum_{stage}_{index}")) for index, field in enumerate(fields)]
        columns, sums = [], []
        for bit in range(self.sum_bits):
            left = fields[0][bit] if bit < len(fields[0]) else Const(0, 1)
            right = self.correction[bit] if bit < self.correction_bits else Const(0, 1)
            columns.append(Position(ADD_OR_SUBTRACT, left, right))
            sums.append(Signal(name=f"corrected_{bit}"))
        chain = ChainBuilder(m, "correction")
        chain.add((one, None), columns, None, sums)
        chain.finish()
        m.d.comb += self.total.eq(register(m, Cat(sums), "corrected"))
        return m


def register(m: Module, value: Value, name: str) -> Signal:
    """Return ``value`` one cycle later."""
    held = Signal(value.shape(), name=name, reset_less=True)
    m.d.sync += held.eq(value)
    return held
