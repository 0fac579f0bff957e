"""The rule of every stream: once valid, it stays valid and its payload stays the same until it is taken."""

from __future__ import annotations

from amaranth.hdl import Signal, Value, ValueLike

from rtl.proofs.bench import Bench


def check_stream(bench: Bench, stream: object, name: str, *, withdrawn: ValueLike = 0) -> None:
    """Assert the rule for a stream that a component sends. A reset may withdraw what was offered."""
    check_held(bench, stream.valid, stream.ready, stream.payload, name, withdrawn=withdrawn)


def check_held(
    bench: Bench, valid: Value, ready: Value, payload: ValueLike, name: str, *, withdrawn: ValueLike = 0
) -> None:
    """Assert the rule for the signals of a stream. ``withdrawn`` says when the next cycle may break it."""
    waits, payload, before = _waiting(bench, valid, ready, payload, name, withdrawn)
    bench.implies(waits, valid, f"{name} stays valid until it is taken")
    bench.implies(waits, payload == before, f"{name} keeps its payload until it is taken")


def assume_held(
    bench: Bench, valid: Value, ready: Value, payload: ValueLike, name: str, *, withdrawn: ValueLike = 0
) -> None:
    """Assume the rule for the signals of a stream that comes from outside."""
    waits, payload, before = _waiting(bench, valid, ready, payload, name, withdrawn)
    bench.assume(~waits | (valid & (payload == before)))


def _waiting(
    bench: Bench, valid: Value, ready: Value, payload: ValueLike, name: str, withdrawn: ValueLike
) -> tuple[Signal, Value, Value]:
    waits = Signal(name=f"{name.replace(' ', '_')}_waits")
    bench.m.d.sync += waits.eq(valid & ~ready & ~Value.cast(withdrawn).bool())
    payload = Value.cast(payload)
    return waits, payload, bench.past(payload)
