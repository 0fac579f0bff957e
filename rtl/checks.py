"""Checks shared by the constructors of the hardware components."""

from __future__ import annotations


def check_count(value: object, low: int, high: int, what: str) -> int:
    """Return ``value`` as an int of ``low .. high``, or raise.

    Raises
    ------
    TypeError
        If ``value`` is not an integer.
    ValueError
        If it is outside ``low .. high``.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{what} must be an integer, not {value!r}")
    number = int(value.__index__())
    if not low <= number <= high:
        raise ValueError(f"{what} must be {low} .. {high}, not {number}")
    return number


def check_power_of_two(value: object, low: int, high: int, what: str) -> int:
    """Return ``value`` as an int that is a power of two of ``low .. high``, or raise like ``check_count``."""
    number = check_count(value, low, high, what)
    if number & (number - 1):
        raise ValueError(f"{what} must be a power of two, not {number}")
    return number
