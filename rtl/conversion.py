"""From an Amaranth component to Verilog text."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence

from amaranth.back import verilog
from amaranth.hdl import Value
from amaranth.lib import wiring

from rtl.targets import Target


@contextlib.contextmanager
def without_garbage_collector() -> Iterator[None]:
    """Suspend Python's search for cycles, which takes half of the time where millions of objects are made."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def to_verilog(
    component: wiring.Component, name: str, *, target: Target | None = None, ports: Sequence[Value] | None = None
) -> str:
    """Return the Verilog of a component, one text with all of its modules.

    Parameters
    ----------
    component : wiring.Component
    name : str
        Of the top module.
    target : Target, optional
        What it is elaborated for; portable logic if not given.
    ports : sequence of Value, optional
        The top module's; those of the component if not given.
    """
    with without_garbage_collector():
        text: str = verilog.convert(
            component, name=name, platform=target, ports=ports, emit_src=False, strip_internal_attrs=True
        )
    return text
