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
from rtl import placement, synthesis

USED = {"comb": 9876, "ff": 8765, "dsp": 20, "block_ram": 200}


def test_rows_are_what_was_placed_and_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built: list[Machine] = []

    def place(machine: Machine, folder: Path, *, seed: int) -> dict[str, Any]:
        built.append(machine)
        why_not = "too large" if machine.columns > 4 else ""
        of_what = {"machine": machine.to_json(), "verilog_sha256": placement.verilog_digest(str(machine))}
        how = {"seed": seed, "target_mhz": 150, "tools": {"yosys": "0"}, "date": "2026-11-21", "why_not": why_not}
        return of_what | how | USED | {"fmax_mhz": None if why_not else 80.5}

    monkeypatch.setattr(placement, "place", place)
    monkeypatch.setattr(placement, "verilog_of", str)
    monkeypatch.setattr(synthesis, "tool_versions", lambda: {"yosys": "0"})
    path, placements = tmp_path / "table.json", tmp_path / "placements.json"
    options = ["--planes", "4x4,4x8", "--dsp", "4x4", "--build", str(tmp_path / "build")]
    options += ["--json", str(path), "--placements", str(placements)]
    monkeypatch.setattr("sys.argv", ["size_table.py", *options])
    for _ in range(2):
        size_table.main()
    # Without what the tools left, the rows are enough.
    (tmp_path / "build").rename(tmp_path / "old build")
    size_table.main()
    told = capsys.readouterr()
    assert [(one.datapath, one.lanes, one.columns) for one in built] == [
        ("planes", 4, 4),
        ("planes", 4, 8),
        ("dsp", 4, 4),
    ]
    assert told.err.count("too large") == 3
    row, multipliers = json.loads(path.read_text())["rows"]
    assert [row[name] for name in ("lut", "ff", "dsp", "block_ram")] == [9876, 8765, 20, 200]
    assert row["fmax_mhz"] == 80.5 and multipliers["datapath"] == "dsp"
    network = resnet20(1, CATALOG["8-6-4-2"])
    for assignment in select_assignments(network, size_table.ASSIGNMENTS):
        for shown, machine in ((row, built[0]), (multipliers, built[2])):
            cycles = estimate(network, machine, assignment).interval_cycles
            assert shown["images_per_s"][assignment.name] == round(80.5e6 / cycles, 2)
    # 16 weights work on a plane a cycle, of 8 planes, or of 2 for four activations of 2 bits each.
    assert (row["peak_gmacs_per_s"]["W8A8"], row["peak_gmacs_per_s"]["W2A2"]) == (0.161, 2.576)
    assert multipliers["peak_gmacs_per_s"]["W8A8"] == 1.288
    line = told.out.splitlines()[2]
    assert line.startswith("| planes 4 x 4 | 9,876 | 8,765 | 200 | 20 | 80.5 |")
    # What models are fitted to has them all, also the one without a clock, and each of them once.
    rows = json.loads(placements.read_text())["rows"]
    assert [Machine.from_json(one["machine"]) for one in rows] == built
    assert [one["fmax_mhz"] for one in rows] == [80.5, None, 80.5]
