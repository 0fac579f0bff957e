"""The array: a weight bit for each column, lane and group, and the plane sums of one activation word a cycle."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.checks import check_count, check_power_of_two
from rtl.leaves.array_column import LANE_BITS, ArrayColumn, sum_bits
from rtl.leaves.array_column_ecp5 import Ecp5ArrayColumn
from rtl.leaves.unshared_register import UnsharedRegister
from rtl.targets import target_of

COLUMNS_PER_WORD = 8
"""Columns that share a register of the activations on ECP5: with more, its way to all of them is the slowest path."""


class Array(wiring.Component):
    """Plane sums of C columns over R lanes: ``sums[c] = sum over lanes and indices of weight bit * activation``.

    A lane holds 8 activation bits as G = 8 / g groups of g bits. A slot of s bits holds one activation: index j of a
    lane occupies groups ``j * s / g .. (j + 1) * s / g - 1``, little end first, so a lane holds ``8 / s`` activations.

    Latency: ``LATENCY`` cycles from ``activations`` to ``sums``. Throughput: one word a cycle.

    Weights are double-buffered. A write in cycle t is in the shadow registers from cycle t + 1. A word presented with
    ``swap`` in cycle t, and all later words, meet the shadow registers as they are in cycle t: writes up to cycle
    t - 1 are in, a write in cycle t itself is not, and belongs to the next swap.

    Parameters
    ----------
    lanes : int
        R, a power of two of 4 .. 64.
    columns : int
        C, 1 .. 64.
    group_bits : int
        g: 1, 2, 4 or 8.
    slots : iterable of int
        Bits of the slots supported, out of 1, 2, 4, 8, each at least g, each once.
    port_bits : int
        W, weight bits written at once; divides ``R * C``.

    Members
    -------
    activations : In(8 R)
        Group-major: bits ``k * R * g + lane * g ..`` are group k of the lane.
    enable : In(G)
        Bit k: group k counts; otherwise it is taken as 0. With ``activations``.
    slot : In(range(len(slots)))
        Index into ``slots``, see ``slot_index``; at least one bit wide. With ``activations``.
    swap : In(1)
        Use the shadow weights from this word on. With ``activations``.
    weight_write : In(1)
    weight_row : In(range(R * C / W))
        At least one bit wide. The weights written are matrix bits ``weight_row * W ..``, where weight bit
        ``lane * C + column`` is that of a lane and column.
    weight_data : In(W)
    weight_groups : In(G)
        Bit k: the weights are written into group k.
    sums : Out(ArrayLayout(sum_bits, C))
        Unsigned plane sums.
    """

    LATENCY = 1 + ArrayColumn.LATENCY

    def __init__(self, lanes: int, columns: int, group_bits: int, slots: Iterable[int], port_bits: int) -> None:
        self.lanes = check_power_of_two(lanes, 4, 64, "lanes")
        self.columns = check_count(columns, 1, 64, "columns")
        self.group_bits = check_power_of_two(group_bits, 1, LANE_BITS, "group_bits")
        self.slots = tuple(check_power_of_two(bits, self.group_bits, LANE_BITS, "a slot") for bits in slots)
        if not self.slots or len(set(self.slots)) != len(self.slots):
            raise ValueError(f"slots must be one or more widths, each once, not {self.slots}")
        self.port_bits = check_count(port_bits, 1, self.lanes * self.columns, "port_bits")
        if self.lanes * self.columns % self.port_bits:
            raise ValueError(f"port_bits must divide {self.lanes} lanes x {self.columns} columns, not be {port_bits}")
        self.groups = LANE_BITS // self.group_bits
        self.rows = self.lanes * self.columns // self.port_bits
        self.sum_bits = sum_bits(self.lanes, max(self.slots))
        super().__init__(
            {
                "activations": In(LANE_BITS * self.lanes),
                "enable": In(self.groups),
                "slot": In(max(1, (len(self.slots) - 1).bit_length())),
                "swap": In(1),
                "weight_write": In(1),
                "weight_row": In(max(1, (self.rows - 1).bit_length())),
                "weight_data": In(self.port_bits),
                "weight_groups": In(self.groups),
                "sums": Out(data.ArrayLayout(unsigned(self.sum_bits), self.columns)),
            }
        )

    def slot_index(self, slot_bits: int) -> int:
        """Return what ``slot`` is for slots of ``slot_bits`` bits; ``ValueError`` if they are not supported."""
        if slot_bits not in self.slots:
            raise ValueError(f"a slot must be one of {self.slots} bits, not {slot_bits}")
        return self.slots.index(slot_bits)

    def elaborate(self, platform: object) -> Module:
        m = Module()

        has_cells = target_of(platform).carry_cells
        words = self._words(m, -(-self.columns // COLUMNS_PER_WORD) if has_cells else 1)
        column_leaf = Ecp5ArrayColumn if has_cells else ArrayColumn
        columns = [column_leaf(self.lanes, self.group_bits, max(self.slots)) for _ in range(self.columns)]
        joins = Signal(len(columns[0].joins))
        for level in range(columns[0].join_levels):
            wider = [index for index, bits in enumerate(self.slots) if bits > self.group_bits << level]
            m.d.sync += joins[level].eq(Cat(self.slot == index for index in wider).any())

        # shadow[k][lane * C + column]
        shadow = [Signal(self.lanes * self.columns, name=f"shadow_{k}", reset_less=True) for k in range(self.groups)]
        active = [Signal(self.lanes * self.columns, name=f"active_{k}", reset_less=True) for k in range(self.groups)]
        for k in range(self.groups):
            for row in range(self.rows):
                with m.If(self.weight_write & self.weight_groups[k] & (self.weight_row == row)):
                    m.d.sync += shadow[k][row * self.port_bits : (row + 1) * self.port_bits].eq(self.weight_data)
            with m.If(self.swap):
                m.d.sync += active[k].eq(shadow[k])

        for index, column in enumerate(columns):
            m.submodules[f"column_{index}"] = column
            weights: list[Value] = [bits[lane * self.columns + index] for bits in active for lane in range(self.lanes)]
            m.d.comb += [
                column.activations.eq(words[index * len(words) // self.columns]),
                column.weights.eq(Cat(weights)),
                column.joins.eq(joins),
                self.sums[index].eq(column.total),
            ]
        return m

    def _words(self, m: Module, count: int) -> list[Value]:
        """Return so many copies of the activations, 0 in the groups that are not enabled, one cycle later."""
        group_size = self.lanes * self.group_bits
        parts = [slice(k * group_size, (k + 1) * group_size) for k in range(self.groups)]
        if count == 1:
            word = Signal(LANE_BITS * self.lanes)
            for k, part in enumerate(parts):
                m.d.sync += word[part].eq(Mux(self.enable[k], self.activations[part], 0))
            return [word]
        words: list[Value] = []
        for copy in range(count):
            held = []
            for k, part in enumerate(parts):
                m.submodules[f"word_{copy}_group_{k}"] = own = UnsharedRegister(group_size)
                m.d.comb += [own.d.eq(self.activations[part]), own.clear.eq(~self.enable[k])]
                held.append(own.q)
            words.append(Cat(held))
        return words
