import pytest
import torch

from hwsim.assignments import learned_assignments
from quant import data, sdq
from quant.convert import prepare
from quant.epochs import JointTraining
from quant.export import export_network
from quant.tests.conftest import small_model
from quant.train import TrainingConfig


def training(epochs=4, **changes):
    config = TrainingConfig(
        method="sdq", joint_epochs=epochs, batch_size=16, compare_float=False, **{"budget": 5.0, **changes}
    )
    images, labels = (torch.from_numpy(array[:64]) for array in data.load_digits())
    model = prepare(small_model(), config.widths, method="sdq")
    return JointTraining.begin(model, images, labels, config), images, labels


def test_the_choice_is_hard_fair_and_differentiable():
    logit = torch.tensor(1.0, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    draws, slopes = [], []
    for _ in range(2000):
        upper, lower = sdq.stochastic_choice(logit, 1.0, generator)
        one, other = float(upper.detach()), float(lower.detach())
        assert one + other == pytest.approx(1) and round(one, 5) in (0, 1)
        draws.append(one)
        slopes.append(float(torch.autograd.grad(upper, logit)[0]))
    assert sum(draws) / 2000 == pytest.approx(float(torch.sigmoid(logit.detach())), abs=0.03)
    # The relaxed sample grows with the logit; its mean slope is that of beta, about.
    assert min(slopes) >= 0 and sum(slopes) / 2000 == pytest.approx(0.19, abs=0.05)


def test_bin_regularization_is_the_bias_and_the_variance_of_every_bin():
    layer = training()[0].model.layer("blocks.0.conv1")
    for bits in (8, 4, 2):
        found = float(sdq.bin_regularization(layer, bits).detach())
        step = (layer.weight_scale * 2.0 ** (8 - bits))[:, None, None, None].detach()
        quotient = (layer.weight / step).detach().flatten()
        codes = (layer.switched_codes(bits)).flatten()
        terms = []
        for code in codes.unique().tolist():
            inside = quotient[codes == code].double()
            terms.append(float((inside.mean() - code) ** 2 + inside.var(correction=0)))
        assert found == pytest.approx(sum(terms) / len(terms), rel=1e-3)
    (gradient,) = torch.autograd.grad(sdq.bin_regularization(layer, 4), layer.weight)
    step = layer.weight_scale[:, None, None, None] * 16
    away = layer.weight - layer.quantized_weight(4)
    assert (gradient * away >= 0).all() and float(gradient.abs().max()) > 0 and step.min() > 0


def test_the_search_narrows_layers_until_the_budget_holds():
    run, images, labels = training(budget=3.5)
    search = run.step._search
    assert search.average_bits() == 8
    averages = []
    for epoch in range(4):
        run.run_epoch(images, labels, epoch)
        averages.append(search.average_bits())
    assert averages == sorted(averages, reverse=True) and averages[2] <= 3.5 and averages[2] == averages[3]
    assert all(layer.blend is None for layer in search.layers.values())
    run.finish()
    (assignment,) = learned_assignments(export_network(run.model))
    assert assignment.name == "sdq" and assignment.average_weight_bits == pytest.approx(averages[-1])
    inner = [one for name, one in assignment.layers.items() if name in search.layers]
    assert {one.activation_bits for one in inner} == {8}


def test_layers_that_lose_little_are_pressed_most():
    search = training()[0].step._search
    layers = list(search.layers.values())
    with torch.no_grad():
        layers[0].weight.copy_(layers[0].quantized_at(6))
    (gradient,) = torch.autograd.grad(search.penalty(), search.logits)
    assert int(gradient.argmax()) == 0 and (gradient > 0).all()


def test_the_blended_forward_is_one_of_both_widths_and_beta_has_a_gradient():
    run, images, labels = training()
    search = run.step._search
    run.model.train()
    widths = search.draw(torch.Generator().manual_seed(3))
    for layer, bits in zip(search.layers.values(), [widths.weight_bits[name] for name in search.layers], strict=True):
        assert bits in (8, 6)
        assert torch.allclose(layer.quantized_weight(bits), layer.quantized_at(bits), rtol=1e-5, atol=1e-7)
    loss, _ = run.step.loss_of(widths, images, labels)
    (gradient,) = torch.autograd.grad(loss, search.logits)
    assert (gradient != 0).all()


def test_the_search_goes_on_where_it_was():
    run = training()[0]
    search = run.step._search
    search.pairs[1], search.logits.data[2] = 2, 0.25
    state = {name: value.clone() for name, value in run.step.state().items()}
    other = training()[0].step
    other.load_state(state)
    assert other._search.upper_widths() == search.upper_widths() and torch.equal(other._search.logits, search.logits)


def test_only_average_widths_are_searched_for():
    with pytest.raises(ValueError, match="sdq searches for an average-width, not for cycles"):
        training(budget_of="cycles", budget=1000.0)
    with pytest.raises(ValueError, match=r"a budget of average-width must be at least 2 here, .* not 1.5"):
        training(budget=1.5)
    with pytest.raises(ValueError, match=r"sdq chooses between widths: widths must be at least two, not \{4\}"):
        prepare(small_model(), (4,), method="sdq")
