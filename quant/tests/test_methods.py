import dataclasses

import numpy as np
import pytest
import torch

from hwsim import engine, network_file
from hwsim.assignments import standard_assignments
from hwsim.precision import WidthSet
from hwsim.requantize import build_requantizers
from quant import data
from quant.checkpoint import load_checkpoint, save_checkpoint
from quant.convert import prepare
from quant.deploy import deployed_forward
from quant.epochs import JointTraining
from quant.export import export_network
from quant.hot_swap import deployable
from quant.methods import METHODS
from quant.progress import Progress
from quant.tests.conftest import small_model
from quant.train import TrainingConfig, train_jointly

WIDTHS = {"lsq": WidthSet((4,))}
DISTILLED = [name for name, method in METHODS.items() if not method.own_teacher]


def config_of(method, **changes):
    fields = {"joint_epochs": 1, "batch_size": 32, "compare_float": False, **changes}
    return TrainingConfig(method=method, widths=WIDTHS.get(method, WidthSet((8, 4, 2))), **fields)


def digits(count=64):
    images, labels = data.load_digits()
    return torch.from_numpy(images[:count]), torch.from_numpy(labels[:count])


def trained(config):
    model = prepare(small_model(), config.method, config.widths)
    train_jointly(model, *digits(), config, Progress("", 1, shown=False))
    return model


@pytest.mark.parametrize("guided", [False, True], ids=["plain", "guided"])
@pytest.mark.parametrize("method", METHODS)
def test_what_every_method_trains_is_the_integer_model(method, guided, images, tmp_path):
    extra = {"self_distillation": 0.7 if method in DISTILLED else 0.0, "block_replacement": 0.5} if guided else {}
    compared, names = 0, []
    for model in deployable(trained(config_of(method, **extra))).values():
        network = export_network(model)
        network_file.save(network, tmp_path / "network.safetensors")
        network = network_file.load(tmp_path / "network.safetensors")
        for assignment in standard_assignments(network):
            tables = build_requantizers(network, assignment)
            expected = engine.run(network, assignment, tables, images[:8])
            found = deployed_forward(model, assignment, tables, images[:8])
            assert list(found) == list(expected)
            for key, values in expected.items():
                assert np.array_equal(found[key], values), (assignment.name, key)
                compared += values.size
            names.append(assignment.name)
    assert compared > 8000
    assert (method in names) == (method in ("hasb", "sdq"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns(method):
    config = config_of(method, joint_epochs=12, batch_size=16, joint_learning_rate=2e-2)
    model = prepare(small_model(), method, config.widths)
    training = JointTraining.begin(model, *digits(), config)
    losses = [training.run_epoch(*digits(), epoch).mean for epoch in range(12)]
    # In its second half SDQ learns from the float network, which knows nothing here.
    last = 5 if method == "sdq" else -1
    assert losses[last] < 0.96 * losses[0], losses


@pytest.mark.parametrize("method", DISTILLED)
def test_what_the_highest_width_said_teaches_in_every_method(method):
    images, labels = digits()

    def after_an_epoch():
        config = config_of(method, joint_epochs=3, self_distillation=0.9)
        training = JointTraining.begin(prepare(small_model(), method, config.widths), images, labels, config)
        training.run_epoch(images, labels, 0)
        return training

    training, untaught = after_an_epoch(), after_an_epoch()
    said = training.distillation.current.clone()
    assert torch.equal(said, untaught.distillation.current)
    assert torch.allclose(said.sum(1), torch.ones(64)) and bool((said.max(1).values < 1).all())
    # Had nothing been said, labels alone would teach, and another loss would be learned.
    untaught.distillation.current.copy_(untaught.distillation.labels)
    assert training.run_epoch(images, labels, 1) != untaught.run_epoch(images, labels, 1)
    assert not torch.equal(training.model.layer("linear").weight, untaught.model.layer("linear").weight)
    assert not bool((training.distillation.current == said).all(1).any())


@pytest.mark.parametrize("method", ["double-rounding", "any-precision", "hasb"])
def test_the_pass_that_stands_for_the_highest_width_teaches_once(method):
    images, labels = digits(32)
    config = config_of(method, self_distillation=0.5)
    training = JointTraining.begin(prepare(small_model(), method, config.widths), images, labels, config)
    passes, taught = [], []
    run, record = training.step.pass_loss, training.distillation.record

    def watched_pass(*given):
        loss, logits = run(*given)
        passes.append(logits)
        return loss, logits

    def watched_record(logits):
        taught.append(logits)
        record(logits)

    object.__setattr__(training.step, "pass_loss", watched_pass)
    object.__setattr__(training.step, "record", watched_record)
    training.run_epoch(images, labels, 0)
    assert len(passes) == 3 and [one is passes[0] for one in taught] == [True]


@pytest.mark.parametrize("method", METHODS)
def test_checkpoints_know_their_method(method, tmp_path):
    model = prepare(small_model(), method, WIDTHS.get(method, WidthSet((8, 2))))
    save_checkpoint(model, tmp_path / "a.safetensors", architecture="own")
    loaded = load_checkpoint(tmp_path / "a.safetensors", small_model()).model
    assert loaded.method == method
    rules = {name: layer.switch_rule for name, layer in model.weight_layers()}
    assert {name: layer.switch_rule for name, layer in loaded.weight_layers()} == rules
    assert ("floor" in rules.values()) == (method == "truncation-ready")


def test_unknown_methods_and_widths_a_method_cannot_do_are_refused():
    with pytest.raises(ValueError, match=r"the method must be one of double-rounding, .*, not 'magic'"):
        prepare(small_model(), "magic", (8, 2))
    with pytest.raises(ValueError, match=r"lsq trains a network for each width: widths must be one width, not {8, 2}"):
        prepare(small_model(), "lsq", (8, 2))
    with pytest.raises(ValueError, match=r"lsq weights must have 2 .. 8 bits, not 1"):
        TrainingConfig(method="lsq", widths=WidthSet((1,)))
    with pytest.raises(ValueError, match="the model was prepared for the method any-precision, not double-rounding"):
        model = prepare(small_model(), "any-precision", (8, 4, 2))
        JointTraining.begin(model, *digits(), config_of("double-rounding"))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"method": "magic"}, ValueError, "the method must be one of"),
        ({"alrs": "equation-7"}, ValueError, "alrs must be one of decay, equation-6, not 'equation-7'"),
        ({"self_distillation": 1.5}, ValueError, r"self_distillation must be 0 .. 1, not 1.5"),
        (
            {"method": "sdq", "self_distillation": 0.5},
            ValueError,
            "self_distillation must be 0 with sdq, which learns from the float network, not 0.5",
        ),
        ({"block_replacement": -1.0}, ValueError, r"block_replacement must be 0 .. 100, not -1.0"),
        (
            {"shared_weight_rate": 0.0},
            ValueError,
            r"shared_weight_rate must be over 0 and at most 1, not 0.0",
        ),
        ({"flip": 1}, TypeError, "flip must be True or False, not 1"),
    ],
)
def test_wrong_configurations_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        TrainingConfig(**change)


