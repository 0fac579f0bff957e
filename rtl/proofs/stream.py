"""The rule of every stream: once valid, it stays valid and its payload stays the same until it is taken."""

from __future__ import annotations

from amaranth.hdl import Signal, Value

from rtl.proofs.bench import Bench


def check_stream(bench: Bench, stream: object, name: str) -> None:
    """Assert the rule for a stream that a component sends. A reset may withdraw what was offered."""
    waits = Signal(name=f"{name}_waits")
    bench.m.d.sync += waits.eq(stream.valid & ~stream.ready)
    bench.implies(waits, stream.valid, f"{name} stays valid until it is taken")
    payload = Value.cast(stream.payload)
    bench.implies(waits, payload == bench.past(payload), f"{name} keeps its payload until it is taken")
