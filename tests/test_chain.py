"""The verbs on a trained network, and on copies of its file that were changed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import bitswitch
from tests.changed_file import flipped

pytestmark = pytest.mark.slow

README = Path(__file__).resolve().parent.parent / "README.md"
SIX = ["W8A8", "W6A6", "W4A4", "W2A2", "mixed-1", "mixed-2"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run where there is no build/demo."""
    monkeypatch.chdir(tmp_path)


def report_of(tmp_path: Path, *arguments: object, status: int = 0) -> dict[str, Any]:
    path = tmp_path / "report.json"
    assert bitswitch.main([*map(str, arguments), "--json", str(path)]) == status
    return json.loads(path.read_text())


def test_verify_finds_every_stored_tensor_equal(trained: Path, tmp_path: Path) -> None:
    report = report_of(tmp_path, "verify", trained / bitswitch.NETWORK, "--images", 40)
    assert [row["assignment"] for row in report["rows"]] == SIX
    for row in report["rows"]:
        assert row["mismatches"] == 0 and row["first_mismatch"] is None
        assert row["codes_compared"] > 40 * 1000
        assert row["layers_exact"] + row["layers_displaced"] == len(row["certificates"]) == 8
        assert row["accuracy_torch"] == row["accuracy_integer_model"] > 30


def test_a_changed_file_is_refused_by_its_checksum(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = flipped(trained / bitswitch.NETWORK, tmp_path / "changed.safetensors", "blocks.0.conv2.codes", 7, 6)
    for verb in ("verify", "simulate", "estimate"):
        assert bitswitch.main([verb, str(changed)]) == 2
        told = capsys.readouterr()
        assert told.out == "" and told.err.count("\n") == 1
        assert "blocks.0.conv2" in told.err and "checksum" in told.err


@pytest.mark.parametrize("place", ["beside", "default", "named"])
def test_where_a_changed_weight_first_shows(trained: Path, tmp_path: Path, place: str) -> None:
    changed = flipped(trained / bitswitch.NETWORK, tmp_path / "changed.safetensors", "blocks.0.conv2.codes", 7, 6)
    checkpoint = trained / bitswitch.CHECKPOINT
    named: tuple[object, ...] = ()
    if place == "named":
        named = ("--checkpoint", checkpoint)
    else:
        folder = tmp_path if place == "beside" else bitswitch.FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(checkpoint, folder / checkpoint.name)
    report = report_of(
        tmp_path, "verify", changed, "--ignore-checksum", "--images", 40, "--assignments", "W8A8,W2A2", *named, status=1
    )
    assert report["checksum_failures"] == ["blocks.0.conv2.codes"]
    first = report["first_mismatch"]
    assert first["tensor"] == "blocks.0.conv2"
    assert first["channel"] == 7 // (16 * 9) and first["expected"] != first["found"]
    assert report["rows"][0]["mismatches"] > 0


def test_another_checkpoint_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = Path(shutil.copy(trained / bitswitch.NETWORK, tmp_path / "network.safetensors"))
    assert bitswitch.main(["verify", str(network)]) == 2
    assert "its checkpoint is not found as" in capsys.readouterr().err
    other = tmp_path / bitswitch.CHECKPOINT
    other.write_bytes((trained / bitswitch.CHECKPOINT).read_bytes() + b" ")
    assert bitswitch.main(["verify", str(network)]) == 2
    assert "was made from another checkpoint than" in capsys.readouterr().err


def test_a_truncated_file_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (trained / bitswitch.NETWORK).read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:length])
        assert bitswitch.main(["verify", str(cut)]) == 2
        told = capsys.readouterr()
        assert told.out == "" and told.err.count("\n") == 1 and str(cut) in told.err


def test_an_unknown_assignment_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bitswitch.main(["verify", str(trained / bitswitch.NETWORK), "--assignments", "W5A5"]) == 2
    assert "the weight width must be one of {8, 6, 4, 2}, not 5" in capsys.readouterr().err


