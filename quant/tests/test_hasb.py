import pytest
import torch
from torch import nn

from hwsim.assignments import learned_assignments
from hwsim.precision import CATALOG
from quant import data, hasb, train
from quant.bit_allocation import BUDGETS, costs_of, free_layers, widths_of
from quant.convert import prepare
from quant.epochs import JointTraining
from quant.export import export_network
from quant.tests.conftest import small_model
from quant.train import TrainingConfig


class Chain(nn.Module):
    """A network small enough for its whole Hessian."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.image_shape = (1, 4, 4)
        self.first, self.middle, self.last = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 2), nn.Linear(2, 3)

    def forward(self, x):
        return self.last(torch.relu(self.middle(torch.relu(self.first(x)))).flatten(1))


def test_traces_are_those_of_the_hessian():
    model = prepare(Chain(), "double-rounding", (8, 2))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 1, 4, 4), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 3, (6,), generator=generator)
    partner = hasb.FloatPartner(model)
    layer = dict(partner.model.weight_layers())["middle"]
    start = layer.weight.detach().clone()

    def loss(weight):
        values = torch.relu(partner.model.layer("first").operation(images / 255, *two(partner.model.layer("first"))))
        values = torch.relu(layer.operation(values, weight, layer.bias))
        return nn.functional.cross_entropy(
            partner.model.layer("last").operation(values, *two(partner.model.layer("last"))).flatten(1), labels
        )

    def two(one):
        return one.weight, one.bias

    hessian = torch.autograd.functional.hessian(loss, start).reshape(start.numel(), -1)
    exact = float(hessian.trace())
    found = hasb.hessian_traces(partner, images, labels, generator, probes=400, batch_size=4)
    assert set(found) == {"middle"}
    assert found["middle"] == pytest.approx(exact, rel=0.1)
    assert not any(parameter.requires_grad for parameter in partner.parameters())


def test_the_roulette_prefers_wide_widths_in_sensitive_layers():
    chances = hasb.roulette({"a": 0.1, "b": 0.2, "c": 3.0}, (8, 6, 4, 2))
    assert chances["a"] == chances["b"] == [0.25] * 4
    assert chances["c"] == [0.4, 0.3, 0.2, 0.1]


def test_mixing_starts_after_the_warm_up_and_ends_at_a_half():
    shares = [hasb.mixing(epoch, 90) for epoch in range(90)]
    assert shares[:10] == [0.0] * 10 and shares[10] == pytest.approx(0.5 * 11 / 90) and shares[-1] == 0.5


def training(**changes):
    config = TrainingConfig(
        method="hasb", joint_epochs=2, batch_size=32, compare_float=False, **{"budget": 5.0, **changes}
    )
    images, labels = (torch.from_numpy(array[:64]) for array in data.load_digits())
    model = prepare(small_model(), "hasb", config.widths)
    return JointTraining.begin(model, images, labels, config), images, labels


def test_layers_draw_widths_of_their_own_as_often_as_sigma_says():
    step = training()[0].step
    step.begin_epoch(0, 90, 10)
    assert step.drawn(4) == 4
    step.begin_epoch(89, 90, 10)
    names = [name for name, _ in free_layers(step.model)]
    seen = [widths.weight_bits[name] for widths in (step.drawn(4) for _ in range(60)) for name in names]
    share = sum(bits == 4 for bits in seen) / len(seen)
    # A half keeps 4; of the others a fifth to a quarter draws it.
    assert 0.53 < share < 0.71 and set(seen) == {8, 6, 4, 2}
    drawn = step.drawn(2)
    for tensor, bits in drawn.code_bits.items():
        readers = [drawn.weight_bits[name] for name in step.model.readers(tensor) if name in names]
        assert not readers or bits in (8, max(readers))


@pytest.mark.parametrize(
    ("budget_of", "budget", "message"),
    [
        ("average-width", 1.0, r"a budget of average-width must be at least 2 here, .* not 1$"),
        ("cycles", 4.0, r"a budget of cycles must be at least [\d]+ here, .* not 4$"),
        ("weight-traffic", 4.0, r"a budget of weight-traffic must be at least [\d]+ here, .* not 4$"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused_when_training_begins(budget_of, budget, message, monkeypatch):
    with pytest.raises(ValueError, match=message):
        training(budget_of=budget_of, budget=budget)
    # Not even the float network is trained for it.
    monkeypatch.setattr(train, "FloatTraining", None)
    config = TrainingConfig(method="hasb", budget_of=budget_of, budget=budget, compare_float=False)
    with pytest.raises(ValueError, match=message):
        train.train_network(config, progress=False)


@pytest.mark.parametrize("budget_of", BUDGETS)
def test_the_least_budget_that_training_begins_with_can_be_kept_in_the_end(budget_of):
    before = prepare(small_model(), "double-rounding", CATALOG["8-6-4-2"])
    costs = costs_of(before, budget_of)
    least = costs.total(widths_of(before, costs.cheapest))
    run, images, labels = training(budget_of=budget_of, budget=least)
    run.run_epoch(images, labels, 0)
    run.finish()
    assert costs_of(run.model, budget_of).total(run.model.learned["hasb"]) <= least


def test_training_leaves_widths_within_the_budget():
    run, images, labels = training()
    for epoch in range(2):
        run.run_epoch(images, labels, epoch)
    run.finish()
    (assignment,) = learned_assignments(export_network(run.model))
    assert assignment.name == "hasb" and 2 < assignment.average_weight_bits <= 5
