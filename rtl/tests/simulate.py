"""Clocked runs of one component in Amaranth's simulator."""

from __future__ import annotations

from amaranth.sim import Simulator


def run(component, process) -> None:  # type: ignore[no-untyped-def]
    """Run the async testbench ``process(context)`` on ``component`` with a clock on domain ``sync``."""
    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(process)
    simulator.run()


def stream(component, words, outputs, latency: int) -> list[dict]:  # type: ignore[no-untyped-def]
    """Present ``words`` (one dict of member values a cycle) and return the ``outputs`` of ``latency`` cycles later."""
    seen: list[dict] = []

    async def process(context) -> None:  # type: ignore[no-untyped-def]
        for cycle in range(len(words) + latency):
            if cycle < len(words):
                for name, value in words[cycle].items():
                    context.set(getattr(component, name), value)
            if cycle >= latency:
                seen.append({name: context.get(getattr(component, name)) for name in outputs})
            await context.tick()

    run(component, process)
    assert len(seen) == len(words)
    return seen
