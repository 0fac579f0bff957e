"""The networks that come with the package, verified as a user does: without the checkpoint, and with one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bitswitch
from hwsim import network_file
from sim_tests import shipped
from tests.changed_file import flipped

ROOT = Path(__file__).resolve().parent.parent
DIGITS = shipped.NETWORKS / "digits-double-rounding.safetensors"


def report_of(tmp_path: Path, *arguments: object, status: int = 0) -> dict[str, Any]:
    path = tmp_path / "report.json"
    assert bitswitch.main([*map(str, arguments), "--json", str(path)]) == status
    report: dict[str, Any] = json.loads(path.read_text())
    return report


@pytest.mark.parametrize("path", shipped.network_files(), ids=lambda path: path.stem)
def test_every_network_verifies_without_its_checkpoint(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bitswitch.FOLDER.mkdir(parents=True)
    (bitswitch.FOLDER / bitswitch.CHECKPOINT).write_bytes(b"of another network")
    report = report_of(tmp_path, "verify", path)
    claims = shipped.claims(network_file.load(path))
    assert report["compared_with"] == "recorded" and report["test_images"] == 64
    assert [row["assignment"] for row in report["rows"]] == list(claims)
    for row in report["rows"]:
        assert row["tensors_differing"] == 0 and row["first_mismatch"] is None
        assert row["tensors_compared"] == len(claims[row["assignment"]]["tensors_sha256"]) >= 9
        assert row["correct"] == row["correct_recorded"] > 32 and row["codes_compared"] > 64 * 5000
        assert row["layers_exact"] + row["layers_displaced"] == len(row["certificates"])
    told = capsys.readouterr().out
    assert "compared: the file's checksums" in told and "not compared, for want of the checkpoint" in told
    assert told.splitlines()[-1].startswith("EQUAL: 0 of ")


def beside_its_images(path: Path, folder: Path) -> Path:
    shutil.copy(path.with_name("digits-images.npz"), folder)
    return Path(shutil.copy(path, folder))


def test_a_changed_file_is_refused_and_shows_where_it_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = beside_its_images(DIGITS, tmp_path)
    flipped(DIGITS, changed, "blocks.0.conv2.codes", 7, 6)
    assert bitswitch.main(["verify", str(changed)]) == 2
    assert "tensor blocks.0.conv2.codes" in capsys.readouterr().err
    report = report_of(tmp_path, "verify", changed, "--ignore-checksum", "--assignments", "W8A8", status=1)
    assert report["checksum_failures"] == ["blocks.0.conv2.codes"]
    assert report["first_mismatch"]["tensor"] == "blocks.0.conv2"
    told = capsys.readouterr().out
    assert "first difference: W8A8, blocks.0.conv2 (" in told and "NOT EQUAL: " in told.splitlines()[-1]


def test_another_record_is_a_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = beside_its_images(DIGITS, tmp_path)
    network = network_file.load(path)
    claims = {**shipped.claims(network)}
    claims["W8A8"] = {**claims["W8A8"], "correct": claims["W8A8"]["correct"] - 1}
    network_file.save(replace(network, provenance={**network.provenance, "measured": json.dumps(claims)}), path)
    assert bitswitch.main(["verify", str(path), "--assignments", "W8A8"]) == 1
    assert "another number of images is classified right at W8A8" in capsys.readouterr().out


def test_what_the_record_cannot_tell_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (("--images", "3"), "what it records is of all its 64 stored images; --images needs --checkpoint"),
        (("--assignments", "W8A2"), "the file records nothing of W8A2"),
    ):
        assert bitswitch.main(["verify", str(DIGITS), *arguments]) == 2
        assert message in capsys.readouterr().err
    alone = Path(shutil.copy(DIGITS, tmp_path))
    assert bitswitch.main(["verify", str(alone)]) == 2
    assert "its images digits-images.npz are not beside it" in capsys.readouterr().err


def test_it_needs_neither_torch_nor_a_simulator() -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'sklearn', 'amaranth', 'cocotb'): sys.modules[name] = None\n"
        f"import bitswitch; sys.exit(bitswitch.main(['verify', {str(DIGITS)!r}, '--assignments', 'W2A2']))"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
