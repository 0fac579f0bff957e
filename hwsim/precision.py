"""Widths: the set of widths a network is trained for, and the catalog of named sets that every test iterates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hwsim import spec


def check_bits(bits: object, what: str) -> int:
    """Return ``bits`` as an int, or raise if it is not a width of 1 .. 8.

    Raises
    ------
    TypeError
        If ``bits`` is not an integer.
    ValueError
        If ``bits`` is outside 1 .. 8.
    """
    if isinstance(bits, bool) or not hasattr(bits, "__index__"):
        raise TypeError(f"{what} must be an integer number of bits, not {bits!r}")
    value = int(bits.__index__())
    if not 1 <= value <= spec.MAX_BITS:
        raise ValueError(f"{what} must be 1 .. {spec.MAX_BITS} bits, not {value}")
    return value


@dataclass(frozen=True)
class WidthSet:
    """The widths one network can run at, in descending order.

    Parameters
    ----------
    widths : tuple of int
        Distinct widths of 1 .. 8 bits, in any order; kept in descending order.

    Raises
    ------
    TypeError, ValueError
        If a width is no integer of 1 .. 8, if the set is empty or names a width twice.
    """

    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.widths, Iterable):
            raise TypeError(f"a width set must be made of several widths, not {self.widths!r}")
        widths = tuple(check_bits(bits, "a width") for bits in self.widths)
        if not widths:
            raise ValueError("a width set must name at least one width")
        for bits in widths:
            if widths.count(bits) > 1:
                raise ValueError(f"a width set must name each width once, not {bits} {widths.count(bits)} times")
        object.__setattr__(self, "widths", tuple(sorted(widths, reverse=True)))

    @classmethod
    def parse(cls, text: str) -> WidthSet:
        """Return the set written as ``"8,6,4,2"``.

        Raises
        ------
        ValueError
            If the text is no comma-separated list of distinct widths.
        """
        try:
            widths = tuple(int(part) for part in text.split(","))
        except ValueError:
            raise ValueError(f"widths must be written like 8,6,4,2, not {text!r}") from None
        return cls(widths)

    @property
    def highest(self) -> int:
        """Width of the stored codes of every layer but the first and the last."""
        return self.widths[0]

    @property
    def smallest_slot_bits(self) -> int:
        """g: the smallest slot that an activation of these widths occupies."""
        return int(min(spec.slot_bits(bits) for bits in self.widths))

    def require(self, bits: int, what: str) -> None:
        """Raise ``ValueError`` unless ``bits`` is in the set."""
        if bits not in self.widths:
            raise ValueError(f"{what} must be one of {self}, not {bits}")

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.widths)

    def __contains__(self, bits: object) -> bool:
        return bits in self.widths

    def __len__(self) -> int:
        return len(self.widths)

    def __str__(self) -> str:
        return "{" + ", ".join(str(bits) for bits in self.widths) + "}"


CATALOG: dict[str, WidthSet] = {
    "8-6-4-2": WidthSet((8, 6, 4, 2)),
    "8-4-2": WidthSet((8, 4, 2)),
    "4-3-2": WidthSet((4, 3, 2)),
    "8-4": WidthSet((8, 4)),
    "8": WidthSet((8,)),
}
"""Named width sets. A new one is one line here, and every test iterates them."""
