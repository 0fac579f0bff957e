"""One column of the array in ECP5's carry cells."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, Value

from rtl.leaves import bit_heap
from rtl.leaves.array_column import ArrayColumn, plan_stages
from rtl.leaves.carry_chain import CUT, PRODUCT, PRODUCTS, SEPARATOR, Position, build_chain, chosen

CHAIN_POSITIONS_MAX = 16
"""A chain costs a cell or two more than its adders. Timing analysis does not know that separators stop a carry, so a
long chain looks slow."""

Bit = tuple[Value, Value | None]
"""A bit, or a product of two bits that no cell has formed yet."""


class ChainBuilder:
    """Adders of one level, put one after the other into shared carry chains."""

    def __init__(self, m: Module, name: str) -> None:
        self.m, self.name = m, name
        self.positions: list[Position] = []
        self.outputs: list[tuple[Signal, int]] = []
        self.chains = 0
        self.carry: Signal | None = None

    def add(self, takes: Bit | None, columns: list[Position], carry: Signal | None, sums: list[Signal]) -> None:
        """Add one adder: the bit taken as its carry, its columns, the signals for its carry (if shown) and sums."""
        if self.positions and len(self.positions) + len(columns) + 2 > CHAIN_POSITIONS_MAX:
            self.finish()
        self._separate(takes)
        for position, output in zip(columns, sums, strict=True):
            self.outputs.append((output, len(self.positions)))
            self.positions.append(position)
        self.carry = carry

    def _separate(self, takes: Bit | None) -> None:
        if self.carry is not None:
            self.outputs.append((self.carry, len(self.positions)))
            self.carry = None
        self.positions.append(Position(CUT) if takes is None else Position(SEPARATOR, *takes))

    def finish(self) -> None:
        """Build the chain of the adders so far."""
        if self.carry is not None:
            self._separate(None)
        if self.positions:
            shown = build_chain(self.m, f"{self.name}_{self.chains}", self.positions)
            self.m.d.comb += [output.eq(shown[at]) for output, at in self.outputs]
            self.positions, self.outputs, self.chains = [], [], self.chains + 1


class Ecp5ArrayColumn(ArrayColumn):
    """``ArrayColumn`` in carry cells: two products and their sum in each, and the joins' shifts for nothing.

    The groups are added as ``bit_heap.plan`` has it. Same parameters, members, latency and throughput.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        levels = bit_heap.plan(self.lanes, self.group_bits)
        group_levels = self.groups.bit_length() - 1
        stages = plan_stages(len(levels) + group_levels, self.LATENCY)
        heaps = [self._products(k) for k in range(self.groups)]

        joins: Value = self.joins
        level = 0
        for stage, count in enumerate(stages):
            for _ in range(count):
                chains = ChainBuilder(m, f"level_{level}")
                if level < len(levels):
                    for k in range(self.groups):
                        heaps[k] = self._add(chains, heaps[k], levels[level], f"level_{level}_group_{k}")
                        # Bits of one group stay close together, and so do their adders.
                        chains.finish()
                else:
                    heaps = self._join(chains, heaps, joins, level - len(levels))
                chains.finish()
                level += 1
            for k, heap in enumerate(heaps):
                heaps[k] = [
                    self._register(m, bits, f"stage_{stage}_group_{k}_bit_{at}") for at, bits in enumerate(heap)
                ]
            joins = self._register(m, [(bit, None) for bit in joins], f"stage_{stage}_joins", whole=True)
        m.d.comb += [self.total[at].eq(bits[0][0]) for at, bits in enumerate(heaps[0])]
        return m

    def _products(self, k: int) -> list[list[Bit]]:
        columns = (self.lanes * ((1 << self.group_bits) - 1)).bit_length()
        heap: list[list[Bit]] = [[] for _ in range(columns)]
        for lane in range(self.lanes):
            start = (k * self.lanes + lane) * self.group_bits
            for at in range(self.group_bits):
                heap[at].append((self.activations[start + at], self.weights[k * self.lanes + lane]))
        return heap

    @staticmethod
    def _add(chains: ChainBuilder, heap: list[list[Bit]], level: bit_heap.Level, name: str) -> list[list[Bit]]:
        """Return the heap after the adders of ``level``: sums first, then the bits they left."""
        left = [list(bits) for bits in heap]
        made: list[list[Bit]] = [[] for _ in heap]
        for index, adder in enumerate(level):
            takes = left[adder.column].pop(0) if adder.takes_carry else None
            columns, sums = [], []
            for at, count in enumerate(adder.counts, start=adder.column):
                first = left[at].pop(0)
                if count == 2:
                    columns.append(Position(PRODUCTS, *first, *left[at].pop(0)))
                else:
                    columns.append(Position(PRODUCT, *first))
                sums.append(Signal(name=f"{name}_adder_{index}_{at}"))
                made[at].append((sums[-1], None))
            carry = None
            if adder.shows_carry:
                carry = Signal(name=f"{name}_adder_{index}_carry")
                made[adder.column + len(adder.counts)].append((carry, None))
            chains.add(takes, columns, carry, sums)
        return [new + old for new, old in zip(made, left, strict=True)]

    def _join(self, chains: ChainBuilder, heaps: list[list[list[Bit]]], joins: Value, at: int) -> list[list[list[Bit]]]:
        """Return half as many heaps, of one bit a column: each lower one plus its upper neighbour, shifted or not."""
        shift = self.group_bits << at
        joined = []
        for k in range(0, len(heaps), 2):
            low, high = ([bits[0][0] for bits in heap] for heap in heaps[k : k + 2])
            shifts = at < self.join_levels
            slot_bits = min(2 * shift, self.slot_bits_max)
            largest = self.lanes * (2 * shift // slot_bits) * ((1 << slot_bits) - 1)
            columns, sums = [], []
            for bit in range(largest.bit_length()):
                augend = low[bit] if bit < len(low) else None
                straight = high[bit] if bit < len(high) else None
                shifted = high[bit - shift] if shifts and 0 <= bit - shift < len(high) else None
                select: Value | None = joins[at] if shifts else None
                if not shifts:
                    # B is tied to one, which selects the operand D.
                    straight, shifted = None, straight
                table = chosen(augend is not None, straight is not None, shifted is not None)
                columns.append(Position(table, augend, select, straight, shifted))
                sums.append(Signal(name=f"join_{at}_{k}_{bit}"))
            chains.add(None, columns, None, sums)
            joined.append([[(bit, None)] for bit in sums])
        return joined

    @staticmethod
    def _register(m: Module, bits: list[Bit], name: str, whole: bool = False):  # type: ignore[no-untyped-def]
        held = Signal(len(bits), name=name, reset_less=True)
        m.d.sync += [held[at].eq(a if b is None else a & b) for at, (a, b) in enumerate(bits)]
        return held if whole else [(held[at], None) for at in range(len(bits))]
