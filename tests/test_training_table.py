"""The table of training: the same rows from a folder of runs and from its log, and runs that go on from a log."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import training_table
from hwsim import network_file
from quant.data import Split
from quant.run_directory import METRICS_JSON, STATE
from quant.train import COMPARE_FLOAT, FLOAT, train_float, train_network
from quant.training_config import DIGITS, PRESETS, TrainingConfig
from sim_tests import shipped

ROW = {
    "method": "double-rounding", "network": "digits", "seed": 0, "epochs": "2 float + 1 joint", "assignment": "W8A8",
    "accuracy": 12.5, "average_weight_bits": 8.0, "cycles_per_image": 1234, "weight_bits_stored": 5678,
    "network_file": "network.safetensors",
}  # fmt: skip


def config_of(**changes: Any) -> TrainingConfig:
    few = {"float_epochs": 2, "joint_epochs": 1, "float_annealed": False, "compare_float": True}
    return replace(PRESETS[DIGITS], **few, **changes)


@pytest.fixture
def split() -> Split:
    split = training_table.load_images(Path(), DIGITS, config_of())
    return replace(split, train_images=split.train_images[:128], train_labels=split.train_labels[:128])


@pytest.fixture
def runs(tmp_path: Path, split: Split) -> Path:
    """A folder with both float networks, one finished run and one that is not."""
    runs = tmp_path / "runs"
    train_float(config_of(), runs / training_table.FLOAT_RUN, progress=False, split=split)
    (runs / training_table.ABOUT).write_text(json.dumps({"data": "some digits", "hardware": "a CPU"}))
    for name, rows in (("double-rounding", [ROW]), ("hasb", None)):
        run = training_table.folder_of(runs, name)
        run.mkdir()
        (run / "config.json").write_text(json.dumps(config_of().to_json()))
        if rows is not None:
            (run / training_table.ROWS).write_text(json.dumps(rows))
    return runs


def test_a_log_has_the_rows_of_the_runs(runs: Path, tmp_path: Path) -> None:
    rows = training_table.table_rows(runs)
    assert [(row["method"], row["epochs"]) for row in rows] == [
        ("float", "3 float"),
        ("double-rounding", "2 float + 1 joint"),
    ]
    assert {row["float_accuracy"] for row in rows} == {rows[0]["accuracy"]}
    training_table.log(runs, tmp_path / "log")
    assert training_table.table_rows(tmp_path / "log") == rows
    assert not (tmp_path / "log" / "hasb").exists()
    sizes = [(folder / training_table.FLOAT_RUN / STATE).stat().st_size for folder in (tmp_path / "log", runs)]
    assert sizes[0] < 0.6 * sizes[1]


def test_runs_go_on_from_the_float_networks_of_a_log(runs: Path, tmp_path: Path, split: Split) -> None:
    training_table.log(runs, tmp_path / "log")
    accuracies = []
    for folder in (runs, tmp_path / "log"):
        config = config_of(block_replacement=0.5)
        float_run = folder / training_table.FLOAT_RUN
        train_float(config, float_run, (FLOAT,), progress=False, split=split)  # nothing is left to do
        trained = train_network(config, progress=False, float_run=float_run, split=split)
        accuracies.append((trained.float_accuracy, dict(trained.accuracies)))
    assert accuracies[0] == accuracies[1]


def test_float_networks_that_are_not_complete_are_trained_on_from_a_log(tmp_path: Path, split: Split) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / training_table.ABOUT).write_text("{}")
    for stages in ((FLOAT,), (COMPARE_FLOAT,)):
        train_float(config_of(), tmp_path / "runs" / training_table.FLOAT_RUN, stages, progress=False, split=split)
        if stages == (FLOAT,):
            training_table.log(tmp_path / "runs", tmp_path / "log")
            train_float(config_of(), tmp_path / "log" / training_table.FLOAT_RUN, progress=False, split=split)
    losses = [
        [row["loss"] for row in json.loads((tmp_path / folder / training_table.FLOAT_RUN / METRICS_JSON).read_text())]
        for folder in ("runs", "log")
    ]
    assert len(losses[0]) == 3 and losses[0] == losses[1]


def test_a_row_says_what_it_was_measured_on_or_its_folder_does(runs: Path) -> None:
    run = training_table.folder_of(runs, "truncation-ready")
    run.mkdir()
    (run / training_table.ROWS).write_text(json.dumps([{**ROW, "hardware": "another CPU"}]))
    rows = training_table.table_rows(runs)
    assert [row["hardware"] for row in rows] == ["a CPU", "a CPU", "another CPU"]


def test_a_run_changes_what_its_name_says() -> None:
    config = PRESETS[DIGITS]
    for name, changes in training_table.RUNS.items():
        before, after = config.to_json(), training_table.changed(config, changes).to_json()
        assert {entry for entry in before if before[entry] != after[entry]} <= set(changes), name
    slower = training_table.changed(config, training_table.RUNS["double-rounding, a quarter of the rate"])
    assert slower.joint_learning_rate == config.joint_learning_rate / 4


def test_a_folder_of_runs_is_for_one_data_set(runs: Path) -> None:
    with pytest.raises(SystemExit, match="runs holds runs on some digits, not on digits: choose another folder"):
        training_table.make_runs(runs, DIGITS, DIGITS, [], 0, 1, 10, False)


def test_the_networks_that_the_table_names_claim_what_it_says() -> None:
    rows = [row for row in json.loads(training_table.TABLE.read_text())["rows"] if row["network_file"]]
    assert {row["network_file"] for row in rows} == {path.name for path in shipped.network_files()}
    for row in rows:
        network = network_file.load(shipped.NETWORKS / row["network_file"])
        assert shipped.claims(network)[row["assignment"]]["accuracy"] == row["accuracy"]
        assert all(network.provenance[name] == row[name] for name in ("data", "method", "epochs"))


def test_the_table_has_the_rows_of_the_logged_runs_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"rows": [ROW | {"data": "some digits"}]}))
    monkeypatch.setattr("sys.argv", ["training_table.py", "--json", str(table)])
    training_table.main()
    assert table.read_text() == training_table.TABLE.read_text()


def test_runs_without_a_float_network_to_compare_with_have_no_rows_yet(
    runs: Path, tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(runs / training_table.FLOAT_RUN)
    train_float(config_of(), runs / training_table.FLOAT_RUN, (FLOAT,), progress=False, split=split)
    monkeypatch.setattr("sys.argv", ["training_table.py", "--runs", str(runs), "--json", str(tmp_path / "table.json")])
    training_table.main()
    assert json.loads((tmp_path / "table.json").read_text()) == {"rows": []}
    assert "no rows before there is the float network of all epochs" in capsys.readouterr().err


def test_a_row_that_is_measured_again_takes_the_place_of_the_old_one() -> None:
    rows = [ROW | {"data": "digits"}, ROW | {"data": "digits", "assignment": "W4A4"}]
    again, other = rows[0] | {"accuracy": 99.0}, rows[0] | {"seed": 1}
    assert training_table.merged(rows, [other, again]) == [again, rows[1], other]
