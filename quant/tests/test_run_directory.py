import csv
import dataclasses
import json

import pytest
import torch

from hwsim.precision import WidthSet
from quant import data, epochs, models, train
from quant.data import Split
from quant.run_directory import RunDirectory
from quant.tests.conftest import small_model
from quant.train import TrainingConfig, train_float, train_network
from quant.training_state import load_optimizer, load_state, optimizer_tensors, save_state


@pytest.fixture
def tiny(monkeypatch):
    images, labels = data.load_digits()
    split = Split(
        train_images=images[:48],
        train_labels=labels[:48],
        test_images=images[48:80],
        test_labels=labels[48:80],
        test_indices=data.fold_indices(labels, 5, 0)[0][:32],
    )
    monkeypatch.setitem(models.ARCHITECTURES, "small", small_model)
    monkeypatch.setattr(train, "load_split", lambda config, progress: split)
    return TrainingConfig(
        architecture="small",
        widths=WidthSet((8, 2)),
        float_epochs=2,
        joint_epochs=2,
        batch_size=24,
        self_distillation=0.5,
        block_replacement=0.5,
    )


def interrupt_after(monkeypatch, count):
    """Let this many epochs of any stage run, then stop in the middle of the next."""
    left = [count]

    def interrupted(run):
        def run_epoch(self, images, labels, epoch):
            if left[0] == 0:
                run(self, images[:24], labels[:24], epoch)
                raise KeyboardInterrupt
            left[0] -= 1
            return run(self, images, labels, epoch)

        return run_epoch

    for stage in (epochs.FloatTraining, epochs.JointTraining):
        monkeypatch.setattr(stage, "run_epoch", interrupted(stage.run_epoch))


@pytest.mark.parametrize(
    "changes",
    [{}, {"channels_last": True}, {"channels_last": True, "bfloat16": True, "optimizer": "sgd"}],
    ids=["as it comes", "channels last", "channels last in bfloat16, sgd"],
)
def test_a_run_interrupted_in_every_stage_ends_with_the_same_bits(tiny, tmp_path, monkeypatch, changes):
    tiny = dataclasses.replace(tiny, **changes)
    whole = train_network(tiny, progress=False, run_directory=tmp_path / "whole")
    # 1 of 2 epochs of the float network, 1 of 2 jointly, 1 of 4 of the float network to compare.
    for more, done in ((1, 1), (2, 3), (2, 5)):
        with monkeypatch.context() as patched:
            interrupt_after(patched, more)
            with pytest.raises(KeyboardInterrupt):
                train_network(tiny, progress=False, run_directory=tmp_path / "parts", resume=True)
        assert len(json.loads((tmp_path / "parts" / "metrics.json").read_text())) == done
    resumed = train_network(tiny, progress=False, run_directory=tmp_path / "parts", resume=True)
    state = resumed.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.model.state_dict().items())
    assert resumed.accuracies == whole.accuracies and resumed.float_accuracy == whole.float_accuracy
    losses = [
        [
            (row["stage"], row["epoch"], row["loss"])
            for row in json.loads((tmp_path / part / "metrics.json").read_text())
        ]
        for part in ("whole", "parts")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 2 + 2 + 4


def test_a_run_directory_tells_what_was_done(tiny, tmp_path):
    plain = train_network(tiny, progress=False)
    result = train_network(tiny, progress=False, run_directory=tmp_path)
    assert torch.equal(plain.model.layer("conv").weight, result.model.layer("conv").weight)
    assert TrainingConfig.from_json(json.loads((tmp_path / "config.json").read_text())) == tiny
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["stage"], row["epoch"]) for row in rows[:4]] == [
        ("float", "1"), ("float", "2"), ("joint", "1"), ("joint", "2"),
    ]  # fmt: skip
    assert float(rows[3]["accuracy_W8A8"]) == result.accuracies["W8A8"] and rows[3]["accuracy_float32"] == ""
    for row in rows[2:4]:
        losses = [float(row[name]) for name in ("loss_W8A8", "loss_W2A2")]
        assert sum(losses) / 2 == pytest.approx(float(row["loss"])) and losses[0] != losses[1]
    assert rows[0]["loss_W8A8"] == "" and rows[0]["loss_float32"] == rows[0]["loss"]
    assert float(rows[-1]["accuracy_float32"]) == result.float_accuracy
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_only_the_same_run_is_resumed(tiny, tmp_path):
    short = dataclasses.replace(tiny, float_epochs=1, joint_epochs=1, compare_float=False)
    train_network(short, progress=False, run_directory=tmp_path)
    with pytest.raises(ValueError, match=r"was made with seed = 0, not 1: resume it with the same configuration"):
        RunDirectory(tmp_path, dataclasses.replace(short, seed=1), resume=True)
    with pytest.raises(ValueError, match=r"was made with widths = \[8, 2\], not \[8, 4\]"):
        RunDirectory(tmp_path, dataclasses.replace(short, widths=WidthSet((8, 4))), resume=True)
    assert RunDirectory(tmp_path, short).epochs_done("float") == 0
    (tmp_path / "training_state.safetensors").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"training_state.safetensors is damaged or no safetensors file"):
        RunDirectory(tmp_path, short, resume=True)
    with pytest.raises(ValueError, match="can only be resumed in its run directory, and none is given"):
        train_network(short, resume=True)


