"""Proofs of the rotation: there and back is the identity, and every unit meets the lane position it belongs to."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl import rotate as rotation
from rtl.proofs.bench import Bench
from rtl.proofs.proof import Mutant, Proof

AMOUNT_BITS = 3
ITEM_BITS = 2


class Rotation(wiring.Component):
    """``rtl.rotate.rotate`` of 2**amount_bits items by the same amount both ways, one after the other too."""

    def __init__(self, rotate=rotation.rotate, amount_bits=AMOUNT_BITS):
        self.rotate = rotate
        self.amount_bits = amount_bits
        items = data.ArrayLayout(ITEM_BITS, 1 << amount_bits)
        super().__init__(
            {
                "items": In(items),
                "amount": In(max(1, amount_bits)),
                "forward": Out(items),
                "backward": Out(items),
                "restored": Out(items),
            }
        )

    def elaborate(self, platform):
        m = Module()
        items = list(self.items)
        forward = self.rotate(items, self.amount, self.amount_bits, backward=False)
        kept = Signal.like(self.forward.as_value())
        m.d.comb += [
            kept.eq(Cat(forward)),
            self.forward.eq(kept),
            self.backward.eq(Cat(self.rotate(items, self.amount, self.amount_bits, backward=True))),
            self.restored.eq(Cat(self.rotate(list(self.forward), self.amount, self.amount_bits, backward=True))),
        ]
        return m


def rotates(rotate):
    bench = Bench(Rotation(rotate))
    dut = bench.component
    count = 1 << AMOUNT_BITS
    for amount in range(count):
        for index in range(count):
            at = f"item {index} by {amount}"
            here = dut.amount == amount
            bench.implies(here, dut.forward[index] == dut.items[(index + amount) % count], f"forward, {at}")
            bench.implies(here, dut.backward[index] == dut.items[(index - amount) % count], f"backward, {at}")
    bench.check(dut.restored == dut.items, "forward, then backward")
    return bench


PROOFS = (
    Proof(
        "rotate.moves_every_item",
        f"rotating {1 << AMOUNT_BITS} items by any amount moves item i + amount to i, or backward i - amount to i, and "
        "one after the other is the identity: every item and amount",
        rotation.rotate,
        rotates,
        depth=1,
        mutants=(
            Mutant("if backward else", "if not backward else"),
            Mutant("(index + distance) % count", "(index + 2 * distance) % count"),
        ),
    ),
)
