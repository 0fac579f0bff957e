from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from hwsim.precision import WidthSet
from quant import data
from quant.any_precision import RecursiveStep
from quant.convert import prepare
from quant.double_rounding import ScaleOptimizer, initialise_scales, parameter_groups
from quant.steps import cross_entropy_pass
from quant.switchable import set_width
from quant.tests.conftest import small_model


def made():
    images, labels = data.load_digits()
    batch = torch.from_numpy(images[:32]), torch.from_numpy(labels[:32])
    model = prepare(small_model(), "any-precision", WidthSet((8, 4, 2)))
    initialise_scales(model, batch[0])
    return model.train(), *batch


def test_each_width_learns_from_the_next_higher_one():
    model, images, labels = made()
    seen = []

    def watched(bits, batch, targets):
        loss, logits = cross_entropy_pass(model)(bits, batch, targets)
        seen.append((bits, targets, logits.detach()))
        return loss, logits

    groups = parameter_groups(model)
    step = RecursiveStep(
        model=model,
        weight_optimizer=torch.optim.SGD(groups.others, lr=0.1),
        scale_optimizer=ScaleOptimizer(groups.scales, 0.01),
        pass_loss=watched,
    )
    step.run(images, labels, 0.1, 0.01)
    assert [bits for bits, _, _ in seen] == [8, 4, 2]
    assert torch.equal(seen[0][1], labels)
    for higher, lower in pairwise(seen):
        assert torch.equal(lower[1], higher[2].softmax(1)) and not lower[1].requires_grad


def test_one_step_takes_the_mean_gradient_of_all_widths():
    model, images, labels = made()
    groups = parameter_groups(model)
    before = model.layer("blocks.0.conv1").weight.detach().clone()
    expected, targets = torch.zeros_like(before), labels
    for bits in (8, 4, 2):
        logits = set_width(model, bits)(images)
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, targets), model.layer("blocks.0.conv1").weight)
        expected += gradient / 3
        targets = logits.detach().softmax(1)

    class Counted(torch.optim.SGD):
        steps = 0

        def step(self, closure=None):
            Counted.steps += 1
            super().step()

    optimizer = Counted([nn.Parameter(torch.zeros(0)), *groups.others], lr=1.0)
    RecursiveStep(model=model, weight_optimizer=optimizer, scale_optimizer=ScaleOptimizer(groups.scales, 1e-9)).run(
        images, labels, 0.5, 1e-9
    )
    moved = (before - model.layer("blocks.0.conv1").weight.detach()) / 0.5
    assert Counted.steps == 1
    assert torch.allclose(moved, expected, rtol=1e-3, atol=1e-6) and float(expected.abs().max()) > 1e-3
