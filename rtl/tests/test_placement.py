"""Measured machines: a row for each, also for one that finds no place."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from hwsim.machine import Machine
from hwsim.precision import CATALOG
from rtl import placement, synthesis

MACHINE = Machine.sized(CATALOG["8-6-4-2"], CATALOG["8-6-4-2"], 4, 4)
PACKED = {"comb": 90000, "ff": 5, "block_ram": 3, "dsp": 2, "fmax_mhz": None}


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stand for the tools, and keep the clocks that they are told to work towards."""
    told: list[Any] = []

    def place_and_route(netlist: Path, *, seed: int, target_mhz: int) -> synthesis.Cost:
        told.append(target_mhz)
        if seed == 13:
            raise synthesis.DoesNotFit("no room", synthesis.Placement(used={}, available={}))
        return synthesis.Cost(comb=7, ff=5, block_ram=3, dsp=2, fmax_mhz=90.0 + seed)

    monkeypatch.setattr(placement, "accelerator_verilog", lambda machine, top, target: "module top; endmodule")
    monkeypatch.setattr(synthesis, "synthesize", lambda text, top, folder, dsp: folder / "netlist.json")
    monkeypatch.setattr(synthesis, "place_and_route", place_and_route)
    monkeypatch.setattr(synthesis, "tool_versions", lambda: {"yosys": "0"})
    monkeypatch.setattr(placement, "packed", lambda netlist: dict(PACKED))
    return told


def test_a_row_has_what_was_measured_and_of_what(tools: list[Any], tmp_path: Path) -> None:
    row = placement.place(MACHINE, tmp_path, seed=2)
    assert Machine.from_json(row["machine"]) == MACHINE
    assert [row[name] for name in ("comb", "ff", "block_ram", "dsp", "fmax_mhz", "seed")] == [7, 5, 3, 2, 92.0, 2]
    assert tools == [synthesis.DEFAULT.target_mhz] == [row["target_mhz"]]
    assert row["why_not"] == ""
    assert row["verilog_sha256"] == hashlib.sha256(b"module top; endmodule").hexdigest()


def test_a_machine_without_a_place_has_its_cells_and_no_clock(tools: list[Any], tmp_path: Path) -> None:
    row = placement.place(MACHINE, tmp_path, seed=13)
    assert {name: row[name] for name in PACKED} == PACKED
    assert (row["why_not"], row["seed"], row["target_mhz"]) == ("no room", None, None)
    only_packed = placement.place(MACHINE, tmp_path, route=False)
    assert only_packed == row | {"why_not": ""} and len(tools) == 1


def test_rows_of_other_hardware_leave_the_file(
    tools: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "placements.json"
    first, second = (placement.place(MACHINE, tmp_path, seed=seed) for seed in (1, 2))
    assert placement.record(path, [first, second]) == (2, 0)
    again = first | {"fmax_mhz": 55.0}
    assert placement.record(path, [again]) == (2, 1)
    assert json.loads(path.read_text()) == {"rows": [second, again]}
    other = dataclasses.replace(MACHINE, strip_pixels=2 * MACHINE.strip_pixels)
    monkeypatch.setattr(placement, "accelerator_verilog", lambda machine, top, target: str(machine == other))
    new = placement.place(other, tmp_path)
    assert placement.record(path, [new]) == (1, 2)
    assert json.loads(path.read_text()) == {"rows": [new]} and placement.is_current(new)
    assert not placement.is_current(second) and not placement.is_current({"machine": MACHINE.to_json()})


def test_other_sources_are_another_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    placement.hardware_digest.cache_clear()
    digest = placement.hardware_digest()
    assert len(digest) == 16 and placement.hardware_digest() == digest
    read_text = Path.read_text
    for name, counts in (
        ("drain.py", True),
        ("memory.py", True),
        ("machine.py", True),
        ("test_array.py", False),
        ("axi_top.py", False),
    ):

        def changed(path: Path, *how: Any, name: str = name, **more: Any) -> str:
            return read_text(path, *how, **more) + (" " if path.name == name else "")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", changed)
            placement.hardware_digest.cache_clear()
            assert (placement.hardware_digest() != digest) == counts, name
    placement.hardware_digest.cache_clear()
