"""Every stream, queue and memory of the board's design is in the list of what is proved, and nothing else is."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import pytest
from amaranth.hdl import Fragment
from amaranth.lib import fifo, memory, wiring

from rtl.board.top import BoardTop
from rtl.leaves.memory import TwoCycleMemory
from rtl.proofs.catalog import all_proofs
from rtl.proofs.machine import UNEVEN
from rtl.proofs.ports import BY_CONSTRUCTION, MEMORIES, STREAMS

MACHINE = dataclasses.replace(UNEVEN, weight_port_bits=8)
"""Its weight memory has spare bits, so that the loader has memories of its own."""


@pytest.fixture(scope="module")
def parts() -> list[tuple[str, object]]:
    """Every component and queue of the design, as (owner's class.name without numbers, component)."""

    def walk(fragment: Fragment, owner: str, name: str) -> Iterator[tuple[str, object]]:
        own = [
            origin for origin in fragment.origins or () if isinstance(origin, (wiring.Component, fifo.FIFOInterface))
        ]
        for origin in own:
            yield f"{owner}.{re.sub('_[0-9]+', '', name)}", origin
            owner = type(origin).__name__
        # Inside a memory or a queue there is only what their own proofs are about.
        if not any(isinstance(origin, (TwoCycleMemory, memory.Memory, fifo.FIFOInterface)) for origin in own):
            for part, part_name, _ in fragment.subfragments:
                yield from walk(part, owner, part_name)

    return list(walk(Fragment.get(BoardTop(MACHINE, 4, 16), None), "", "top"))


def sent_streams(component: wiring.Component) -> set[str]:
    """Return the streams that a component sends: a valid and a ready of the same name go opposite ways."""
    flows = {}
    for path, member, _ in component.signature.flatten(component):
        flows[".".join(map(str, path))] = member.flow
    names = {
        name.removesuffix("valid") for name, flow in flows.items() if name.endswith("valid") and flow is wiring.Out
    }
    return {name.removesuffix(".") for name in names if flows.get(f"{name}ready") is wiring.In}


def test_every_stream_has_a_proof(parts: list[tuple[str, object]]) -> None:
    found = {name for name, part in parts if isinstance(part, fifo.FIFOInterface)}
    for _, part in parts:
        if isinstance(part, wiring.Component):
            found |= {f"{type(part).__name__}.{name}" for name in sent_streams(part)}
    assert found == set(STREAMS)


def memories(parts: list[tuple[str, object]]) -> list[tuple[str, int]]:
    """Return name and depth of every memory and queue."""
    kinds = (TwoCycleMemory, memory.Memory, fifo.FIFOInterface)
    return [(name, part.depth) for name, part in parts if isinstance(part, kinds)]


def test_every_memory_port_has_a_proof_or_needs_none(parts: list[tuple[str, object]]) -> None:
    found = memories(parts)
    assert {name for name, _ in found} == set(MEMORIES)
    uneven = 0
    for name, depth in found:
        ports = MEMORIES[name]
        if BY_CONSTRUCTION in ports.write + ports.read:
            assert depth & (depth - 1) == 0, f"{name} has {depth} words"
        uneven += depth & (depth - 1) != 0
    assert uneven >= 8


def test_every_proof_that_is_named_is_in_the_catalog() -> None:
    names = {proof.name for proof in all_proofs()}
    claimed = set(STREAMS.values()) | {name for ports in MEMORIES.values() for name in ports.write + ports.read}
    assert claimed - {BY_CONSTRUCTION} <= names
