"""What is recorded of a network that is put into the package comes from PyTorch, and verifies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import bitswitch
from sim_tests import shipped
from tests.changed_file import flipped

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

NAME = "double-rounding"


@pytest.fixture
def runs(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one finished run, that of ``trained``; what is shipped goes beside it."""
    run = tmp_path / "runs" / NAME
    run.mkdir(parents=True)
    for name in (bitswitch.CHECKPOINT, bitswitch.NETWORK):
        shutil.copy(trained / name, run)
    row = {"network_file": bitswitch.NETWORK, "accuracy": 50.0, "method": NAME, "epochs": "1 float + 1 joint"}
    (run / "rows.json").write_text(json.dumps([{**row, "assignment": name} for name in ("W8A8", "W2A2")]))
    (run.parent / "about.json").write_text(json.dumps({"data": "digits", "hardware": "a computer"}))
    monkeypatch.setattr(shipped, "NETWORKS", tmp_path / "networks")
    shipped.NETWORKS.mkdir()
    return run.parent


def ship(runs: Path) -> Path:
    from benchmarks import ship_network
    from quant.data import load_digits_split

    (made,) = ship_network.ship(runs, NAME, load_digits_split(), "digits")
    return made


def verified(path: Path, folder: Path, *arguments: object) -> dict[str, Any]:
    report = folder / "report.json"
    assert bitswitch.main(["verify", str(path), *map(str, arguments), "--json", str(report)]) == 0
    content: dict[str, Any] = json.loads(report.read_text())
    return content


def test_a_run_that_is_shipped_verifies_with_and_without_its_checkpoint(runs: Path, tmp_path: Path) -> None:
    made = ship(runs)
    assert made == tmp_path / "networks" / "digits-double-rounding.safetensors"
    recorded = verified(made, tmp_path)
    assert recorded["compared_with"] == "recorded"
    assert [row["assignment"] for row in recorded["rows"]] == ["W8A8", "W2A2"]
    assert [row["accuracy_recorded"] for row in recorded["rows"]] == [50.0, 50.0]
    found = verified(made, tmp_path, "--checkpoint", runs / NAME / bitswitch.CHECKPOINT, "--images", 5)
    assert found["compared_with"] == "checkpoint" and found["test_images"] == 5
    assert all(row["mismatches"] == 0 for row in found["rows"])


def test_a_network_that_is_not_what_the_checkpoint_computes_is_not_shipped(runs: Path, tmp_path: Path) -> None:
    from hwsim import network_file

    network = runs / NAME / bitswitch.NETWORK
    changed = flipped(network, tmp_path / "changed.safetensors", "blocks.0.conv2.codes", 7, 6)
    network_file.save(network_file.load(changed, ignore_checksum=True), network)
    with pytest.raises(SystemExit, match=r"W8A8: the integer model differs from PyTorch, first in .*blocks.0.conv2"):
        ship(runs)
    assert not list(shipped.NETWORKS.glob("*.safetensors"))
