import pytest
import torch
from torch import nn

from hwsim.precision import CATALOG
from quant import data
from quant.convert import prepare
from quant.double_rounding import (
    JointStep,
    ScaleOptimizer,
    equation_6_rate,
    initialise_scales,
    parameter_groups,
    scaled_learning_rates,
)
from quant.tests.conftest import small_model

SET = CATALOG["8-6-4-2"]


@pytest.fixture
def model():
    model = prepare(small_model(), "double-rounding", SET)
    initialise_scales(model, digits()[0])
    return model.train()


def digits():
    images, labels = data.load_digits()
    return torch.from_numpy(images[:48]), torch.from_numpy(labels[:48])


def step(model, optimizer=None):
    groups = parameter_groups(model)
    return JointStep(
        model=model,
        weight_optimizer=torch.optim.SGD(groups.others, lr=0.1),
        scale_optimizer=optimizer if optimizer is not None else ScaleOptimizer(groups.scales, 0.01),
        alrs_decay=0.1,
    )


def test_learning_rates_are_those_of_the_released_code():
    assert scaled_learning_rates(2.0, SET, 0.1) == pytest.approx({8: 2.0, 6: 0.2, 4: 0.02, 2: 0.002})


def test_scales_and_other_parameters_are_apart_and_complete(model):
    groups = parameter_groups(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    scales = {names[id(parameter)] for parameter in groups.scales}
    assert all("scale" in name for name in scales)
    assert len(groups.scales) + len(groups.others) == len(names)
    assert not any("scale" in names[id(parameter)] for parameter in groups.others)
    switched = [layer for name, layer in model.weight_layers() if not model.is_pinned(name)]
    norms = [layer.batch_norm for layer in switched if layer.batch_norm is not None]
    assert {id(parameter) for parameter in groups.own} == {id(one) for norm in norms for one in norm.parameters()}
    assert len(norms) > 1


def test_what_widths_share_learns_at_its_share_of_the_rate_and_their_batch_norm_at_the_whole():
    moved = []
    for share in (1.0, 0.25):
        torch.manual_seed(0)
        model = prepare(small_model(), "double-rounding", SET).train()
        initialise_scales(model, digits()[0])
        groups = parameter_groups(model)
        trainer = JointStep(
            model=model,
            weight_optimizer=torch.optim.SGD(groups.at_rates(share), lr=1.0),
            scale_optimizer=ScaleOptimizer(groups.scales, 1e-9),
            alrs_decay=1.0,
        )
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        trainer.step_at(4, 4, *digits(), 0.5, 1e-9, 1e-9)
        own = {id(parameter) for parameter in groups.own}
        scales = {id(parameter) for parameter in groups.scales}
        moved.append(
            {
                name: (value.detach() - before[name], id(value) in own)
                for name, value in model.named_parameters()
                if id(value) not in scales and not torch.equal(value, before[name])
            }
        )
    assert moved[0].keys() == moved[1].keys()
    for name, (whole, own) in moved[0].items():
        assert torch.allclose(moved[1][name][0], whole if own else 0.25 * whole, rtol=1e-3, atol=1e-7), name
    assert {own for _, own in moved[0].values()} == {True, False}


def test_the_scale_optimizer_is_adam_on_the_logarithm():
    start = torch.tensor([0.5, 40.0, 1e-3])
    scale, logarithm = nn.Parameter(start.clone()), nn.Parameter(start.log())
    ours, reference = ScaleOptimizer([scale], 0.05), torch.optim.Adam([logarithm], lr=0.05, eps=1e-12)
    for target in (1.0, 3.0, -2.0, 0.1):
        for optimizer, value in ((ours, scale), (reference, logarithm.exp())):
            optimizer.zero_grad()
            ((value - target) ** 2).sum().backward()
            optimizer.step()
    assert scale.tolist() == pytest.approx(logarithm.exp().tolist(), rel=1e-4)


def test_scales_stay_positive_whatever_the_gradient():
    scale = nn.Parameter(torch.tensor(1e-6))
    optimizer = ScaleOptimizer([scale], 0.5)
    for _ in range(100):
        scale.grad = torch.tensor(1e9)
        optimizer.step()
    assert 0 < scale.item() < 1e-7


def test_every_width_runs_once_in_descending_order_with_its_own_rate(model):
    seen = []

    class Watched(ScaleOptimizer):
        def step(self, closure=None):
            seen.append((max(model.widths.code_bits["conv"], 0), self.param_groups[0]["lr"]))
            super().step()

    step(model, Watched(parameter_groups(model).scales, 1.0)).run(*digits(), 0.1, 0.5)
    assert [bits for bits, _ in seen] == [8, 6, 4, 2]
    assert [rate for _, rate in seen] == pytest.approx([0.5, 0.05, 0.005, 0.0005])


def test_a_step_moves_every_parameter_and_every_batch_norm_set(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step(model).run(*digits(), 0.1, 0.01)
    still = [name for name, value in model.state_dict().items() if torch.equal(value, before[name])]
    # 0.01 * 0.1**3 changes a scale by less than its last bit may hold; all others must have moved.
    # A code whose scale is that of the skip code it is made from loses nothing: its gradient is exactly 0.
    lossless = [name for name in still if before.get(name.replace("code.scales.8", "skip.scale")) == before[name]]
    assert [name for name in still if not name.endswith("scales.2") and name not in lossless] == []


def test_initial_scales_fit_every_width_and_leave_batch_norm_alone():
    model = prepare(small_model(), "double-rounding", SET)
    norms = {name: value.clone() for name, value in model.state_dict().items() if "batch_norm" in name}
    initialise_scales(model, digits()[0])
    state = model.state_dict()
    for name, value in norms.items():
        if "num_batches" not in name:
            assert torch.equal(state[name], value)
    scales = [float(model.layer("conv").output.code.scale(bits).detach()) for bits in (8, 6, 4, 2)]
    assert scales == sorted(scales) and scales[0] < scales[-1] / 10
    assert float(model.layer("conv").output.skip.scale.detach()) != 1.0
    assert set(model.widths.weight_bits.values()) == {8}


def test_joint_training_learns(model):
    images, labels = digits()
    groups = parameter_groups(model)
    trainer = JointStep(
        model=model,
        weight_optimizer=torch.optim.Adam(groups.others),
        scale_optimizer=ScaleOptimizer(groups.scales, 0.01),
        alrs_decay=0.1,
    )
    losses = [trainer.run(images, labels, 0.01, 0.01) for _ in range(15)]
    assert list(losses[0]) == ["W8A8", "W6A6", "W4A4", "W2A2"]
    assert sum(losses[-1].values()) < 0.5 * sum(losses[0].values())
    assert all(loss < 0.75 * losses[0][name] for name, loss in losses[-1].items())


def test_equation_6_turns_negative():
    gradients = [torch.tensor([0.02, -0.06]), torch.tensor(-3.0)]
    assert equation_6_rate(1.0, 8, 6, gradients) == pytest.approx(0.1 * (1.0 - (0.06 + 1.0) / 2))
    # The paper's learning rate and the size of gradients in its figure 7: uphill.
    assert equation_6_rate(5e-4, 8, 2, [torch.tensor(0.08)]) == pytest.approx(0.001 * (5e-4 - 0.08))
    assert equation_6_rate(0.5, 4, 4, []) == 0.5


def test_the_step_takes_equation_6_if_asked(model):
    images, labels = digits()
    groups = parameter_groups(model)
    seen = []

    class Watched(ScaleOptimizer):
        def step(self, closure=None):
            gradients = [scale.grad for scale in groups.scales if scale.grad is not None]
            seen.append((self.param_groups[0]["lr"], equation_6_rate(0.5, 8, [8, 6, 4, 2][len(seen)], gradients)))
            super().step()

    JointStep(
        model=model,
        weight_optimizer=torch.optim.SGD(groups.others, lr=0.1),
        scale_optimizer=Watched(groups.scales, 0.1),
        alrs_decay=0.1,
        alrs="equation-6",
    ).run(images, labels, 0.1, 0.5)
    assert len(seen) == 4 and all(used == expected for used, expected in seen)
