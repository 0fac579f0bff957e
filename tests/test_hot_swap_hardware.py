"""A hot-swap network of 1-bit weights on the machine that the verbs choose for it, without options about its banks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bitswitch
from hwsim import network_file
from hwsim.precision import WidthSet
from tests.conftest import share_simulators

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

SIZE = ("--lanes", 8, "--columns", 4)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a network switched to 1 bit whose 8 channels fill words of one lane, and none of four."""
    from quant import data
    from quant.convert import prepare
    from quant.export import export_network
    from quant.hot_swap import at_width
    from quant.models import ResidualNetwork
    from quant.progress import Progress
    from quant.train import TrainingConfig, train_jointly

    torch.manual_seed(2)
    widths = WidthSet((4, 1))
    model = prepare(ResidualNetwork((1, 8, 8), ((8, 1, 2),), classes=10), "hot-swap", widths)
    images, labels = (torch.from_numpy(array[:64]) for array in data.load_digits())
    config = TrainingConfig(method="hot-swap", widths=widths, joint_epochs=1, batch_size=32, compare_float=False)
    train_jointly(model, images, labels, config, Progress("", 1, shown=False))
    path = tmp_path_factory.mktemp("hot-swap") / "w1.safetensors"
    network_file.save(export_network(at_width(model, 1)), path)
    return path


def report_of(folder: Path, *arguments: object) -> dict[str, Any]:
    path = folder / "report.json"
    assert bitswitch.main([*map(str, arguments), "--json", str(path)]) == bitswitch.OK
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def test_it_is_estimated_and_written_as_verilog(network: Path, tmp_path: Path) -> None:
    rows = {row["assignment"]: row for row in report_of(tmp_path, "estimate", network, *SIZE)["rows"]}
    # Bipolar weights read one plane, and those of 2 bits both that are stored.
    assert rows["W1A1"]["weight_bits_read"] < rows["W2A2"]["weight_bits_read"]
    report = report_of(tmp_path, "verilog", "--network", network, *SIZE, "--out", tmp_path / "verilog")
    assert report["machine"]["banks"] == 8


@pytest.mark.verilator
def test_the_hardware_computes_its_codes(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share_simulators(tmp_path)
    monkeypatch.chdir(tmp_path)
    report = report_of(tmp_path, "simulate", network, *SIZE, "--images", 2)
    assert report["machine"]["banks"] == 8
    rows = {row["assignment"]: row for row in report["rows"]}
    assert {"W1A1", "W2A2"} <= set(rows)
    for row in rows.values():
        assert row["mismatches"] == 0 and row["codes_compared"] > 1_000 and row["counts_differing"] == 0
        assert row["cycles_per_image"] == row["cycles_predicted"]
