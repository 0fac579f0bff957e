"""Two processes under torchrun train as one does."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from hwsim.precision import WidthSet
from quant import data, distributed, fused, models, train
from quant.convert import prepare
from quant.epochs import FloatTraining
from quant.switchable import SwitchableNetwork
from quant.tests.conftest import small_model
from quant.train import TrainingConfig

CONFIG = TrainingConfig(widths=WidthSet((8, 2)), float_epochs=1, joint_epochs=2, batch_size=24, compare_float=False)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a run changes in the configuration, the type of its joint training, and how far losses may lie apart."""

    changes: Mapping[str, object]
    dtype: torch.dtype
    tolerance: float


# Other orders of summing turn some codes of float32 into their neighbours, none of float64: there only sums differ,
# and SDQ's teacher, which is float32. In bfloat16 each process rounds the gradients of its share, to steps of 2**-8.
CASES = {
    "self-distillation": Case(changes={"self_distillation": 0.7}, dtype=torch.float32, tolerance=1e-4),
    "sdq": Case(changes={"method": "sdq"}, dtype=torch.float64, tolerance=1e-8),
    "channels-last": Case(changes={"channels_last": True}, dtype=torch.float64, tolerance=1e-12),
    "bfloat16": Case(changes={"channels_last": True, "bfloat16": True}, dtype=torch.float32, tolerance=2.0**-8),
}


def split():
    images, labels = data.load_digits()
    return data.Split(
        train_images=images[:96],
        train_labels=labels[:96],
        test_images=images[96:128],
        test_labels=labels[96:128],
        test_indices=torch.arange(96, 128).numpy(),
    )


def trained(folder: Path, case: Case) -> SwitchableNetwork:
    """Return a small network that was trained in a run directory."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(models.ARCHITECTURES, "small", small_model)
        patched.setattr(train, "prepare", lambda *given, **options: prepare(*given, **options).to(case.dtype))
        config = replace(CONFIG, architecture="small", **case.changes)
        return train.train_network(config, progress=False, run_directory=folder, split=split()).model


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


@pytest.mark.parametrize("case", CASES)
def test_the_loss_curve_of_two_processes_is_that_of_one(case, two_processes, tmp_path, monkeypatch):
    # Several processes run the plain operators: test_fused compares the kernels with them.
    monkeypatch.setattr(fused, "available", lambda: False)
    trained(tmp_path, CASES[case])
    alone, together = (json.loads((path / "metrics.json").read_text()) for path in (tmp_path, two_processes / case))
    assert [(row["stage"], row["epoch"]) for row in together] == [("float", 1), ("joint", 1), ("joint", 2)]
    for one, other in zip(alone, together, strict=True):
        tolerance = max(1e-6, CASES[case].tolerance) if one["stage"] == "float" else CASES[case].tolerance
        assert other["loss"] == pytest.approx(one["loss"], rel=tolerance)
    assert together[0]["loss"] != together[1]["loss"]


@pytest.mark.parametrize("case", CASES)
def test_both_processes_end_with_the_same_model(case, two_processes):
    first, second = (torch.load(two_processes / f"{case}-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert set(first) == set(second)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_a_share_is_every_other_image(monkeypatch):
    batch = torch.arange(7)
    assert torch.equal(distributed.share(batch), batch)
    monkeypatch.setattr(distributed, "processes", lambda: 3)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    assert distributed.share(batch).tolist() == [1, 4]
    with pytest.raises(ValueError, match="the batch size must be a multiple of the 3 processes, not 64"):
        distributed.check(64)


def test_a_mini_batch_of_fewer_images_than_processes_is_left_out(monkeypatch):
    images, labels = (torch.from_numpy(array[:35]) for array in data.load_digits())
    monkeypatch.setattr(distributed, "processes", lambda: 4)
    monkeypatch.setattr(distributed, "average_gradients", lambda optimizers: None)
    monkeypatch.setattr(distributed, "mean", lambda value: value)
    monkeypatch.setattr(distributed, "synchronise", lambda model: None)
    config = replace(CONFIG, batch_size=32)
    training = FloatTraining.begin(small_model(), config, 1)
    assert 1 < training.run_epoch(images, labels, 0).mean < 4
    assert next(iter(training.optimizer.state.values()))["step"] == 1  # 35 images are a mini-batch of 32 and one of 3


def _main(folder: Path) -> None:
    """One of the two processes."""
    torch.set_num_threads(1)
    with distributed.group():
        assert distributed.processes() == 2
        for name, case in CASES.items():
            torch.save(trained(folder / name, case).state_dict(), folder / f"{name}-{distributed.rank()}.pt")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
