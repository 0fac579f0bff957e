"""What a proof is stated in: a component, its inputs free, its registers in reach, and assertions beside it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, Cat, Const, Fragment, Module, ResetSignal, Signal, Value, ValueLike, unsigned
from amaranth.hdl._ast import Assign, Slice, Statement, Switch, _StatementList
from amaranth.hdl._mem import MemoryInstance
from amaranth.lib import wiring

from rtl.conversion import without_garbage_collector
from rtl.targets import PORTABLE, Target


class Bench:
    """A top around components under proof. Whatever nothing drives is an input that may take any value in any cycle.

    The reset is such an input too, unless ``resets`` is false: then it never comes after power-up, which leaves every
    register at its reset value.

    Parameters
    ----------
    component : wiring.Component
    target : Target
        What it is elaborated for.
    resets : bool
    """

    def __init__(self, component: wiring.Component, *, target: Target = PORTABLE, resets: bool = True) -> None:
        self.m = Module()
        self.fragments: dict[str, Fragment] = {}
        self.locals: dict[int, dict[str, object]] = {}
        self.inputs: dict[str, Signal] = {}
        self.component = component
        self.add("dut", component, target)
        for path, member, value in component.signature.flatten(component):
            if member.flow == wiring.In:
                self._expose(Value.cast(value), "__".join(map(str, path)))
        if not resets:
            self.assume(~ResetSignal())

    def add(self, name: str, component: wiring.Component, target: Target = PORTABLE) -> None:
        """Put ``component`` beside the one under proof. Its inputs are the caller's to drive."""
        with locals_of("elaborate") as found:
            self.fragments[name] = Fragment.get(component, target)
        self.locals.update(found)
        self.m.submodules[name] = self.fragments[name]

    def _expose(self, signal: Value, name: str) -> Signal:
        assert isinstance(signal, Signal), f"{name} is not a signal"
        self.inputs[name] = signal
        return signal

    def any_value(self, shape: object, name: str) -> Signal:
        """Return a signal that may take any value in any cycle."""
        return self._expose(Signal(shape, name=name), name)

    def any_constant(self, shape: object, name: str) -> Signal:
        """Return a signal that may have any value, and keeps it."""
        signal = self.any_value(shape, name)
        self.assume_constant(signal)
        return signal

    def assume_constant(self, value: ValueLike) -> None:
        """Assume that ``value`` never changes."""
        value = Value.cast(value)
        self.assume(~self.after(1, resets=False) | (self.past(value) == value))

    def past(self, value: ValueLike, cycles: int = 1) -> Value:
        """Return ``value`` as it was ``cycles`` cycles ago; zeros before. A reset does not touch it."""
        value = Value.cast(value)
        for _ in range(cycles):
            held = Signal(value.shape(), name="past", reset_less=True)
            self.m.d.sync += held.eq(value)
            value = held
        return value

    def past_reset(self, value: ValueLike, cycles: int) -> Value:
        """Return ``value`` as it was ``cycles`` cycles ago; zeros before, and after a reset."""
        value = Value.cast(value)
        for _ in range(cycles):
            held = Signal(value.shape(), name="past_reset")
            self.m.d.sync += held.eq(value)
            value = held
        return value

    def after(self, cycles: int, *, resets: bool = True) -> Value:
        """Return whether at least ``cycles`` cycles have passed since power-up or reset."""
        age = Signal(range(cycles + 1), name="age", reset_less=not resets)
        with self.m.If(age != cycles):
            self.m.d.sync += age.eq(age + 1)
        return age == cycles

    def check(self, condition: ValueLike, message: str) -> None:
        """Assert ``condition`` in every cycle."""
        self.m.d.comb += Assert(condition, message)

    def assume(self, condition: ValueLike) -> None:
        """Assume ``condition`` in every cycle: what the unit may expect of its surroundings."""
        self.m.d.comb += Assume(condition)

    def implies(self, condition: ValueLike, conclusion: ValueLike, message: str) -> None:
        """Assert ``conclusion`` in every cycle in which ``condition`` holds."""
        self.check(~Value.cast(condition).bool() | Value.cast(conclusion).bool(), message)

    def internal(self, path: str) -> Value:
        """Return a signal inside a component: submodules and its name, with dots, as ``dut.loader.used``.

        The name is that of the variable in ``elaborate``, or the signal's own.
        """
        *modules, name = path.split(".")
        fragment = self._fragment(modules)
        for origin in fragment.origins or ():
            value = self.locals.get(id(origin), {}).get(name)
            if isinstance(value, Value):
                return value
        return self.signal(path)

    def signal(self, path: str) -> Signal:
        """Return the signal of that own name inside a component."""
        *modules, name = path.split(".")
        found = {id(signal): signal for signal in signals_of(self._fragment(modules)) if signal.name == name}
        if len(found) != 1:
            raise ValueError(f"{path} must be one signal, not {len(found)}")
        return next(iter(found.values()))

    def part(self, path: str) -> Any:
        """Return the component at ``path``."""
        return next(origin for origin in self._fragment(path.split(".")).origins or () if hasattr(origin, "signature"))

    def view(self, path: str) -> Any:
        """Return the structure whose fields are in the variable at ``path``."""
        *modules, name = path.split(".")
        origins = self._fragment(modules).origins or ()
        return next(self.locals[id(origin)][name] for origin in origins if id(origin) in self.locals)

    def in_state(self, path: str, *states: str) -> Value:
        """Return whether the state machine of the component at ``path`` is in one of ``states``."""
        fsm = self._fragment(path.split(".")).find_generated("fsm")
        return Cat(fsm.state == fsm.encoding[state] for state in states).any()

    def delay_line(self, bit: Value) -> tuple[list[Value], Value]:
        """Return the registers that ``bit`` has gone through, the last one first, and what went in."""
        registers: list[Value] = []
        while True:
            signal, at = bit_of(bit)
            found = [
                (domain, statement.rhs)
                for fragment in all_fragments(self.fragments.values())
                for domain, statements in fragment.statements.items()
                for statement in statements
                if isinstance(statement, Assign) and statement.lhs is signal
            ]
            if len(found) != 1:
                return registers, bit
            domain, source = found[0]
            if not isinstance(source, (Signal, Slice)):
                return registers, bit
            if domain != "comb":
                registers.append(bit)
            bit = source[at]

    def stored(self, path: str, address: ValueLike) -> Signal:
        """Return the word at ``address`` of the memory at ``path``, as it is in this cycle."""
        memory = self._fragment(path.split("."))
        assert isinstance(memory, MemoryInstance), f"{path} is not a memory"
        word = Signal(unsigned(len(memory._read_ports[0]._data)), name=f"{path.rsplit('.', 1)[-1]}_word")
        at = Signal((memory._data.depth - 1).bit_length(), name="word_address")
        self.m.d.comb += at.eq(address)
        memory.read_port(domain="comb", addr=at, data=word, en=Const(1, 1), transparent_for=())
        return word

    def free(self, path: str) -> Any:
        """Cut whatever drives a variable or member of a component: it may take any value in any cycle. Return it."""
        *modules, name = path.split(".")
        member = getattr(self.part(".".join(modules)), name, None)
        value = self.internal(path) if member is None else member
        self._cut(Value.cast(value), path)
        return value

    def free_outputs(self, path: str) -> Any:
        """Cut whatever drives the outputs of a component, as if it did anything. Return the component."""
        component = self.part(path)
        for names, member, value in component.signature.flatten(component):
            if member.flow == wiring.Out:
                self._cut(Value.cast(value), ".".join([path, *map(str, names)]))
        return component

    def _cut(self, signal: Value, path: str) -> None:
        assert isinstance(signal, Signal), f"{path} is not a signal"
        for fragment in list(all_fragments(self.fragments.values())):
            for domain, statements in fragment.statements.items():
                fragment.statements[domain] = without(statements, signal)
        self._expose(signal, path.replace(".", "__"))

    def rtlil(self) -> str:
        """Return the top in the language of Yosys."""
        with without_garbage_collector():
            text: str = rtlil.convert(self.m, ports=list(self.inputs.values()), emit_src=False)
        return text

    def _fragment(self, modules: list[str]) -> Fragment:
        fragment = self.fragments[modules[0]]
        for name in modules[1:]:
            fragment = fragment.find_subfragment(name)
        return fragment


