"""ECP5's carry cells: one four-input table and one full adder a position."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from amaranth.hdl import Array, Cat, Const, Instance, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.targets import target_of

PRODUCTS = 0x7888
"""``(A & B) + (C & D) + carry``. An input that is not used is tied to one."""
PRODUCT = 0x8888
"""``(A & B) + carry``, C and D tied to one."""
SEPARATOR = 0x0008
"""Show the carry of the adder below, and start the adder above with carry ``A & B``; C and D tied to one."""
CUT = 0x0000
"""Show the carry of the adder below, and start the adder above without a carry."""
ADD_OR_SUBTRACT = 0x96AA
"""``A + (B xor C) + carry``, D tied to one."""
ADD_SIGN = 0x5A5A
"""``A + C + carry``, which is ``A + (0 xor C) + carry``; B and D tied to one."""


def chosen(has_augend: bool, has_straight: bool, has_shifted: bool) -> int:
    """Return the table of ``A + (D if B else C) + carry``, where an operand that is not there counts as zero.

    The inputs of missing operands are tied to one.
    """
    table = 0
    for index in range(16):
        a, b, c, d = (index >> at & 1 for at in range(4))
        augend = a & has_augend
        addend = d & has_shifted if b else c & has_straight
        # The carry is taken from the lowest four entries when both addends are equal; so it is the augend.
        table |= (augend if index < 4 else augend ^ addend) << index
    return table


@dataclass(frozen=True)
class Position:
    """One position of a chain: its table, and inputs A, B, C, D (``None`` ties one to 1)."""

    table: int
    a: Value | None = None
    b: Value | None = None
    c: Value | None = None
    d: Value | None = None


class CarryChain(wiring.Component):
    """A chain of carry cells.

    Position i shows ``s[i] = table(a, b, c, d) xor carry`` and hands on ``carry`` where the table is one, else entry
    ``(a, b)`` of the table's lowest four entries. Combinational.

    Parameters
    ----------
    tables : iterable of int
        The 16 entries of every position; entry ``a + 2 b + 4 c + 8 d``. The first position must not depend on a
        carry: it is ``SEPARATOR`` or ``CUT``.

    Members
    -------
    a, b, c, d : In(positions)
    s : Out(positions)
    """

    def __init__(self, tables: Iterable[int]) -> None:
        self.tables = tuple(tables)
        if not self.tables or self.tables[0] not in (SEPARATOR, CUT):
            raise ValueError("a carry chain must begin with a separator or a cut")
        count = len(self.tables)
        super().__init__({name: In(count) for name in "abcd"} | {"s": Out(count)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if target_of(platform).carry_cells:
            self._use_cells(m)
            return m
        carry: Value = Const(0, 1)
        for at, table in enumerate(self.tables):
            a, b, c, d = self.a[at], self.b[at], self.c[at], self.d[at]
            propagates, hands_on = Signal(name=f"propagates_{at}"), Signal(name=f"hands_on_{at}")
            entries = Array(Const(table >> index & 1, 1) for index in range(16))
            m.d.comb += [
                propagates.eq(entries[Cat(a, b, c, d)]),
                self.s[at].eq(propagates ^ carry),
                hands_on.eq((propagates & carry) | (~propagates & entries[Cat(a, b, Const(0, 2))])),
            ]
            carry = hands_on
        return m

    def _use_cells(self, m: Module) -> None:
        carry = None
        for at in range(0, len(self.tables), 2):
            ports, parameters = {}, {}
            for half in range(2):
                here = at + half
                exists = here < len(self.tables)
                parameters[f"p_INIT{half}"] = Const(self.tables[here] if exists else CUT, 16)
                parameters[f"p_INJECT1_{half}"] = "NO"
                for name in "abcd":
                    ports[f"i_{name.upper()}{half}"] = getattr(self, name)[here] if exists else Const(1, 1)
                if exists:
                    ports[f"o_S{half}"] = self.s[here]
            if carry is not None:
                ports["i_CIN"] = carry
            if at + 2 < len(self.tables):
                carry = Signal(name=f"carry_{at + 1}")
                ports["o_COUT"] = carry
            m.submodules[f"cell_{at // 2}"] = Instance("CCU2C", **parameters, **ports)


def build_chain(m: Module, name: str, positions: list[Position]) -> Value:
    """Add a chain of ``positions`` to ``m`` as submodule ``name`` and return its ``s``."""
    m.submodules[name] = chain = CarryChain(position.table for position in positions)
    one = Const(1, 1)
    for port in "abcd":
        inputs = [getattr(position, port) for position in positions]
        m.d.comb += getattr(chain, port).eq(Cat(one if value is None else value for value in inputs))
    return chain.s
