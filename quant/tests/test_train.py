import dataclasses
import re

import numpy as np
import pytest
import torch

from hwsim.precision import WidthSet
from quant import models
from quant.checkpoint import load_checkpoint
from quant.epochs import cosine
from quant.switchable import set_width
from quant.tests.conftest import small_model
from quant.train import TrainingConfig, percent_correct, predict, train_network


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(models.ARCHITECTURES, "small", small_model)
    return TrainingConfig(architecture="small", widths=WidthSet((8, 2)), float_epochs=2, joint_epochs=2, batch_size=32)


def test_training_makes_a_checkpoint_that_predicts_the_same(tiny, tmp_path):
    threads = torch.get_num_threads()
    result = train_network(tiny, checkpoint=tmp_path / "runs" / "tiny.safetensors", progress=False)
    assert torch.get_num_threads() == threads
    assert set(result.accuracies) == {"W8A8", "W2A2"} and set(result.seconds) == {"float", "joint", "compare_float"}
    assert result.accuracies["W8A8"] > 25  # chance is 10
    loaded = load_checkpoint(result.checkpoint)
    assert TrainingConfig.from_json(loaded.config) == tiny
    assert loaded.results["accuracies"] == result.accuracies
    images = torch.from_numpy(result.split.test_images)
    for bits in (8, 2):
        assert np.array_equal(predict(loaded.model, bits, images), result.predictions[f"W{bits}A{bits}"])
        assert torch.equal(set_width(loaded.model, bits)(images), set_width(result.model, bits)(images))


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tiny):
    short = dataclasses.replace(tiny, float_epochs=0, joint_epochs=1, compare_float=False)
    first, same, other = (
        train_network(dataclasses.replace(short, seed=seed), progress=False).model.state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["layers.conv.weight"], other["layers.conv.weight"])


def test_progress_is_plain_lines_in_a_log(tiny, capsys):
    train_network(dataclasses.replace(tiny, float_epochs=1, joint_epochs=1, compare_float=False))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(", loss")[0] for line in lines] == ["float network: 1 of 1", "joint training {8, 2}: 1 of 1"]
    assert re.search(r"loss \d\.\d{3}$", lines[0])
    assert re.search(r"loss \d\.\d{3} \(W8A8 \d\.\d{3}, W2A2 \d\.\d{3}\)$", lines[1])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"architecture": "vgg"}, ValueError, "the architecture must be one of digits, resnet20, not 'vgg'"),
        ({"widths": (8, 2)}, TypeError, r"widths must be a WidthSet, not \(8, 2\)"),
        ({"joint_epochs": 0}, ValueError, "joint_epochs must be at least 1, not 0"),
        ({"batch_size": 64.0}, TypeError, "batch_size must be an integer, not 64.0"),
        ({"learning_rate": float("nan")}, ValueError, "learning_rate must be positive and finite, not nan"),
        ({"alrs_decay": 2.0}, ValueError, r"alrs_decay must be 0 .. 1, not 2.0"),
        ({"fold": 5}, ValueError, "the fold must be 0 .. 4, not 5"),
        ({"optimizer": "lion"}, ValueError, "^optimizer must be one of adam, sgd, not 'lion'"),
        ({"joint_optimizer": "adamw"}, ValueError, "joint_optimizer must be one of adam, sgd, not 'adamw'"),
        (
            {"budget_of": "area"},
            ValueError,
            "budget_of must be one of average-width, cycles, weight-traffic, not 'area'",
        ),
        ({"budget": 0.0}, ValueError, "budget must be positive and finite, not 0.0"),
        ({"bfloat16": 1}, TypeError, "bfloat16 must be True or False, not 1"),
        ({"threads": 0}, ValueError, "threads must be at least 1, not 0"),
    ],
)
def test_wrong_configurations_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        TrainingConfig(**change)


def test_an_architecture_for_other_images_is_refused():
    with pytest.raises(ValueError, match=r"resnet20 takes images of \(3, 32, 32\), but the digits are \(1, 8, 8\)"):
        train_network(TrainingConfig(architecture="resnet20"), progress=False)


def test_configurations_survive_json():
    config = TrainingConfig(widths=WidthSet((4, 3, 2)), seed=7, alrs_decay=0.25)
    assert TrainingConfig.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="must have no entry 'speed'"):
        TrainingConfig.from_json({**config.to_json(), "speed": 3})


def test_the_schedule_rises_and_falls():
    rates = [cosine(1.0, step, 100, 10) for step in range(100)]
    assert rates.index(max(rates)) == 10 and max(rates) == 1.0 and rates[-1] < 0.001 and min(rates) > 0


def test_percent_correct():
    assert percent_correct(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 0])) == 75.0
