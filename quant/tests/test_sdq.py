import copy
from dataclasses import replace

import pytest
import torch

from hwsim.assignments import learned_assignments
from quant import data, sdq
from quant.convert import prepare
from quant.epochs import FloatTraining, JointTraining
from quant.export import export_network
from quant.tests.conftest import small_model
from quant.train import TrainingConfig


def training(epochs=4, **changes):
    config = TrainingConfig(
        method="sdq", joint_epochs=epochs, batch_size=16, compare_float=False, **{"budget": 5.0, **changes}
    )
    images, labels = (torch.from_numpy(array[:64]) for array in data.load_digits())
    model = prepare(small_model(), "sdq", config.widths)
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


def test_real_widths_are_lowered_to_an_average():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        bits = 8 * torch.rand(7, generator=generator) + 1
        pressures = torch.rand(7, generator=generator) + 0.1
        shares = torch.rand(7, generator=generator)
        shares = shares / shares.sum()
        average = float(2 + 6 * torch.rand((), generator=generator))
        found = sdq.lowered(bits, pressures, shares, average, 2, 8)
        assert float((found * shares).sum()) == pytest.approx(average, abs=1e-5)
        assert 2 <= found.min() and found.max() <= 8
        # One multiplier for all that are inside the limits.
        inside = (found > 2) & (found < 8)
        multipliers = ((bits - found) / pressures)[inside]
        assert multipliers.numel() == 0 or float(multipliers.max() - multipliers.min()) < 1e-3
    for limit in (2.0, 8.0):
        assert torch.equal(sdq.lowered(bits, pressures, shares, limit, 2, 8), torch.full((7,), limit))


def test_widths_are_rounded_within_the_budget():
    shares = {"a": 0.12, "b": 0.12, "c": 0.24, "d": 0.03, "e": 0.49}
    costs = {name: {bits: bits * share for bits in (8, 6, 4, 2)} for name, share in shares.items()}

    def rounded(bits, budget):
        return list(sdq.rounded(dict(zip(shares, bits, strict=True)), costs, budget).values())

    # Where e goes down to 2, its bits are there for others; a step further apart than the others is needed for that.
    assert rounded((6.2, 4.7, 4.2, 5.4, 3.1), 4.0) == [8, 6, 4, 8, 2]
    assert rounded((4.6, 4.6, 4.0, 4.2, 3.7), 4.0) == [4, 4, 4, 4, 4]
    assert rounded((4.0,) * 5, 3.99) != [4] * 5
    assert rounded((3.0,) * 5, 2.0) == [2] * 5 and rounded((3.0,) * 5, 8.0) == [8] * 5
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        bits = (2 + 6 * torch.rand(5, generator=generator)).tolist()
        budget = float(2 + 6 * torch.rand((), generator=generator))
        chosen = dict(zip(shares, rounded(bits, budget), strict=True))
        spent = sum(costs[name][width] for name, width in chosen.items())
        # No layer can have its next width.
        left = [costs[name][width + 2] - costs[name][width] for name, width in chosen.items() if width < 8]
        assert spent <= budget + 1e-9 and all(spent + more > budget for more in left)


def test_the_search_falls_to_the_budget_and_ends_there():
    run, images, labels = training(budget=3.5)
    search = run.step._search
    averages = []
    for epoch in range(4):
        run.run_epoch(images, labels, epoch)
        averages.append(float((search.bits.detach() * search.shares).sum()))
        assert search.over == (epoch >= 2)
    assert averages[:2] == pytest.approx([3.5, 3.5], abs=1e-5) and averages[2] == averages[3] <= 3.5
    assert all(layer.blend is None for layer in search.layers.values())
    run.finish()
    (assignment,) = learned_assignments(export_network(run.model))
    assert assignment.name == "sdq" and assignment.average_weight_bits == pytest.approx(averages[-1])
    inner = [one for name, one in assignment.layers.items() if name in search.layers]
    assert {one.activation_bits for one in inner} == {8}


@pytest.mark.parametrize("budget", [2.0, 8.0])
def test_the_lowest_and_the_highest_budget_leave_no_choice(budget):
    run, images, labels = training(epochs=1, budget=budget)
    run.run_epoch(images, labels, 0)
    run.finish()
    widths = run.model.learned["sdq"].weight_bits
    assert {widths[name] for name in run.step._search.layers} == {int(budget)}


def found_bits(slopes, steps=40):
    """Return the real widths after a search in which the loss falls by ``slopes`` for a bit more of the average."""
    search = training()[0].step._search
    search.pressures = lambda: torch.ones(5)
    search.begin_epoch(0, 2, steps)
    for _ in range(steps):
        search.bits.grad = -torch.tensor(slopes) * search.shares
        search.step()
    return search.bits.detach()


