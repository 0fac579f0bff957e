"""One column of the array, portable: the sum of the activations whose weight bit is one."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.checks import check_power_of_two

LANE_BITS = 8
"""Activation bits that a lane holds."""


def sum_bits(lanes: int, slot_bits_max: int) -> int:
    """Return the bits of the largest plane sum of ``lanes`` lanes whose widest slot has ``slot_bits_max`` bits."""
    return (lanes * (LANE_BITS // slot_bits_max) * ((1 << slot_bits_max) - 1)).bit_length()


def plan_stages(levels: int, stages: int) -> list[int]:
    """Return how many levels of adders each of ``stages`` pipeline stages has: two first, then one, then none."""
    doubled = max(0, levels - stages)
    counts = [2] * doubled + [1] * (levels - 2 * doubled)
    return counts + [0] * (stages - len(counts))


def add_in_pairs(terms: list[Value]) -> list[Value]:
    """Return the sums of neighbouring terms, half as many."""
    return [terms[at] + terms[at + 1] for at in range(0, len(terms), 2)]


class ArrayColumn(wiring.Component):
    """Plane sum of one output channel.

    Group k of a lane adds its g activation bits where its weight bit is one; the sums of the groups are added with the
    shifts of the slots: ``sum over groups k of 2**(g * (k mod (slot / g))) * sum over lanes of weight * activation``.

    Latency: ``LATENCY`` cycles from ``activations``, ``weights`` and ``joins`` to ``total``. Throughput: one word a
    cycle.

    Parameters
    ----------
    lanes : int
        R, a power of two of 2 .. 64.
    group_bits : int
        g: 1, 2, 4 or 8.
    slot_bits_max : int
        Widest slot, at least g.

    Members
    -------
    activations : In(8 R)
        Group-major: bits ``k * R * g + lane * g ..`` are group k of the lane.
    weights : In(8 R / g)
        Bit ``k * R + lane``.
    joins : In(max(1, log2(slot_bits_max / g)))
        Bit i: the slot has more than ``g * 2**i`` bits.
    total : Out(sum_bits(lanes, slot_bits_max))
    """

    LATENCY = 8

    def __init__(self, lanes: int, group_bits: int, slot_bits_max: int) -> None:
        self.lanes = check_power_of_two(lanes, 2, 64, "lanes of a column")
        self.group_bits = check_power_of_two(group_bits, 1, LANE_BITS, "group_bits")
        self.slot_bits_max = check_power_of_two(slot_bits_max, self.group_bits, LANE_BITS, "slot_bits_max")
        self.groups = LANE_BITS // self.group_bits
        self.join_levels = (self.slot_bits_max // self.group_bits).bit_length() - 1
        self.sum_bits = sum_bits(self.lanes, self.slot_bits_max)
        super().__init__(
            {
                "activations": In(LANE_BITS * self.lanes),
                "weights": In(self.groups * self.lanes),
                "joins": In(max(1, self.join_levels)),
                "total": Out(self.sum_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()

        def register(value: Value, name: str) -> Signal:
            held = Signal(len(value), name=name, reset_less=True)
            m.d.sync += held.eq(value)
            return held

        lane_levels = self.lanes.bit_length() - 1
        levels = lane_levels + self.groups.bit_length() - 1
        stages = plan_stages(levels, self.LATENCY)

        groups: list[list[Value]] = []
        width = self.group_bits
        for k in range(self.groups):
            bits = self.activations[k * self.lanes * width : (k + 1) * self.lanes * width]
            chosen = self.weights[k * self.lanes : (k + 1) * self.lanes]
            groups.append([bits[lane * width :][:width] & chosen[lane].replicate(width) for lane in range(self.lanes)])

        joins: Value = self.joins
        shift = self.group_bits
        level = 0
        for stage, count in enumerate(stages):
            for _ in range(count):
                if level < lane_levels:
                    groups = [add_in_pairs(terms) for terms in groups]
                else:
                    at = level - lane_levels
                    pairs = [(groups[k][0], groups[k + 1][0]) for k in range(0, len(groups), 2)]
                    groups = [
                        [low + (Mux(joins[at], high << shift, high) if at < self.join_levels else high)]
                        for low, high in pairs
                    ]
                    shift *= 2
                level += 1
            groups = [
                [register(term, f"sum_{stage}_{k}_{index}") for index, term in enumerate(terms)]
                for k, terms in enumerate(groups)
            ]
            joins = register(joins, f"joins_{stage}")
        m.d.comb += self.total.eq(groups[0][0])
        return m