def test_estimate_is_consistent(trained: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "new" / "estimate.png"
    report = report_of(
        tmp_path, "estimate", trained / bitswitch.NETWORK, "--clock-mhz", 100, "--figure", drawn, "--strip-pixels", 32
    )
    assert drawn.read_bytes().startswith(b"\x89PNG")
    assert report["machine"]["strip_pixels"] == 32
    assert [row["assignment"] for row in report["rows"]] == SIX
    assert report["storage"]["stored_once_bits"] == 8 * report["storage"]["weights"]
    for row in report["rows"]:
        assert row["cycles_per_image"] == sum(layer["cycles"] for layer in row["layers"])
        assert 0 < row["utilization"] < 1
        assert row["images_per_s"] == pytest.approx(1e8 / row["interval_cycles"], rel=1e-4)
        assert row["latency_us"] == pytest.approx((row["cycles_per_image"] + row["image_load_cycles"]) / 100)
        assert row["weight_bits_read"] <= row["traffic"]["weight_bits"]
    cycles = [row["cycles_per_image"] for row in report["rows"][:4]]
    assert cycles == sorted(cycles, reverse=True)
    assert report["rows"][0]["weight_bits_read"] == report["storage"]["stored_once_bits"]


def test_verilog_of_a_network(trained: Path, tmp_path: Path) -> None:
    report = report_of(
        tmp_path,
        "verilog",
        "--bits",
        "8,4",
        "--lanes",
        8,
        "--columns",
        4,
        "--out",
        tmp_path / "rtl",
        "--activation-bits",
        8,
    )
    assert report["machine"]["weight_widths"] == [8, 4]
    assert report["machine"]["activation_widths"] == [8]
    assert (report["machine"]["lanes"], report["machine"]["columns"]) == (8, 4)
    source = Path(report["verilog"]).read_text()
    for port in report["ports"]:
        assert port["name"] in source
    written = {key: report[key] for key in report if key not in ("verilog", "description")}
    assert json.loads(Path(report["description"]).read_text()) == written
    assert not [path for path in (tmp_path / "rtl").iterdir() if path.name.startswith(".") or path.suffix == ".tmp"]


def test_verilog_behind_axi(trained: Path, tmp_path: Path) -> None:
    small = ("--bits", 4, "--lanes", 4, "--columns", 4)
    report = report_of(tmp_path, "verilog", "--bus", "axi", *small, "--out", tmp_path / "rtl")
    assert report["bus"] == "axi" and any("tvalid" in port["name"] for port in report["ports"])


def test_a_network_that_does_not_fit_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = str(trained / bitswitch.NETWORK)
    assert bitswitch.main(["verilog", "--network", network, "--lanes", "5", "--out", str(tmp_path / "rtl")]) == 2
    assert "lanes must be a power of two, not 5" in capsys.readouterr().err
    assert not (tmp_path / "rtl").exists()


def python_of_the_readme(word: str) -> str:
    """Return the block of Python in the README that has a word."""
    (block,) = [one for one in re.findall(r"^```python\n(.*?)^```", README.read_text(), re.M | re.S) if word in one]
    return str(block)


def test_the_readme_trains_a_network_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from quant import models

    monkeypatch.setattr(models, "ARCHITECTURES", dict(models.ARCHITECTURES))
    names: dict[str, Any] = {"__name__": "own"}
    own = python_of_the_readme("models.register")
    exec(own.replace('"any-precision"', '"any-precision", float_epochs=1, joint_epochs=1'), names)
    assert [layer.name for layer in names["network"].weight_layers] == ["conv", "linear"]
    assert names["result"].accuracies["W8A8"] > 40


def test_the_readme_in_python(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bitswitch.FOLDER.mkdir(parents=True)
    shutil.copy(trained / bitswitch.NETWORK, bitswitch.FOLDER / bitswitch.NETWORK)
    integers = python_of_the_readme("layer_integers")
    names: dict[str, Any] = {}
    exec(integers, names)
    assert names["layer"].planes.shape == (4, *names["layer"].weights.shape)
    assert re.match(r"exact|displaced", capsys.readouterr().out)


def test_the_readme_on_a_board_calls_what_there_is() -> None:
    """There is no board here: what it imports and calls exists, and sim_tests/test_board.py does the same."""
    board = python_of_the_readme("AcceleratorDriver")
    names: dict[str, Any] = {}
    exec("".join(line for line in board.splitlines(keepends=True) if " import " in line), names)
    compile(board, "README.md", "exec")
    calls = re.findall(r"driver\.(\w+)\(", board)
    assert set(calls) == {"load", "select", "run", "counters"}
    assert all(hasattr(names["AcceleratorDriver"], call) for call in calls)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ((), ["W8A8", "W6A6", "W4A4", "W2A2"]),
        (("--method", "sdq"), ["sdq"]),
        (("--method", "hot-swap", "--widths", "8,2,1"), ["W8A8", "W2A2", "W1A1"]),
    ],
)
def test_folds_count_every_image_once(tmp_path: Path, options: tuple[str, ...], names: list[str]) -> None:
    report = report_of(tmp_path, "train", "--folds", 2, "--float-epochs", 2, "--joint-epochs", 2, *options)
    assert report["images"] == 1797
    assert [row["assignment"] for row in report["rows"]] == ["float32", *names]
    for row in report["rows"]:
        assert row["accuracy_torch"] > 20
        # The training graph rounds a few codes another way than the requantizers.
        assert row["assignment"] == "float32" or abs(row["accuracy_integer_model"] - row["accuracy_torch"]) < 2


def test_explore_proposes_a_machine_that_fits(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ("--lanes", "8,16", "--columns", 8, "--requantizers", "2,4", "--strip-pixels", 64, "--latency-us", 400)
    arguments = ("explore", trained / bitswitch.NETWORK, *sweep, "--jobs", 1, "--out", tmp_path / "out")
    report = report_of(tmp_path, *arguments)
    assert report["machines"] == 8 and len(list((tmp_path / "out" / "cycles").iterdir())) == 8
    assert [row["assignment"] for row in report["rows"]] == SIX[:4]
    for row in report["rows"]:
        rates = [one["images_per_s"][row["assignment"]] for one in row["front"]]
        shares = [one["share"] for one in row["front"]]
        assert rates == sorted(rates) and shares == sorted(shares) and shares[-1] <= 1
    proposed = report["proposed"]
    assert proposed["block_ram"] <= 208 and proposed["share"] <= 1
    assert report["within_latency"]["latency_us"][report["within_latency"]["assignment"]] <= 400
    assert all(len(report["models"][name]["errors"]) >= 3 for name in ("comb", "ff", "dsp"))
    for name in ("explore.png", "models.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    again = report_of(tmp_path, *arguments)
    assert again == report
    assert "8 of 8, 8 known" in capsys.readouterr().err  # nothing was computed again


def test_an_unknown_fpga_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bitswitch.main(["explore", str(trained / bitswitch.NETWORK), "--target", "virtex"]) == 2
    assert "--target must be one of ecp5-25k, ecp5-45k, ecp5-85k, not 'virtex'" in capsys.readouterr().err
