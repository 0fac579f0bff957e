"""Double Rounding with adaptive learning-rate scaling (Huang et al., arXiv 2502.01199): joint training of a width set.

For every mini-batch the network runs at each width in descending order (Algorithm A.2): forward with that width's own
BatchNorm and activation scales, backward, one step of the weights at the learning rate lambda, and one step of the
quantization scales at lambda_b.

ALRS is the form of the released code, lambda_b = lambda * decay**k, where k = 0, 1, ... counts the widths downwards.
Equations 6-7 of the paper subtract a gradient term from lambda that is larger than lambda itself for the gradients the
paper plots: lambda_b is then negative and pushes the scales uphill. They are here as an option, for comparisons only,
with the sign as printed, but not with the paper's gradients. Those here are without LSQ's factor 1 / sqrt(Qp * N), Qp
the highest code and N the values that share a scale, which makes no difference to Adam; in eq. 6 they are larger for
it, by a hundred times for the 8-bit weights of a 3 x 3 x 16 kernel, and lambda_b is negative all the sooner. They are
summed over each channel, not over the whole tensor. And where the paper's mean is over L layers, ours is over all
scales of a pass: of weights, activations and skips.

How far a scale moves. The paper's steps are absolute (Adam, 5e-4), so that what lambda_b means depends on the scale: in
a step, an 8-bit activation scale of 0.02 can move by 2.5 %, a 2-bit one of 0.7 by less than a millionth of itself. The
steps here are relative (:class:`ScaleOptimizer`): at a rate of 1e-2 and decay = 0.1 by 1 % at the highest of four
widths and by a thousandth of that at the lowest. Weight scales are shared by all widths and follow the highest. ALRS
here is thus weaker than the paper's, and narrow activation scales still stay where they were fitted unless training is
long: over 10 epochs of CIFAR-10, at its preset's rate of 1e-3 and decay = 0.1, one can move by 0.2 % at most.
``alrs_decay`` = 1 lets them learn, and is what that preset has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hwsim.precision import WidthSet
from quant.layers import OutputQuantizer, QuantMaxPool2d, SwitchableBatchNorm
from quant.steps import RATE_SHARE, TrainingStep, uniform_name
from quant.switchable import SwitchableNetwork, Widths, set_width

DECAY, EQUATION_6 = "decay", "equation-6"
ALRS_FORMS = (DECAY, EQUATION_6)


@dataclass(frozen=True)
class ParameterGroups:
    """The parameters of a prepared model: quantization scales, and everything else; of that, what is one width's own.

    Every width has its own BatchNorm, but for that of pinned layers.
    """

    scales: tuple[nn.Parameter, ...]
    others: tuple[nn.Parameter, ...]
    own: tuple[nn.Parameter, ...]

    def at_rates(self, shared_weight_rate: float) -> list[dict[str, Any]]:
        """Return groups for the optimizer of the others: shares of the learning rate, 1 for what is one width's own."""
        if shared_weight_rate == 1:
            # One group, in the order that states saved without shares have.
            return [{"params": self.others, RATE_SHARE: 1.0}]
        own = {id(parameter) for parameter in self.own}
        shared = [parameter for parameter in self.others if id(parameter) not in own]
        return [{"params": shared, RATE_SHARE: shared_weight_rate}, {"params": self.own, RATE_SHARE: 1.0}]


def parameter_groups(model: SwitchableNetwork) -> ParameterGroups:
    """Return the parameters that ALRS applies to (weight, activation and skip scales) apart from the others."""
    scales: list[nn.Parameter] = []
    for _, layer in model.weight_layers():
        scales.append(layer.weight_scale)
        if layer.reconstruction is not None:
            scales.extend(layer.reconstruction.scales.parameters())
    for module in model.modules():
        if isinstance(module, OutputQuantizer):
            scales.extend(module.parameters())
    chosen = {id(parameter) for parameter in scales}
    others = tuple(parameter for parameter in model.parameters() if id(parameter) not in chosen)
    own = tuple(
        parameter
        for module in model.modules()
        if isinstance(module, SwitchableBatchNorm) and len(module.sets) > 1
        for parameter in module.parameters()
    )
    return ParameterGroups(tuple(scales), others, own)


def scaled_learning_rates(learning_rate: float, width_set: WidthSet, decay: float) -> dict[int, float]:
    """Return lambda_b of every width: ``learning_rate * decay**k``, k = 0, 1, ... in descending order of the widths.

    >>> scaled_learning_rates(1.0, WidthSet((8, 4, 2)), 0.5)
    {8: 1.0, 4: 0.5, 2: 0.25}
    """
    return {bits: learning_rate * decay**index for index, bits in enumerate(width_set.widths)}


