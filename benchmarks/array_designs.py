"""The designs that the array's cost is compared with: fixed widths, and a spatial array in the style of Bit Fusion.

All have double-buffered weight registers behind the same load port, an accumulator memory with its read-modify-write
path, and pipeline registers at every adder or two, as the array has. All compute exact sums of products.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.accumulator import Accumulator
from rtl.array import Array
from rtl.dsp_array import DspArray
from rtl.leaves.array_column import LANE_BITS
from rtl.leaves.memory import TwoCycleMemory

ACCUMULATOR_BITS = 24
ACCUMULATOR_WORDS = 512
WEIGHT_PORT_BITS = 64


class SerialArray(wiring.Component):
    """The array of this project with its accumulator: that of weight planes, or with ``digits`` that of DSP blocks."""

    def __init__(
        self, lanes: int, columns: int, group_bits: int, slots: tuple[int, ...], *, digits: bool = False
    ) -> None:
        kind: type[Array | DspArray] = DspArray if digits else Array
        self.array = kind(lanes, columns, group_bits, slots, WEIGHT_PORT_BITS)
        shifts = tuple(bits for bits in slots if bits < LANE_BITS) if digits else ()
        self.accumulator = Accumulator(columns, self.array.sum_bits, ACCUMULATOR_BITS, ACCUMULATOR_WORDS, shifts)
        members = {name: member for name, member in self.array.signature.members.items() if name != "sums"}
        for name, member in self.accumulator.signature.members.items():
            if name != "sums":
                members[f"accumulator_{name}"] = member
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.array, m.submodules.accumulator = self.array, self.accumulator
        for part, prefix in ((self.array, ""), (self.accumulator, "accumulator_")):
            for name, member in part.signature.members.items():
                if name == "sums":
                    continue
                inner, outer = Value.cast(getattr(part, name)), Value.cast(getattr(self, prefix + name))
                m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
        m.d.comb += self.accumulator.sums.eq(self.array.sums)
        return m


class ParallelArray(wiring.Component):
    """Dot products of whole weights: ``columns`` sums of ``lanes`` products a cycle, accumulated in a memory.

    Subclasses say how the weights and activations of one column become a signed sum.

    Parameters
    ----------
    lanes, columns : int
    weight_bits, activation_bits : int
        Bits of weight register and of activation word a lane.
    """

    def __init__(self, lanes: int, columns: int, weight_bits: int, activation_bits: int) -> None:
        self.lanes, self.columns = lanes, columns
        self.weight_bits, self.activation_bits = weight_bits, activation_bits
        self.rows = lanes * columns * weight_bits // WEIGHT_PORT_BITS
        super().__init__(
            {
                "activations": In(lanes * activation_bits),
                "mode": In(2),
                "swap": In(1),
                "weight_write": In(1),
                "weight_row": In(range(max(2, self.rows))),
                "weight_data": In(WEIGHT_PORT_BITS),
                "accumulator_valid": In(1),
                "accumulator_address": In(range(ACCUMULATOR_WORDS)),
                "accumulator_clears": In(1),
                "accumulator_drain_address": In(range(ACCUMULATOR_WORDS)),
                "accumulator_drain_read": In(1),
                "accumulator_drain_data": Out(columns * ACCUMULATOR_BITS),
            }
        )

    def register(self, m: Module, value: Value, name: str) -> Signal:
        held = Signal(value.shape(), name=name, reset_less=True)
        m.d.sync += held.eq(value)
        return held

    def tree(self, m: Module, terms: list[Value], name: str) -> Value:
        """Return the sum of signed terms, a register after every level of adders."""
        level = 0
        while len(terms) > 1:
            pairs = [sum(terms[at : at + 2][1:], start=terms[at]) for at in range(0, len(terms), 2)]
            terms = [self.register(m, pair, f"{name}_{level}_{at}") for at, pair in enumerate(pairs)]
            level += 1
        return terms[0]

    def column_sum(self, m: Module, column: int, activations: Value, weights: Value, mode: Value) -> Value:
        raise NotImplementedError

    def elaborate(self, platform: object) -> Module:
        m = Module()
        word = self.register(m, self.activations, "word")
        mode = self.register(m, self.mode, "mode_held")
        bits = self.lanes * self.columns * self.weight_bits
        shadow, active = Signal(bits, reset_less=True), Signal(bits, reset_less=True)
        for row in range(self.rows):
            with m.If(self.weight_write & (self.weight_row == row)):
                m.d.sync += shadow[row * WEIGHT_PORT_BITS : (row + 1) * WEIGHT_PORT_BITS].eq(self.weight_data)
        with m.If(self.swap):
            m.d.sync += active.eq(shadow)

        m.submodules.stored = stored = TwoCycleMemory(self.columns * ACCUMULATOR_BITS, ACCUMULATOR_WORDS)
        m.submodules.drained = drained = TwoCycleMemory(self.columns * ACCUMULATOR_BITS, ACCUMULATOR_WORDS)
        address, valid, clears = self.accumulator_address, self.accumulator_valid, self.accumulator_clears
        m.d.comb += [stored.read_address.eq(address), stored.read_enable.eq(valid)]
        for cycle in range(4):
            address = self.register(m, address, f"address_{cycle}")
            valid = self.register(m, valid, f"valid_{cycle}")
            if cycle < 2:
                clears = self.register(m, clears, f"clears_{cycle}")
        updated = []
        share = self.lanes * self.weight_bits
        for column in range(self.columns):
            total = self.column_sum(m, column, word, active[column * share : (column + 1) * share], mode)
            old = stored.read_data.word_select(column, ACCUMULATOR_BITS).as_signed()
            kept = self.register(m, Mux(clears, 0, old), f"kept_{column}")
            updated.append(self.register(m, (kept + total)[:ACCUMULATOR_BITS], f"updated_{column}"))
        for copy in (stored, drained):
            m.d.comb += [copy.write_address.eq(address), copy.write_data.eq(Cat(updated)), copy.write_enable.eq(valid)]
        m.d.comb += [
            drained.read_address.eq(self.accumulator_drain_address),
            drained.read_enable.eq(self.accumulator_drain_read),
            self.accumulator_drain_data.eq(drained.read_data),
        ]
        return m


class FixedArray(ParallelArray):
    """Unsigned activations times signed weights of one width, written as ``*``."""

    def column_sum(self, m: Module, column: int, activations: Value, weights: Value, mode: Value) -> Value:
        products = [
            self.register(
                m,
                activations.word_select(lane, self.activation_bits)
                * weights.word_select(lane, self.weight_bits).as_signed(),
                f"product_{column}_{lane}",
            )
            for lane in range(self.lanes)
        ]
        return self.tree(m, products, f"tree_{column}")


class FusionArray(ParallelArray):
    """A spatial array in the style of Bit Fusion (ISCA 2018), each lane a fusion unit of 16 two-bit bricks.

    A lane does one 8 x 8 product (mode 2), four 4 x 4 (mode 1) or sixteen 2 x 2 (mode 0). Brick (i, j) holds bits of a
    weight that are written in place, so a narrow mode needs no multiplexers for them, and its activation word is
    shared by the columns. Bricks are added in fours, then the fours, with shifts that follow the mode.
    """

    def __init__(self, lanes: int, columns: int) -> None:
        super().__init__(lanes, columns, 32, 32)

    def column_sum(self, m: Module, column: int, activations: Value, weights: Value, mode: Value) -> Value:
        fused8, fused4 = mode == 2, mode >= 1
        totals = []
        for lane in range(self.lanes):
            name = f"{column}_{lane}"
            a, w = activations.word_select(lane, 32), weights.word_select(lane, 32)
            fours = []
            for block_i in range(2):
                for block_j in range(2):
                    bricks = []
                    for i in range(2):
                        for j in range(2):
                            at = (block_i * 2 + block_j) * 4 + i * 2 + j
                            # The top bits of a weight are signed: always at 2 bits, else in the upper brick, and at 8
                            # bits in the upper block only.
                            negative = ~fused4 if j == 0 else (~fused8 if block_j == 0 else 1)
                            low, high = w[2 * at], w[2 * at + 1]
                            weight = Cat(low, high, high & negative).as_signed()
                            bricks.append(a.word_select(at, 2) * weight)
                    held = [
                        self.register(m, brick, f"brick_{name}_{block_i}{block_j}_{k}")
                        for k, brick in enumerate(bricks)
                    ]
                    low = held[0] + Mux(fused4, held[1] << 2, held[1])
                    high = held[2] + Mux(fused4, held[3] << 2, held[3])
                    pair = [
                        self.register(m, one, f"pair_{name}_{block_i}{block_j}_{k}")
                        for k, one in enumerate((low, high))
                    ]
                    fours.append(
                        self.register(
                            m, pair[0] + Mux(fused4, pair[1] << 2, pair[1]), f"four_{name}_{block_i}{block_j}"
                        )
                    )
            low = fours[0] + Mux(fused8, fours[1] << 4, fours[1])
            high = fours[2] + Mux(fused8, fours[3] << 4, fours[3])
            pair = [self.register(m, one, f"half_{name}_{k}") for k, one in enumerate((low, high))]
            totals.append(self.register(m, pair[0] + Mux(fused8, pair[1] << 4, pair[1]), f"unit_{name}"))
        return self.tree(m, totals, f"tree_{column}")
