"""A loop counter that knows its last turn from a register: no comparison stands behind it."""

from amaranth.hdl import Mux, Signal


class Countdown:
    """The turns left of a loop, and whether this one is the last.

    Parameters
    ----------
    bits : int
        Width of the number of turns, which is at least 1.
    name : str
        Of the registers: ``<name>_left`` and ``<name>_is_last``.

    Attributes
    ----------
    left : Signal(bits)
        All turns in the first one, 1 in the last.
    is_last : Signal(1)
        ``left`` is 1.
    """

    def __init__(self, bits: int, name: str) -> None:
        self.left = Signal(bits, name=f"{name}_left")
        self.is_last = Signal(name=f"{name}_is_last")

    def begin(self, turns):
        """Return the assignments that begin a loop of so many turns."""
        return [self.left.eq(turns), self.is_last.eq(turns == 1)]

    def step(self):
        """Return the assignments that go on to the next turn."""
        return [self.left.eq(self.left - 1), self.is_last.eq(self.left == 2)]

    def after(self, turns):
        """Return what follows: the next turn, or after the last one the first of ``turns``, as (left, is_last)."""
        return Mux(self.is_last, turns, self.left - 1), Mux(self.is_last, turns == 1, self.left == 2)

    def set(self, left, is_last):
        """Return the assignments that go to a turn that is given."""
        return [self.left.eq(left), self.is_last.eq(is_last)]

    def step_or_begin(self, turns):
        """Return the assignments that go on to the next turn, from the last one to the first."""
        return self.set(*self.after(turns))
