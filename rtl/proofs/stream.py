"""The rule of every stream: once valid, it stays valid and its payload stays the same until it is taken."""

from __future__ import annotations

from amaranth.hdl import Signal, Value, ValueLike

from rtl.proofs.bench import Bench


def check_stream(bench: Bench, stream: object, name: str) -> None:
    """Assert the rule for a stream that a component sends. A reset may withdraw what was offered."""
    check_held(bench, stream.valid, stream.ready, stream.payload, name)


def check_held(bench: Bench, valid: Value, ready: Value, payload: ValueLike, name: str) -> None:
    """Assert the rule for the signals of a stream."""
    waits = Signal(name=f"{name.replace(' ', '_')}_waits")
    bench.m.d.sync += waits.eq(valid & ~ready)
    bench.implies(waits, valid, f"{name} stays valid until it is taken")
    payload = Value.cast(payload)
    bench.implies(waits, payload == bench.past(payload), f"{name} keeps its payload until it is taken")
