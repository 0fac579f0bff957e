"""The options of the verb train: what they ask of quant, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

import bitswitch

pytest.importorskip("torch")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Arguments that the verb trains with, instead of training."""
    seen: dict[str, Any] = {}

    def stop(config: Any, **options: Any) -> None:
        seen.update(options, config=config)
        raise ValueError("stopped here")

    monkeypatch.setattr("quant.train.train_network", stop)
    return seen


def test_data_choose_the_configuration_to_start_from(asked: dict[str, Any], tmp_path: Path) -> None:
    words = "--data cifar10 --data-path x.tar.gz --method any-precision --widths 8,2 --self-distillation 0.7 --resume"
    words += " --bfloat16 --alrs-decay 0.25 --device cuda --batch-size 96 --learning-rate 0.2"
    words += " --joint-learning-rate 0.003 --scale-learning-rate 0.002 --shared-weight-rate 0.25 --alrs equation-6"
    assert bitswitch.main(["train", *words.split(), "--out", str(tmp_path)]) == bitswitch.REFUSED
    config = asked["config"]
    assert (config.architecture, config.data, config.data_path, config.flip) == (
        "resnet20",
        "cifar10",
        "x.tar.gz",
        True,
    )
    assert (config.method, config.widths.widths, config.self_distillation) == ("any-precision", (8, 2), 0.7)
    assert config.bfloat16 and config.channels_last
    assert (config.batch_size, config.learning_rate, config.alrs) == (96, 0.2, "equation-6")
    assert (config.joint_learning_rate, config.scale_learning_rate) == (0.003, 0.002)
    assert config.shared_weight_rate == 0.25
    assert config.alrs_decay == 0.25 and asked["device"] == "cuda"
    assert asked["resume"] and asked["run_directory"] == tmp_path


def test_a_plain_run_is_that_of_the_digits_and_starts_over(asked: dict[str, Any], tmp_path: Path) -> None:
    from quant.train import TrainingConfig

    assert bitswitch.main(["train", "--out", str(tmp_path)]) == bitswitch.REFUSED
    assert asked["config"] == TrainingConfig() and not asked["resume"] and asked["device"] == "cpu"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--data images", "images by class need a data_path, not None"),
        ("--data mnist", "data must be one of digits, cifar10, images, not 'mnist'"),
        ("--method lsq", "lsq trains a network for each width: widths must be one width, not {8, 6, 4, 2}"),
        (
            "--method magic",
            "the method must be one of double-rounding, truncation-ready, any-precision, lsq, hasb, sdq, hot-swap,",
        ),
        ("--model vgg", "the architecture must be one of digits, resnet20, not 'vgg'"),
        ("--data cifar10 --folds 3", "--folds is for the digits, and such a run cannot be resumed"),
        ("--method hasb --budget 1", "a budget of average-width must be at least 2 here, with every layer at its"),
        ("--method hasb --budget-of cycles", "a budget of cycles must be at least 3454 here, with every layer at its"),
        ("--method sdq --budget-of cycles", "sdq searches for an average-width, not for cycles"),
        ("--device abacus", "the device must be one that this PyTorch can use, not 'abacus': "),
        ("--alrs magic", "alrs must be one of decay, equation-6, not 'magic'"),
        ("--self-distillation 2", "self_distillation must be 0 .. 1, not 2.0"),
        ("--data images --data-path none --model resnet20", "none is neither a folder nor a tar archive of images"),
    ],
)
def test_what_cannot_be_trained_is_told_in_a_sentence(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bitswitch.main(["train", *words.split(), "--out", str(tmp_path)]) == bitswitch.REFUSED
    told = capsys.readouterr().err
    assert told.startswith(f"bitswitch train: {message}") and told.count("\n") == 1


def test_a_process_that_leaves_writing_to_another_is_silent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from types import SimpleNamespace

    result = SimpleNamespace(checkpoint=None, float_accuracy=None, accuracies={8: 50.0})
    monkeypatch.setattr("quant.train.train_network", lambda config, **options: result)
    report = tmp_path / "report.json"
    assert bitswitch.main(["train", "--out", str(tmp_path), "--json", str(report)]) == 0
    assert capsys.readouterr().out == "" and not report.exists()


def test_the_demo_is_of_networks_that_are_stored_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bitswitch.main(["demo", "--method", "hot-swap", "--out", str(tmp_path / "demo")]) == bitswitch.REFUSED
    assert "the demo runs one stored network at every width, and hot-swap" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


OWN = """
from torch import nn

from quant import models


class Own(nn.Sequential):
    image_shape = (1, 8, 8)

    def __init__(self, classes):
        super().__init__(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, classes))


models.register("own", Own)
"""


def test_a_network_of_ones_own_goes_through_the_verbs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from quant import models

    def bitswitch_status(verb: str, *arguments: object) -> int:
        # Each verb is a process of its own, which knows the catalog only.
        monkeypatch.setattr(models, "ARCHITECTURES", dict(catalog))
        return bitswitch.main([verb, *map(str, arguments)])

    catalog = dict(models.ARCHITECTURES)
    named = "--architectures", tmp_path / "own.py"
    checkpoint, network = tmp_path / bitswitch.CHECKPOINT, tmp_path / bitswitch.NETWORK
    named[1].write_text(OWN)
    few = "--model", "own", "--float-epochs", 1, "--joint-epochs", 1, "--widths", "8,2", "--out", tmp_path
    assert bitswitch_status("train", *few, *named) == 0
    assert bitswitch_status("export", checkpoint, *named) == 0
    assert bitswitch_status("verify", network, "--images", 8, *named) == 0
    capsys.readouterr()
    assert bitswitch_status("verify", network, "--images", 8) == bitswitch.REFUSED
    assert "the architecture must be one of digits, resnet20, not 'own'" in capsys.readouterr().err
    assert bitswitch_status("export", checkpoint, "--architectures", tmp_path / "none.py") == bitswitch.REFUSED
    assert f"--architectures must name a Python file, not {tmp_path / 'none.py'}" in capsys.readouterr().err
