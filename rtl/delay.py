"""Registers that delay a value."""

from amaranth.hdl import Module, Signal, Value


def delay(m: Module, value: Value, cycles: int, name: str, *, reset_less: bool = False) -> Value:
    """Return ``value`` as it was ``cycles`` cycles ago; the registers are called ``<name>_1``, ``<name>_2`` ...

    A reset makes them 0 unless they are ``reset_less``.
    """
    for cycle in range(cycles):
        held = Signal.like(value, name=f"{name}_{cycle + 1}", reset_less=reset_less)
        m.d.sync += held.eq(value)
        value = held
    return value
