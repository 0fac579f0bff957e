"""Loop counters that know their last turn from a register: no comparison stands behind them."""

from amaranth.hdl import Module, Mux, Signal, Value


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

    def set(self, left, is_last):
        """Return the assignments that go to a turn that is given."""
        return [self.left.eq(left), self.is_last.eq(is_last)]

    def begin(self, turns):
        """Return the assignments that begin a loop of so many turns."""
        return self.set(turns, turns == 1)

    def step(self):
        """Return the assignments that go on to the next turn."""
        return self.set(self.left - 1, self.left == 2)


class Loop(Countdown):
    """A loop whose number of turns is kept: the same from a cycle before it begins until it ends.

    Parameters
    ----------
    m : Module
        Keeps a register that tells whether there is only one turn.
    turns : Value
        Unsigned, at least 1.
    name : str
    """

    def __init__(self, m: Module, turns: Value, name: str) -> None:
        super().__init__(len(turns), name)
        self.turns = turns
        self.is_single = Signal(name=f"{name}_is_single")
        m.d.sync += self.is_single.eq(turns == 1)

    def begin(self):
        """Return the assignments that begin the loop."""
        return self.set(self.turns, self.is_single)

    def after(self):
        """Return what follows, as (left, is_last): the next turn, or after the last one the first."""
        return Mux(self.is_last, self.turns, self.left - 1), Mux(self.is_last, self.is_single, self.left == 2)

    def step_or_begin(self):
        """Return the assignments that go on to the next turn, from the last one to the first."""
        return self.set(*self.after())
