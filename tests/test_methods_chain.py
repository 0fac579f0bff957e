"""Methods whose networks are special, from training on the command line to verified integers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bitswitch

pytest.importorskip("torch")
pytestmark = pytest.mark.slow


def report_of(tmp_path: Path, *arguments: object) -> dict[str, Any]:
    path = tmp_path / "report.json"
    assert bitswitch.main([*map(str, arguments), "--json", str(path)]) == bitswitch.OK
    return json.loads(path.read_text())


def trained(folder: Path, *words: object) -> Path:
    short = ("--float-epochs", 1, "--joint-epochs", 1, "--out", folder)
    report_of(folder.parent, "train", *words, *short)
    return folder / bitswitch.CHECKPOINT


def test_a_hot_swap_model_is_exported_at_one_width_after_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = trained(tmp_path / "run", "--method", "hot-swap", "--widths", "4,1")
    for bits, assignments in ((4, ["W4A4"]), (1, ["W1A1", "W2A2"])):
        network = tmp_path / "run" / f"w{bits}.safetensors"
        report_of(tmp_path, "export", checkpoint, "--width", bits, "--out", network)
        report = report_of(tmp_path, "verify", network, "--images", 20)
        assert {row["assignment"] for row in report["rows"]} >= set(assignments)
        assert all(row["mismatches"] == 0 and row["codes_compared"] > 20_000 for row in report["rows"])
    capsys.readouterr()
    assert bitswitch.main(["export", str(checkpoint)]) == bitswitch.REFUSED
    assert "has no stored codes: export" in capsys.readouterr().err


def test_learned_widths_are_verified_by_name(tmp_path: Path) -> None:
    words = ("--method", "hasb", "--widths", "8,4,2", "--budget-of", "cycles", "--budget", 5000)
    checkpoint = trained(tmp_path / "run", *words)
    network = tmp_path / "run" / "network.safetensors"
    report_of(tmp_path, "export", checkpoint, "--out", network)
    (row,) = report_of(tmp_path, "verify", network, "--images", 20, "--assignments", "hasb")["rows"]
    assert row["assignment"] == "hasb" and row["mismatches"] == 0
