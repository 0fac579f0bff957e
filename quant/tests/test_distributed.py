"""Two processes under torchrun train as one does."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hwsim.precision import WidthSet
from quant import data, distributed, models
from quant.tests.conftest import small_model
from quant.train import TrainingConfig, train_network

CONFIG = TrainingConfig(widths=WidthSet((8, 2)), float_epochs=1, joint_epochs=2, batch_size=24, compare_float=False)
METHODS = ("double-rounding", "sdq")


def split():
    images, labels = data.load_digits()
    return data.Split(
        train_images=images[:96],
        train_labels=labels[:96],
        test_images=images[96:128],
        test_labels=labels[96:128],
        test_indices=torch.arange(96, 128).numpy(),
    )


def train(folder: Path, method: str) -> list[dict]:
    """Return the rows of a run with a small network."""
    models.ARCHITECTURES["small"] = small_model
    try:
        config = replace(CONFIG, architecture="small", method=method)
        train_network(config, progress=False, run_directory=folder, split=split())
    finally:
        del models.ARCHITECTURES["small"]
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "quant.tests.test_distributed", str(folder)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_curve_of_two_processes_is_that_of_one(method, two_processes, tmp_path):
    alone = train(tmp_path, method)
    together = json.loads((two_processes / method / "metrics.json").read_text())
    assert [(row["stage"], row["epoch"]) for row in together] == [("float", 1), ("joint", 1), ("joint", 2)]
    # float32 sums in another order, and a code that is rounded the other way now and then.
    for one, other in zip(alone, together, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5 if one["stage"] == "float" else 2e-2)
    assert together[0]["loss"] != together[1]["loss"]


def test_both_processes_end_with_the_same_model(two_processes):
    for method in METHODS:
        first, second = (torch.load(two_processes / f"{method}-{rank}.pt", weights_only=True) for rank in (0, 1))
        assert set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


def test_a_share_is_every_other_image(monkeypatch):
    batch = torch.arange(7)
    assert torch.equal(distributed.share(batch), batch)
    monkeypatch.setattr(distributed, "processes", lambda: 3)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    assert distributed.share(batch).tolist() == [1, 4]
    with pytest.raises(ValueError, match="the batch size must be a multiple of the 3 processes, not 64"):
        distributed.check(64, 0.0)
    with pytest.raises(ValueError, match="self-distillation remembers every image and needs a single process, not 3"):
        distributed.check(66, 0.5)


def _main(folder: Path) -> None:
    """One of the two processes."""
    models.ARCHITECTURES["small"] = small_model
    torch.set_num_threads(1)
    with distributed.group():
        assert distributed.processes() == 2
        for method in METHODS:
            config = replace(CONFIG, architecture="small", method=method)
            result = train_network(config, progress=False, run_directory=folder / method, split=split())
            torch.save(result.model.state_dict(), folder / f"{method}-{distributed.rank()}.pt")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
