"""Rotation of a list of values by a run-time amount, one multiplexer level for each bit of the amount."""

from collections.abc import Sequence

from amaranth.hdl import Mux, Value


def rotate(values: Sequence[Value], amount: Value | None, amount_bits: int, *, backward: bool) -> list[Value]:
    """Return the values with item i taken from item ``(i + amount) % n``, or ``(i - amount) % n`` if backward.

    Parameters
    ----------
    values : sequence of n = 2**amount_bits values
    amount : Value of ``amount_bits`` bits, or None if that is 0
    """
    count = len(values)
    if count != 1 << amount_bits:
        raise ValueError(f"a rotation by {amount_bits} bits takes {1 << amount_bits} values, not {count}")
    rotated = list(values)
    for level in range(amount_bits):
        distance = -(1 << level) if backward else 1 << level
        rotated = [Mux(amount[level], rotated[(index + distance) % count], rotated[index]) for index in range(count)]
    return rotated
