"""Products with constants."""

from amaranth.hdl import Value


def multiple(value: Value, factor: int) -> Value:
    """Return ``value * factor`` in adders: synthesis would take a multiplier, and a slow one without registers."""
    return sum(value << bit for bit in range(factor.bit_length()) if factor >> bit & 1)