@contextmanager
def locals_of(function: str) -> Iterator[dict[int, dict[str, object]]]:
    """Yield a mapping that fills with the local variables of all methods called ``function``, by ``id(self)``."""
    found: dict[int, dict[str, object]] = {}

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "return" and frame.f_code.co_name == function and "self" in frame.f_locals:
            found[id(frame.f_locals["self"])] = dict(frame.f_locals)

    sys.setprofile(watch)
    try:
        yield found
    finally:
        sys.setprofile(None)


def all_fragments(fragments: object) -> Iterator[Fragment]:
    """Yield ``fragments`` and everything inside them."""
    for fragment in fragments:
        yield fragment
        yield from all_fragments(part for part, _, _ in fragment.subfragments)


def signals_of(fragment: Fragment) -> Iterator[Signal]:
    """Yield the signals that the fragment itself assigns or reads."""
    for statements in fragment.statements.values():
        yield from statements._lhs_signals()
        yield from statements._rhs_signals()


def bit_of(value: Value) -> tuple[Value, int]:
    """Return the signal that a bit is from, and which one it is."""
    at = 0
    while isinstance(value, Slice):
        at += value.start
        value = value.value
    return value, at


def without(statements: _StatementList, signal: Signal) -> _StatementList:
    """Return ``statements`` less the assignments to ``signal``."""
    kept: list[Statement] = []
    for statement in statements:
        if isinstance(statement, Switch):
            cases = [(patterns, without(inner, signal), at) for patterns, inner, at in statement.cases]
            kept.append(Switch(statement.test, cases, src_loc=statement.src_loc))
        elif not (isinstance(statement, Assign) and signal in statement._lhs_signals()):
            kept.append(statement)
    return _StatementList(kept)