def test_a_loss_that_is_not_finite_stops_training():
    config = config_of("double-rounding")
    model = prepare(small_model(), "double-rounding", config.widths)
    training = JointTraining.begin(model, *digits(), config)
    model.layer("linear").weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="the loss of joint training became nan in epoch 1: lower the learning rates"):
        training.run_epoch(*digits(), 0)


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("double-rounding", ["W8A8", "W4A4", "W2A2"]),
        ("any-precision", ["W8A8", "W4A4", "W2A2"]),
        ("lsq", ["W4A4"]),
        ("hasb", ["hasb-W8A8", "hasb-W4A4", "hasb-W2A2"]),
        ("sdq", ["sdq"]),
    ],
)
def test_the_loss_of_every_pass_is_kept(method, names):
    config = config_of(method)
    training = JointTraining.begin(prepare(small_model(), method, config.widths), *digits(), config)
    run, passes = training.step.pass_loss, []

    def watched(*given):
        loss, logits = run(*given)
        passes.append(float(loss.detach()))
        return loss, logits

    object.__setattr__(training.step, "pass_loss", watched)
    loss = training.run_epoch(*digits(), 0)
    assert list(loss.passes) == names and len(passes) == 2 * len(names)
    for index, kept in enumerate(loss.passes.values()):
        assert kept == pytest.approx((passes[index] + passes[index + len(names)]) / 2)
    assert loss.mean == pytest.approx(sum(passes) / len(passes))


def test_methods_train_differently():
    states = [trained(config_of(method)).layer("blocks.0.conv1").weight for method in METHODS if method not in WIDTHS]
    plain = config_of("double-rounding")
    # What the highest width said teaches from the second epoch on.
    for extra in (
        {"self_distillation": 0.5, "joint_epochs": 2},
        {"joint_epochs": 2},
        {"block_replacement": 0.5},
        {"alrs": "equation-6"},
        {"shared_weight_rate": 0.25},
    ):
        states.append(trained(dataclasses.replace(plain, **extra)).layer("blocks.0.conv1").weight)
    assert len({state.detach().numpy().tobytes() for state in states}) == len(states)


@pytest.mark.parametrize(
    ("method", "changes"),
    [("hasb", {}), ("sdq", {}), ("hot-swap", {}), ("double-rounding", {"shared_weight_rate": 0.25})],
)
def test_methods_go_on_where_they_were(method, changes):
    config = config_of(method, joint_epochs=4, batch_size=32, budget=5.0, **changes)

    def begin():
        return JointTraining.begin(prepare(small_model(), method, config.widths), *digits(), config)

    whole, first, second = begin(), begin(), begin()
    for epoch in range(4):
        whole.run_epoch(*digits(), epoch)
    first.run_epoch(*digits(), 0)
    first.run_epoch(*digits(), 1)
    second.load_state({name: value.clone() for name, value in first.state().items()})
    second.run_epoch(*digits(), 2)
    second.run_epoch(*digits(), 3)
    state = second.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.model.state_dict().items())
    whole.finish()
    second.finish()
    assert whole.model.learned == second.model.learned and bool(whole.model.learned) == (method in ("hasb", "sdq"))
