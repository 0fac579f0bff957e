"""The verbs that simulate the hardware, on a network that was trained for a moment."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitswitch
from bitswitch.chain import Refused
from bitswitch.simulate import compared_with
from hwsim import network_file
from sim_tests import shipped
from tests.changed_file import flipped
from tests.conftest import share_simulators

pytestmark = [pytest.mark.slow, pytest.mark.verilator]

SIX = ["W8A8", "W6A6", "W4A4", "W2A2", "mixed-1", "mixed-2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One current folder for all, and simulators as everywhere."""
    folder = tmp_path_factory.mktemp("hardware")
    share_simulators(folder)
    return folder


@pytest.fixture(autouse=True)
def elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def report_of(folder: Path, *arguments: object, status: int = 0) -> dict[str, Any]:
    path = folder / "report.json"
    assert bitswitch.main([*map(str, arguments), "--json", str(path)]) == status
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def test_the_demo_is_equal_everywhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--float-epochs", 2, "--joint-epochs", 2, "--images", 3)
    report = report_of(folder, "demo", "--out", folder / "demo", *few)
    assert {"network", "spec_version", "seconds", "float_accuracy", "test_images", "rows"} <= set(report)
    assert [row["assignment"] for row in report["rows"]] == SIX
    for row in report["rows"]:
        assert row["mismatches"] == 0 and row["first_mismatch"] is None
        assert row["images_rtl"] == 3 and report["test_images"] >= 300
        # Every code of the test set in Python, and those of three images twice more in hardware.
        assert row["codes_compared"] % (report["test_images"] + 2 * 3) == 0 and row["codes_compared"] > 1_000_000
        assert row["cycles_per_image"] == row["cycles_predicted"] > 0 and row["counts_differing"] == 0
        assert row["accuracy_torch"] == row["accuracy_integer_model"] > 50
        assert row["weight_bits_read"] <= row["weight_bits_stored"]
        assert row["layers_exact"] + row["layers_displaced"] == 8
    assert Path(report["figure"]).read_bytes().startswith(b"\x89PNG")
    assert Path(report["network"]).is_file() and Path(report["verilog"]).is_file()
    told = capsys.readouterr().out
    assert told.splitlines()[-1].startswith("EQUAL: 0 of ")


def test_verify_and_simulate_give_the_same_verdict(trained: Path, folder: Path) -> None:
    network = trained / bitswitch.NETWORK
    for verb in ("verify", "simulate"):
        report = report_of(folder, verb, network, "--images", 2)
        assert [row["mismatches"] for row in report["rows"]] == [0] * 6
        assert report["first_mismatch"] is None and report["checksum_failures"] == []


def test_verify_and_simulate_show_a_flipped_bit_in_the_same_place(
    trained: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = flipped(trained / bitswitch.NETWORK, folder / "changed.safetensors", "blocks.0.conv2.codes", 7, 6)
    (folder / bitswitch.CHECKPOINT).write_bytes((trained / bitswitch.CHECKPOINT).read_bytes())
    first = []
    for verb in ("verify", "simulate"):
        assert bitswitch.main([verb, str(changed)]) == 2
        assert "checksum" in capsys.readouterr().err
        report = report_of(folder, verb, changed, "--ignore-checksum", "--images", 2, status=1)
        assert report["checksum_failures"] == ["blocks.0.conv2.codes"]
        first.append(report["first_mismatch"])
    assert first[0] is not None and first[0]["tensor"] == "blocks.0.conv2"
    assert first[0] == first[1]


def test_a_network_without_a_checkpoint_is_compared_with_the_integer_model(trained: Path, folder: Path) -> None:
    path = folder / "own.safetensors"
    network_file.save(replace(network_file.load(trained / bitswitch.NETWORK), provenance={}), path)
    report = report_of(folder, "simulate", path, "--images", 2)
    assert [row["mismatches"] for row in report["rows"]] == [0] * 6
    assert [row["accuracy_rtl"] for row in report["rows"]] == [None] * 6


def test_a_network_that_comes_with_images_is_run_on_them(folder: Path) -> None:
    path = shipped.network_files()[-1]
    network = network_file.load(path)
    images, labels = shipped.stored_images(network)
    options = argparse.Namespace(network=path, checkpoint=None, images=3, data_path=None)
    reference, chosen, known = compared_with(network, options)
    assert reference is None and np.array_equal(chosen, images[:3]) and np.array_equal(known, labels[:3])
    options.network = folder / path.name
    with pytest.raises(Refused, match=r"its images .*-images.npz are not beside it"):
        compared_with(network, options)


@pytest.mark.parametrize("datapath", ["planes", "dsp"])
def test_a_network_that_comes_with_the_package_is_equal_in_hardware(folder: Path, datapath: str) -> None:
    path = shipped.NETWORKS / "digits-double-rounding.safetensors"
    report = report_of(folder, "simulate", path, "--images", 1, "--datapath", datapath)
    assert report["machine"]["datapath"] == datapath
    assert [row["assignment"] for row in report["rows"]] == SIX
    for row in report["rows"]:
        assert row["mismatches"] == 0 and row["first_mismatch"] is None and row["codes_compared"] > 5_000
        assert row["counts_differing"] == 0 and row["counts_compared"] > 8
        assert row["cycles_per_image"] == row["cycles_predicted"] > 0


def test_more_images_than_there_are_is_all_of_them(trained: Path, folder: Path) -> None:
    report = report_of(folder, "verify", trained / bitswitch.NETWORK, "--images", 100_000, "--assignments", "W2A2")
    assert 300 < report["rows"][0]["images"] < 1797