def test_the_size_of_a_gradient_decides_and_not_its_sign():
    # All say that more bits are better; the second by three times as much, the fourth by a tenth.
    slopes = [1.0, 3.0, 1.0, 0.1, 1.0]
    bits = found_bits(slopes)
    assert bits[1] > bits[[0, 2, 4]].max() + 1 and bits[3] < bits[[0, 2, 4]].min() - 0.5
    assert torch.allclose(found_bits([1.0] * 5), torch.full((5,), 5.0))
    # The penalty is on the scale of the loss, whatever that is.
    assert torch.allclose(found_bits([100 * slope for slope in slopes]), bits, atol=1e-3)


def test_layers_that_lose_little_are_pressed_most():
    search = training()[0].step._search
    layers = list(search.layers.values())
    with torch.no_grad():
        layers[0].weight.copy_(layers[0].quantized_at(6))
    pressures = search.pressures()
    assert int(pressures.argmax()) == 0 and (pressures > 0).all() and (pressures <= 1).all()
    assert pressures[0] > 0.9 and pressures[1:].max() < 0.7
    # Errors are compared at one lower width: a layer at 2 bits does not make those at 6 look exact.
    search.bits.data[4] = 3.0
    assert float(search.pressures()[4]) == pytest.approx(0.5)


@pytest.fixture(scope="module")
def learnt():
    """A float network that knows the digits without its first residual branch, which is switched off."""
    torch.set_num_threads(1)
    images, labels = (torch.from_numpy(array[:640]) for array in data.load_digits())
    config = TrainingConfig(
        method="sdq", float_epochs=8, joint_epochs=12, batch_size=16, learning_rate=0.02, shift_pixels=0,
        compare_float=False,
    )  # fmt: skip
    model = small_model()
    branch = model.blocks[0].norm2.weight.requires_grad_(False).zero_()
    floats = FloatTraining.begin(model, config, config.float_epochs)
    for epoch in range(config.float_epochs):
        loss = floats.run_epoch(images, labels, epoch).mean
    # Else no layer would be a sensitive one.
    assert loss < 0.6
    branch.requires_grad_(True)
    return model, images, labels, config


def test_insensitive_layers_lose_their_bits_to_sensitive_ones(learnt):
    model, images, labels, config = learnt
    # Weights stand still, so that the branch that is switched off remains so.
    config = replace(config, joint_learning_rate=1e-9, scale_learning_rate=1e-9)
    run = JointTraining.begin(prepare(copy.deepcopy(model), "sdq", config.widths), images, labels, config)
    for epoch in range(config.joint_epochs // 2):
        run.run_epoch(images, labels, epoch)
    search = run.step._search
    bits = dict(zip(search.layers, search.bits.tolist(), strict=True))
    off = [bits.pop("blocks.0.conv1"), bits.pop("blocks.0.conv2")]
    assert max(off) + 1 < min(bits.values()), (off, bits)


def test_the_learned_widths_of_a_trained_network_are_mixed(learnt):
    model, images, labels, config = learnt
    run = JointTraining.begin(prepare(copy.deepcopy(model), "sdq", config.widths), images, labels, config)
    for epoch in range(config.joint_epochs):
        run.run_epoch(images, labels, epoch)
    run.finish()
    (assignment,) = learned_assignments(export_network(run.model))
    widths = {one.weight_bits for name, one in assignment.layers.items() if name in run.step._search.layers}
    assert len(widths) > 1 and 3 < assignment.average_weight_bits <= 4


def test_the_blended_forward_is_one_of_both_widths_and_beta_has_a_gradient():
    run, images, labels = training()
    search = run.step._search
    run.model.train()
    widths = search.draw(torch.Generator().manual_seed(3))
    assert search.pairs() == [(8, 6)] * 5
    for layer, bits in zip(search.layers.values(), [widths.weight_bits[name] for name in search.layers], strict=True):
        assert bits in (8, 6)
        assert torch.allclose(layer.quantized_weight(bits), layer.quantized_at(bits), rtol=1e-5, atol=1e-7)
    loss, _ = run.step.loss_of(widths, images, labels)
    (gradient,) = torch.autograd.grad(loss, search.bits)
    assert (gradient != 0).all()


def test_the_search_goes_on_where_it_was():
    run, images, labels = training()
    run.run_epoch(images, labels, 0)
    state = {name: value.clone() for name, value in run.step.state().items()}
    other = training()[0].step
    other.load_state(state)
    search, taken = run.step._search, other._search
    assert torch.equal(taken.bits, search.bits) and torch.equal(taken.squares, search.squares) and search.squares > 0
    assert len(set(search.bits.tolist())) > 1


def test_only_average_widths_are_searched_for():
    with pytest.raises(ValueError, match="sdq searches for an average-width, not for cycles"):
        training(budget_of="cycles", budget=1000.0)
    with pytest.raises(ValueError, match=r"a budget of average-width must be at least 2 here, .* not 1.5"):
        training(budget=1.5)
    with pytest.raises(ValueError, match=r"sdq chooses between widths: widths must be at least two, not \{4\}"):
        prepare(small_model(), "sdq", (4,))
