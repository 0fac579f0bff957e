"""The table of sizes: its rows are what was placed and estimated, and no size is placed again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import size_table
from hwsim.assignments import select_assignments
from hwsim.estimate import estimate
from hwsim.machine import Machine
from hwsim.precision import CATALOG
from hwsim.random_network import resnet20
from rtl import flow, synthesis
from rtl.flow import Report, Utilization

USED = {"lut": 9876, "ff": 8765, "dsp": 20, "block_ram": 200}


def test_rows_are_what_was_placed_and_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built: list[Machine] = []

    def build(machine: Machine, device: Any, folder: Path, **how: Any) -> Report:
        built.append(machine)
        folder.mkdir(parents=True)
        rows = tuple(Utilization(resource=name, cell="", used=count) for name, count in USED.items())
        why_not = "too large" if machine.columns > 4 else ""
        return Report(
            device=device, part="accelerator", machine=machine, utilization=rows, fmax_mhz=80.5, why_not=why_not
        )

    monkeypatch.setattr(flow, "build", build)
    monkeypatch.setattr(size_table, "accelerator_verilog", lambda machine, target: str(machine))
    monkeypatch.setattr(synthesis, "tool_versions", lambda device: {"yosys": "0"})
    path = tmp_path / "table.json"
    options = ["--sizes", "4x4,4x8", "--build", str(tmp_path / "build"), "--json", str(path)]
    monkeypatch.setattr("sys.argv", ["size_table.py", *options])
    for _ in range(2):
        size_table.main()
    told = capsys.readouterr()
    assert [(one.lanes, one.columns) for one in built] == [(4, 4), (4, 8)]
    assert told.err.count("too large") == 2
    (row,) = json.loads(path.read_text())["rows"]
    assert {name: row[name] for name in USED} == USED and row["fmax_mhz"] == 80.5
    network = resnet20(1, CATALOG["8-6-4-2"])
    for assignment in select_assignments(network, size_table.ASSIGNMENTS):
        found = estimate(network, built[0], assignment)
        assert row["images_per_s"][assignment.name] == round(80.5e6 / found.interval_cycles, 2)
    # 16 weights work on a plane a cycle, of 8 planes, or of 2 for four activations of 2 bits each.
    assert (row["peak_gmacs_per_s"]["W8A8"], row["peak_gmacs_per_s"]["W2A2"]) == (0.161, 2.576)
    line = told.out.splitlines()[2]
    assert line.startswith("| 4 x 4 | 9,876 | 8,765 | 200 | 20 | 80.5 |")