def test_states_of_another_kind_are_refused(tmp_path):
    save_state(tmp_path / "a", {"x": torch.ones(2)}, {"format": "other"})
    with pytest.raises(ValueError, match="must be a bitswitch training state of version 1, not other of version 1"):
        load_state(tmp_path / "a")


def test_optimizers_go_on_as_they_were():
    first, second = (torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    optimizers = [torch.optim.AdamW([parameter], lr=0.1, fused=True) for parameter in (first, second)]
    for target in (3.0, 4.0):
        first.grad = first.detach() * target
        optimizers[0].step()
    second.data.copy_(first.data)
    load_optimizer(optimizers[1], "o.", optimizer_tensors(optimizers[0], "o."))
    for parameter, optimizer in zip((first, second), optimizers, strict=True):
        parameter.grad = torch.tensor([0.5, 0.25])
        optimizer.step()
    assert torch.equal(first, second)


def test_runs_share_the_float_networks_of_another(tiny, tmp_path):
    plain = train_network(tiny, progress=False)
    train_float(tiny, tmp_path / "float", ("float",), progress=False)
    with pytest.raises(ValueError, match=r"the stage compare_float in .* must have 4 epochs, not 0"):
        train_network(tiny, progress=False, float_run=tmp_path / "float")
    train_float(tiny, tmp_path / "float", progress=False)
    stages = [row["stage"] for row in json.loads((tmp_path / "float" / "metrics.json").read_text())]
    assert stages == ["float"] * 2 + ["compare_float"] * 4
    shared = train_network(tiny, progress=False, float_run=tmp_path / "float")
    state = shared.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in plain.model.state_dict().items())
    assert shared.float_accuracy == plain.float_accuracy
    with pytest.raises(ValueError, match=r"the float networks in .* were made with learning_rate = 0.005, not 0.1"):
        train_network(dataclasses.replace(tiny, learning_rate=0.1), float_run=tmp_path / "float")
    with pytest.raises(ValueError, match="holds no run to take float networks from"):
        train_network(tiny, float_run=tmp_path / "none")


def test_a_float_network_that_is_not_annealed_goes_on_to_be_the_one_to_compare_with(tiny, tmp_path):
    going_on = dataclasses.replace(tiny, float_annealed=False)
    plain = train_network(going_on, progress=False)
    annealed = dataclasses.replace(tiny, float_epochs=4)
    train_float(annealed, tmp_path / "annealed", ("float",), progress=False)
    train_float(going_on, tmp_path / "parts", ("float",), progress=False)
    train_float(going_on, tmp_path / "parts", ("compare_float",), progress=False)
    expected, found = (
        {name: load_state(tmp_path / folder / "training_state.safetensors")[0][name] for name in names}
        for folder, names in (
            ("annealed", ["float/model.conv.weight", "float/generator"]),
            ("parts", ["compare_float/model.conv.weight", "compare_float/generator"]),
        )
    )
    assert all(torch.equal(*pair) for pair in zip(expected.values(), found.values(), strict=True))
    rows = json.loads((tmp_path / "parts" / "metrics.json").read_text())
    assert [(row["stage"], row["epoch"]) for row in rows] == [
        ("float", 1), ("float", 2), ("compare_float", 1), ("compare_float", 2),
    ]  # fmt: skip
    whole = json.loads((tmp_path / "annealed" / "metrics.json").read_text())
    assert [row["loss"] for row in rows] == [row["loss"] for row in whole]
    shared = train_network(going_on, progress=False, float_run=tmp_path / "parts")
    assert shared.float_accuracy == plain.float_accuracy == whole[-1]["accuracies"]["float32"]
    state = shared.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in plain.model.state_dict().items())
    with pytest.raises(ValueError, match="were made with joint_epochs = 2, not 3"):
        train_network(dataclasses.replace(going_on, joint_epochs=3), float_run=tmp_path / "parts")


