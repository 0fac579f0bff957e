"""`bitswitch synth`: its table says what hwsim.estimate says at the clock that was reached, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bitswitch
from hwsim.assignments import select_assignments
from hwsim.estimate import estimate, weight_bits_read
from hwsim.machine import Machine
from hwsim.precision import CATALOG
from hwsim.program import fit_machine
from hwsim.random_network import resnet20
from rtl import flow
from rtl.flow import Report, Utilization

CLOCK_MHZ = 61.25


def reached(monkeypatch: pytest.MonkeyPatch, why_not: str = "") -> list[Machine]:
    """Make every build reach ``CLOCK_MHZ``, or not fit; return the machines that are built."""
    built: list[Machine] = []

    def build(machine: Machine, device: Any, folder: Path, **how: Any) -> Report:
        built.append(machine)
        rows = (Utilization(resource="lut", cell="TRELLIS_COMB", used=30000, available=24288),)
        fmax_mhz = None if why_not else CLOCK_MHZ
        return Report(
            device=device,
            part=how.get("part", "accelerator"),
            machine=machine,
            utilization=rows,
            fmax_mhz=fmax_mhz,
            why_not=why_not,
        )

    monkeypatch.setattr(flow, "build", build)
    return built


def synth(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    path = folder / "report.json"
    status = bitswitch.main(["synth", *arguments, "--out", str(folder / "out"), "--json", str(path)])
    return status, json.loads(path.read_text())


def test_the_table_is_the_estimate_at_the_clock_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built = reached(monkeypatch)
    options = ("--target", "ecp5-85k", "--network", "resnet20", "--assignments", "W8A8,W2A2")
    status, report = synth(tmp_path, *options, "--lanes", "8", "--columns", "8")
    assert status == 0
    network = resnet20(1, CATALOG["8-6-4-2"])
    assignments = select_assignments(network, "W8A8,W2A2")
    sized = Machine.sized(network.width_set, network.width_set, 8, 8)
    machine = fit_machine(network, assignments, sized)
    assert built == [machine] and report["machine"] == machine.to_json()
    lines = capsys.readouterr().out.splitlines()
    for assignment, row in zip(assignments, report["rows"], strict=True):
        found = estimate(network, machine, assignment)
        hz = CLOCK_MHZ * 1e6
        assert row["images_per_s"] == round(hz / found.interval_cycles, 2)
        assert row["gmacs_per_s"] == round(found.macs * hz / found.interval_cycles / 1e9, 4)
        assert row["interval_cycles"] == found.interval_cycles and row["assignment"] == assignment.name
        assert row["weight_bits_read"] == weight_bits_read(network, assignment)
        assert row["traffic"]["weight_bits"] == found.traffic.weight_bits
        (line,) = [line for line in lines if line.startswith(assignment.name)]
        assert line.split() == [
            assignment.name,
            f"{found.interval_cycles:,}",
            f"{found.macs_per_cycle:.1f}",
            f"{weight_bits_read(network, assignment):,}",
            f"{found.traffic.weight_bits:,}",
            f"{hz / found.interval_cycles:,.1f}",
            f"{found.latency_cycles / CLOCK_MHZ:,.0f}",
            f"{found.macs * hz / found.interval_cycles / 1e9:.2f}",
        ]


def test_without_a_network_the_peak_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached(monkeypatch)
    status, report = synth(tmp_path, "--target", "nexus", "--lanes", "8", "--columns", "4", "--bits", "8,2")
    assert status == 0
    # 32 weights work on a plane a cycle: of 8 planes, or of 2 for four activations of 2 bits each.
    peaks = {row["assignment"]: row["peak_macs_per_cycle"] for row in report["rows"]}
    assert peaks == {"W8A8": 4.0, "W2A2": 64.0}
    assert [row["peak_gmacs_per_s"] for row in report["rows"]] == [round(p * 0.06125, 4) for p in peaks.values()]


def test_what_does_not_fit_is_explained_by_the_model_of_area(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reached(monkeypatch, why_not="does not fit ecp5-85k: 90,000 LUTs of 83,640 (6,360 too many); a.log")
    status, report = synth(
        tmp_path, "--target", "ecp5-85k", "--lanes", "64", "--columns", "64", "--network", "resnet20"
    )
    assert status == 1 and report["fits"] is False and "images_per_s" not in report["rows"][0]
    largest = Machine.from_json(report["largest_that_fits"]["machine"])
    assert (largest.lanes, largest.columns) in flow.SIZES and largest.lanes * largest.columns < 64 * 64
    told = capsys.readouterr().out
    assert "90,000 LUTs of 83,640 (6,360 too many)" in told
    assert f"{largest.lanes} lanes x {largest.columns} columns (by the model of area, whose LUTs are " in told


def test_where_there_is_no_model_machines_are_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built = reached(monkeypatch, why_not="does not fit ice40-up5k")
    status, report = synth(tmp_path, "--target", "ice40-up5k", "--lanes", "8", "--columns", "8")
    assert status == 1 and report["largest_that_fits"]["machine"] is None
    assert [(one.lanes, one.columns) for one in built] == [(8, 8), (4, 4)]
    assert "no smaller machine fits either (by packing, 1 tried; 4 x 4 does not fit ice40-up5k)" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--target", "virtex"), "--target must be one of generic, ice40-up5k, ecp5-25k"),
        (("--target", "nexus", "--part", "drain"), "--part must be one of accelerator, array, not 'drain'"),
        (("--target", "nexus", "--assignments", "W8A8"), "--assignments needs a --network"),
        (("--target", "nexus", "--part", "array", "--network", "resnet20"), "--network needs the whole accelerator"),
        (("--target", "nexus", "--lanes", "5"), "lanes must be"),
        (("--target", "nexus", "--network", "none.safetensors"), "none.safetensors"),
        (("--target", "nexus", "--network", "resnet20", "--assignments", "W3A3"), "the weight width must be one of"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bitswitch.main(["synth", *arguments, "--out", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and told.err.startswith("bitswitch synth: ")
    assert sentence in told.err


def test_a_missing_tool_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("YOSYS", "/nonexistent/yosys")
    assert bitswitch.main(["synth", "--target", "generic", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "bitswitch synth: /nonexistent/yosys is missing: install the rtl extra (pip install bitswitch[rtl])\n"
    )