def equation_7_factor(highest: int, bits: int) -> float:
    """Return eta_b (eq. 7), D = highest - bits: 10**(-D/2) if D is even, else 5 * 10**(-(D+1)/2).

    >>> [equation_7_factor(8, bits) for bits in (8, 6, 4)], [equation_7_factor(4, bits) for bits in (4, 3, 2)]
    ([1.0, 0.1, 0.01], [1.0, 0.5, 0.1])
    """
    distance = highest - bits
    return 1.0 / 10 ** (distance // 2) if distance % 2 == 0 else 5.0 / 10 ** ((distance + 1) // 2)


def equation_6_rate(learning_rate: float, highest: int, bits: int, gradients: Sequence[Tensor]) -> float:
    """Return lambda_b = eta_b * (lambda - mean over scales of min(max|clip(gradient, -1, 1)|, 1)), eq. 6.

    It is negative as soon as the gradients are larger than lambda, and a step of it climbs the loss.

    Parameters
    ----------
    gradients : sequence of Tensor
        Of every scale that took part in the pass; the paper's are scaled, and one for each layer (see above).
    """
    largest = [min(float(gradient.clamp(-1.0, 1.0).abs().max()), 1.0) for gradient in gradients]
    return equation_7_factor(highest, bits) * (learning_rate - sum(largest) / max(len(largest), 1))


class ScaleOptimizer(torch.optim.Optimizer):
    """Adam on the logarithm of positive parameters: a step of learning rate r changes a scale by about a factor 1 +- r.

    Scales span four orders of magnitude (an 8-bit weight step to a 2-bit activation step), where one absolute step
    size fits nothing; and they stay positive.

    Parameters
    ----------
    parameters : iterable of Parameter
        Positive.
    lr : float
        The learning rate; may be changed between steps.
    betas : tuple of float
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        super().__init__(list(parameters), {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step with the parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            states: list[dict[str, Any]] = [self.state[parameter] for parameter in parameters]
            for parameter, state in zip(parameters, states, strict=True):
                if not state:
                    state |= {"step": 0, "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
                state["step"] += 1
            first, second = group["betas"]
            means, squares = [state["mean"] for state in states], [state["square"] for state in states]
            # All parameters at once: there are a hundred, and they are small.
            gradients = torch._foreach_mul([parameter.grad for parameter in parameters], parameters)
            torch._foreach_lerp_(means, gradients, 1 - first)
            torch._foreach_mul_(squares, second)
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
            changes = torch._foreach_div(means, [1 - first ** state["step"] for state in states])
            deviations = torch._foreach_div(squares, [1 - second ** state["step"] for state in states])
            torch._foreach_sqrt_(deviations)
            torch._foreach_add_(deviations, 1e-12)
            torch._foreach_div_(changes, deviations)
            torch._foreach_mul_(changes, -group["lr"])
            torch._foreach_exp_(changes)
            torch._foreach_mul_(parameters, changes)


@torch.no_grad()
def initialise_scales(model: SwitchableNetwork, images: Tensor) -> None:
    """Set the activation scales of every width, and the skip scales, from one forward pass of ``images`` per width.

    Each tensor's scale is fitted to the values it has when everything before it is already quantized, highest width
    first; BatchNorm uses the statistics of ``images`` meanwhile and learns nothing.

    Parameters
    ----------
    model : SwitchableNetwork
    images : uint8 tensor of shape (n, channels, height, width)
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    widths, training = model.widths, model.training
    try:
        for norm in norms:
            norm.momentum = 0.0
        model.train()
        for index, bits in enumerate(model.width_set):
            set_width(model, bits)

            def fit(name: str, real: Tensor, first: bool = index == 0) -> None:
                layer = model.layer(name)
                assert not isinstance(layer, QuantMaxPool2d)
                if layer.output is not None:
                    layer.output.initialise(real, model.widths.code_bits.get(name), first)

            model(images, fit)
    finally:
        model.widths = widths
        model.train(training)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


@dataclass(frozen=True, kw_only=True)
class JointStep(TrainingStep):
    """One mini-batch of joint training; the widths run in descending order, and each takes its own optimizer steps.

    Parameters
    ----------
    alrs : str
        ``decay``: lambda_b = lambda * alrs_decay**k. ``equation-6``: :func:`equation_6_rate`.
    alrs_decay : float
        Of ``decay``; 1 switches ALRS off.
    """

    alrs_decay: float
    alrs: str = DECAY

    def run(
        self, images: Tensor, targets: Tensor, learning_rate: float, scale_learning_rate: float
    ) -> dict[str, float]:
        """Train on one mini-batch at every width, and return their losses; parameters as in :class:`TrainingStep`."""
        rates = scaled_learning_rates(scale_learning_rate, self.model.width_set, self.alrs_decay)
        return {
            uniform_name(bits): self.step_at(bits, bits, images, targets, learning_rate, rate, scale_learning_rate)
            for bits, rate in rates.items()
        }

    def step_at(
        self,
        widths: int | Widths,
        bits: int,
        images: Tensor,
        targets: Tensor,
        learning_rate: float,
        rate: float,
        scale_learning_rate: float,
    ) -> float:
        """Take one step at ``widths``, which stand for the width ``bits`` of the set, and return the loss.

        Parameters
        ----------
        rate, scale_learning_rate : float
            lambda_b of ``decay``; lambda.
        """
        loss, logits = self.loss_of(widths, images, targets)
        if bits == self.model.width_set.highest:
            self.teach(logits)
        loss.backward()  # type: ignore[no-untyped-call]
        self.average_gradients()
        if self.alrs == EQUATION_6:
            scales = (scale for group in self.scale_optimizer.param_groups for scale in group["params"])
            gradients = [scale.grad for scale in scales if scale.grad is not None]
            rate = equation_6_rate(scale_learning_rate, self.model.width_set.highest, bits, gradients)
        self.set_rates(learning_rate, rate)
        self.weight_optimizer.step()
        self.scale_optimizer.step()
        self.clear_gradients()
        return float(loss.detach())