@pytest.mark.parametrize("annealed", [True, False])
def test_the_partner_is_always_an_annealed_float_network(tiny, tmp_path, monkeypatch, annealed):
    partners = []

    class Guided(epochs.BlockReplacement):
        def __init__(self, model, partner, *more):
            super().__init__(model, partner, *more)
            partners.append(partner)

    monkeypatch.setattr(epochs, "BlockReplacement", Guided)
    config = dataclasses.replace(tiny, float_annealed=annealed)
    train_network(config, run_directory=tmp_path, progress=False)
    stage = "float" if annealed else "compare_float"
    state = load_state(tmp_path / "training_state.safetensors")[0]
    network = small_model().eval()
    prefix = f"{stage}/model."
    network.load_state_dict(
        {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    )
    images = torch.from_numpy(data.load_digits()[0][:8])
    with torch.no_grad():
        assert torch.allclose(partners[0](images), network(images / 255), rtol=1e-4, atol=1e-5)
    stages = [row["stage"] for row in json.loads((tmp_path / "metrics.json").read_text())]
    assert stages.count("compare_float") == (4 if annealed else 2)


def test_only_what_makes_float_networks_must_be_the_same_to_go_on_with_them(tiny, tmp_path):
    train_float(tiny, tmp_path, ("float",), progress=False)
    train_float(dataclasses.replace(tiny, joint_learning_rate=0.1), tmp_path, ("float",), progress=False)
    with pytest.raises(ValueError, match="was made with joint_epochs = 2, not 3"):
        train_float(dataclasses.replace(tiny, joint_epochs=3), tmp_path, progress=False)


def test_entries_that_a_run_did_not_know_have_their_first_value(tiny, tmp_path):
    train_network(
        dataclasses.replace(tiny, float_epochs=0, joint_epochs=1, compare_float=False), run_directory=tmp_path
    )
    path = tmp_path / "training_state.safetensors"
    tensors, content = load_state(path)
    del content["config"]["budget"]
    save_state(path, tensors, content)
    config = dataclasses.replace(tiny, float_epochs=0, joint_epochs=1, compare_float=False)
    assert RunDirectory(tmp_path, config, resume=True).epochs_done("joint") == 1
    with pytest.raises(ValueError, match=r"was made with budget = 4.0, not 5.0"):
        RunDirectory(tmp_path, dataclasses.replace(config, budget=5.0), resume=True)


def test_runs_that_kept_only_mean_losses_go_on(tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        interrupt_after(patched, 3)
        with pytest.raises(KeyboardInterrupt):
            train_network(tiny, progress=False, run_directory=tmp_path)
    path = tmp_path / "training_state.safetensors"
    tensors, content = load_state(path)
    for row in content["rows"]:
        del row["losses"]
    save_state(path, tensors, content)
    train_network(tiny, progress=False, run_directory=tmp_path, resume=True)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["stage"] == "joint"]
    assert rows[0]["loss"] != "" and rows[0]["loss_W2A2"] == "" and float(rows[1]["loss_W2A2"]) > 0
    assert (tmp_path / "curves.png").is_file()


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "learning_rate": 0.1},
        {"joint_optimizer": "sgd"},
        {"channels_last": True},
        {"bfloat16": True},
    ],
)
def test_other_ways_to_train_learn_too(tiny, tmp_path, changes):
    longer = dataclasses.replace(
        tiny, float_epochs=10, joint_epochs=6, batch_size=8, shift_pixels=0, joint_learning_rate=0.01,
        self_distillation=0.0, block_replacement=0.0, compare_float=False, **{"learning_rate": 0.02, **changes},
    )  # fmt: skip
    result = train_network(longer, progress=False, run_directory=tmp_path)
    assert all(value.dtype != torch.bfloat16 for value in result.model.state_dict().values())
    assert set(result.accuracies) == {"W8A8", "W2A2"}
    rows = json.loads((tmp_path / "metrics.json").read_text())
    losses = {stage: [row["loss"] for row in rows if row["stage"] == stage] for stage in ("float", "joint")}
    assert losses["float"][-1] < 0.8 * losses["float"][0] and losses["joint"][-1] < 0.9 * losses["joint"][0], losses
