"""bitswitch explore --place: the proposed machine and others are measured once, and what is found counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bitswitch
from hwsim import network_file
from hwsim.machine import Machine
from hwsim.precision import CATALOG
from hwsim.random_network import AveragePool, Convolution, random_network
from rtl import placement

NETWORK = random_network(3, CATALOG["8-6-4-2"], (1, 6, 6), (Convolution(channels=8), AveragePool()), classes=4)


def test_machines_of_the_front_are_placed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    placed: list[Machine] = []

    def place(machine: Machine, folder: Path) -> dict[str, Any]:
        placed.append(machine)
        # The first one, which is the proposed one, turns out to be too large.
        too_large = len(placed) == 1
        cells = {"comb": 90000 if too_large else 9000, "ff": 9000, "block_ram": 40, "dsp": 20}
        return {"machine": machine.to_json(), **cells, "fmax_mhz": None if too_large else 88.0}

    def report_of() -> dict[str, Any]:
        path = tmp_path / "report.json"
        sweep = ("--lanes", "8,16", "--columns", "8", "--requantizers", "2,4", "--strip-pixels", "64", "--place", "3")
        arguments = ("explore", str(tmp_path / "network.safetensors"), *sweep, "--jobs", "1", "--json", str(path))
        assert bitswitch.main([*arguments, "--out", str(tmp_path / "out")]) == 0
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    monkeypatch.setattr(placement, "place", place)
    network_file.save(NETWORK, tmp_path / "network.safetensors")
    report = report_of()
    first = list(placed)
    assert len(first) == len(set(first)) == 3 and report["placed"] == 2
    on_fronts = {Machine.from_json(one["machine"]): one for row in report["rows"] for one in row["front"]}
    assert first[0] not in on_fronts and Machine.from_json(report["proposed"]["machine"]) != first[0]
    measured = [on_fronts[machine] for machine in first[1:] if machine in on_fronts]
    assert measured
    for row in measured:
        assert (row["source"], row["fmax_mhz"], row["comb"]) == ("placed", 88.0, 9000)
    assert len(report["models"]["period_ns"]["errors"]) >= 3
    assert "place and route: 3 of 3" in capsys.readouterr().err
    # What was measured on other hardware is not counted, and measured again.
    monkeypatch.setattr(placement, "hardware_digest", lambda: "changed")
    placed.clear()
    assert report_of() == report and placed == first
