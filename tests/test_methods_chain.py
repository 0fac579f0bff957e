"""Every method, from training on the command line to verified integers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bitswitch

pytest.importorskip("torch")
from quant.methods import METHODS

pytestmark = pytest.mark.slow

OWN_WIDTHS = {"lsq": "4", "hot-swap": "4,1"}
LEARNED = ("hasb", "sdq")


def report_of(tmp_path: Path, *arguments: object) -> dict[str, Any]:
    path = tmp_path / "report.json"
    assert bitswitch.main([*map(str, arguments), "--json", str(path)]) == bitswitch.OK
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def trained(folder: Path, *words: object) -> Path:
    short = ("--float-epochs", 1, "--joint-epochs", 1, "--out", folder)
    report_of(folder.parent, "train", *words, *short)
    return folder / bitswitch.CHECKPOINT


def verified(tmp_path: Path, checkpoint: Path, *export: object) -> list[dict[str, Any]]:
    """Export a checkpoint, verify the network file, and return the rows, of which no code may differ."""
    network = checkpoint.parent / bitswitch.NETWORK
    report_of(tmp_path, "export", checkpoint, "--out", network, *export)
    report = report_of(tmp_path, "verify", network, "--images", 20)
    assert report["compared_with"] == "checkpoint" and report["test_images"] == 20
    rows: list[dict[str, Any]] = report["rows"]
    assert all(row["mismatches"] == 0 and row["codes_compared"] > 20_000 for row in rows)
    return rows


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_trains_is_exported_and_verified(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    widths = OWN_WIDTHS.get(method, "8,2")
    checkpoint = trained(tmp_path / "run", "--method", method, "--widths", widths)
    if method != "hot-swap":
        names = {row["assignment"] for row in verified(tmp_path, checkpoint)}
        assert names >= {f"W{bits}A{bits}" for bits in widths.split(",")}
        assert names & set(LEARNED) == {method} & set(LEARNED)
        return
    for bits, assignments in ((4, {"W4A4"}), (1, {"W1A1", "W2A2"})):
        assert {row["assignment"] for row in verified(tmp_path, checkpoint, "--width", bits)} >= assignments
    capsys.readouterr()
    assert bitswitch.main(["export", str(checkpoint)]) == bitswitch.REFUSED
    assert "has no stored codes: export" in capsys.readouterr().err


def test_widths_chosen_for_a_budget_of_cycles_are_verified_by_name(tmp_path: Path) -> None:
    words = ("--method", "hasb", "--widths", "8,4,2", "--budget-of", "cycles", "--budget", 5000)
    checkpoint = trained(tmp_path / "run", *words)
    network = tmp_path / "run" / bitswitch.NETWORK
    report_of(tmp_path, "export", checkpoint, "--out", network)
    (row,) = report_of(tmp_path, "verify", network, "--images", 20, "--assignments", "hasb")["rows"]
    assert row["assignment"] == "hasb" and row["mismatches"] == 0
