"""Stochastic differentiable quantization (SDQ, Huang et al., ICML 2022, arXiv 2206.04459): widths are learned.

First half of the epochs, the search. Every free layer has a differentiable bit-width parameter: with the chance beta it
runs at the upper one of two adjacent widths of the set, else at the lower one. The draw is a Gumbel-softmax with a hard
sample: forward one of the two quantized weights, backward through both, weighted by the relaxed sample. With w =
lower + beta * (upper - lower), a layer's real width, and c its share of the weights, the search minimises

    loss + multiplier * sum_l p_l * c_l * w_l,    p = 1 / (1 + e / mean e),    e = |Q_lower(W) - W|**2 / var(W):

layers that lose little by rounding pay most for their bits. Every mini-batch moves w by dloss/dw / c, the gradient for
a bit more of the average width, over the root of the sum of all its squares so far (AdaGrad's step, one for all layers,
so that the sizes of gradients count). The multiplier is then the one that keeps sum_l c_l * w_l to a plan: down to the
budget in the first quarter of the search, and at it afterwards. It thereby is on the scale of the loss. At the end
widths are rounded within the budget (:func:`rounded`).

Second half. Widths are fixed; the float network teaches (cross entropy of its softmax), and bin regularization pulls
weights to the values they are rounded to: for every bin the squared distance of its mean to its level plus its
variance, which is the mean squared distance of its weights to the level.

Form of the regularization. The paper sums over bins and layers; here distances are in steps of the layer's width, each
bin counts the same however few weights it holds, and the mean is taken over bins and then over layers, so that its
weight of 0.1 is not the paper's lambda_E of the same value. The paper also normalises weights for evenly filled bins:
(2**(b-1) / (2**b - 1)) * |W| / ||W||_1 * W, which fixes the mean magnitude to about half of the range. With weight
scales that all widths share this would be a choice of the scale: it is left out, since it does not help. On the digits
(three seeds, 6 epochs at W8/6/4/8/2) the loss in training ends at 0.152 without regularization, at 0.152 with it, at
0.153 with scales normalised once, and at 0.154 with scales held so; at W2/4/2/4/2 at 0.159, 0.158, 0.159 and 0.164.
The accuracies, within 0.3 point of each other, tell none of the four apart.

The paper's equations were available to us through a summary only. The pairs, the stochastic draw, the penalty weighted
by quantization errors, and distillation are from there; the penalty's form and multiplier, the steps, and the end of
the search are ours. So is that a layer can take back a width: the paper prunes the upper width when beta falls below a
threshold, and here beta 0 of a pair is beta 1 of the next in both directions, since the gradient of one mini-batch is
mostly noise.

Activations have one width, the highest of the set. The paper does not learn theirs either: its tables have weights of
mixed widths with activations of 32, 4 or 2 bits, and of 8 bits on the accelerator it measures (Bit Fusion). The learned
widths are exported under the name ``sdq``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim import spec
from quant import distributed, functional
from quant.bit_allocation import AVERAGE_WIDTH, Table, costs_of, free_layers, leave_assignment, widths_of
from quant.block_replacement import FloatPartner
from quant.double_rounding import JointStep
from quant.layers import QuantWeightLayer
from quant.switchable import SwitchableNetwork, Widths

LEARNED = "sdq"
SEARCH_SHARE = 0.5
"""Share of the epochs that search."""

FALL_SHARE = 0.25
"""Share of the search in which the average width falls; in the rest it stays at the budget."""

STEP_BITS = 1.0
"""What the step of the search is multiplied by, in bits."""

LEAST_CHANCE = 0.05
"""Of either width of a pair: what is never drawn has no gradient, and its BatchNorm set learns nothing."""

TEMPERATURE = 1.0
BIN_WEIGHT = 0.1


def stochastic_choice(logit: Tensor, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return (upper, lower): one is 1 and the other 0, with the gradients of the relaxed sample.

    Parameters
    ----------
    logit : Tensor with one element
        log(beta / (1 - beta)).
    temperature : float
        Of the Gumbel-softmax.
    generator : torch.Generator
    """
    uniform = torch.rand(2, generator=generator).clamp(1e-6, 1 - 1e-6)
    noise = -torch.log(-torch.log(uniform))
    scores = torch.stack([F.logsigmoid(logit), F.logsigmoid(-logit)]) + noise
    relaxed = torch.softmax(scores / temperature, 0)
    hard = F.one_hot(relaxed.argmax(), 2).to(relaxed)
    upper, lower = hard - relaxed.detach() + relaxed
    return upper, lower


def bin_regularization(layer: QuantWeightLayer, bits: int) -> Tensor:
    """Return the mean over a layer's bins of the mean squared distance of their weights to the bin's level, in steps.

    Parameters
    ----------
    bits : int
        The layer's width.
    """
    quantized = layer.quantized_weight(bits).detach()
    step = functional.per_channel(layer.weight_scale.detach(), layer.weight)
    step = step * 2.0 ** spec.switch_scale_exponent(layer.stored_bits, bits)
    distances = ((layer.weight - quantized) / step).square().flatten()
    codes = torch.round(quantized / step).to(torch.int64).flatten()
    bins = codes - codes.min()
    counts = torch.bincount(bins)
    return (distances / counts[bins]).sum() / (counts > 0).sum()


def lowered(bits: Tensor, pressures: Tensor, shares: Tensor, average: float, low: float, high: float) -> Tensor:
    """Return ``clamp(bits - multiplier * pressures, low, high)``, whose mean weighted by ``shares`` is ``average``.

    Parameters
    ----------
    bits : float tensor of shape (layers,)
    pressures, shares : float tensor of shape (layers,)
        Positive; the shares add up to 1.
    average : float
        low <= average <= high.
    """
    # The mean falls with the multiplier in straight lines between those at which a layer reaches a limit.
    corners = torch.cat([(bits - high) / pressures, (bits - low) / pressures]).double().sort().values
    means = ((bits - corners[:, None] * pressures).clamp(low, high) * shares).sum(1)
    multiplier = float(np.interp(-average, -means.numpy(), corners.numpy()))
    return (bits - multiplier * pressures).clamp(low, high)


def rounded(bits: Mapping[str, float], costs: Table, budget: float) -> dict[str, int]:
    """Return widths of the set within a budget from real ones, by lifting all of these together from far below.

    A layer gets the next width as soon as its lifted one is above the width it has, unless that is beyond the budget:
    then it keeps the width it has. Layers of equal real widths thus get equal ones, and a layer that is more than a
    step of the set below another can give its bits to that one.

    Parameters
    ----------
    bits : mapping of str to float
        Layer -> width.
    costs : mapping of str to mapping of int to float
        Layer -> width of the set -> its cost, which grows with the width.
    budget : float
        At least what the lowest widths cost.
    """
    chosen = {name: min(costs[name]) for name in bits}
    rises = [(low - bits[name], name, low, next_) for name in bits for low, next_ in pairwise(sorted(costs[name]))]
    for _, name, low, next_ in sorted(rises):
        total = sum(costs[other][width] for other, width in chosen.items())
        # Shares of the weights add up to 1 but for their rounding.
        if chosen[name] == low and total + costs[name][next_] - costs[name][low] <= budget + 1e-9:
            chosen[name] = next_
    return chosen


@dataclass(frozen=True, kw_only=True)
class StochasticStep(JointStep):
    """One mini-batch of SDQ.

    Parameters
    ----------
    generator : torch.Generator
        Of the draws.
    average_bits : float
        Average width of a weight, pinned layers left out, at which the search ends.
    partner : FloatPartner
        The teacher.
    """

    generator: torch.Generator
    average_bits: float
    partner: FloatPartner
    _search: _Search = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_search", _Search(self.model, self.average_bits))

    def begin_epoch(self, epoch: int, epochs: int, batches: int) -> None:
        """Go on searching, or settle for widths when the search's share of the epochs is over."""
        self._search.begin_epoch(epoch, epochs, batches)

    def run(
        self, images: Tensor, targets: Tensor, learning_rate: float, scale_learning_rate: float
    ) -> dict[str, float]:
        """Train on one mini-batch and return its loss, named ``sdq``; parameters as in ``TrainingStep``."""
        search = self._search
        searching = not search.over
        if searching:
            widths = search.draw(self.generator)
        else:
            widths = search.widths()
            with torch.no_grad():
                targets = self.partner(images).softmax(1)
        loss, _ = self.loss_of(widths, images, targets)
        total = loss if searching else loss + self._bins(widths)
        total.backward()  # type: ignore[no-untyped-call]
        self.average_gradients()
        self.set_rates(learning_rate, scale_learning_rate)
        self.weight_optimizer.step()
        self.scale_optimizer.step()
        if searching:
            search.step()
        search.clear()
        self.clear_gradients()
        return {LEARNED: float(loss.detach())}

    def _bins(self, widths: Widths) -> Tensor:
        names = [name for name, _ in free_layers(self.model)]
        layers = dict(self.model.weight_layers())
        terms = [bin_regularization(layers[name], widths.weight_bits[name]) for name in names]
        return BIN_WEIGHT * torch.stack(terms).mean()

    def tested(self) -> dict[str, int | Widths]:
        """Return the widths that the search settles for if it ends here."""
        return {LEARNED: self._search.widths()}

    def finish(self) -> None:
        """Leave the learned widths in the model."""
        self._search.settle()
        leave_assignment(self.model, LEARNED, self._search.widths())

    def state(self) -> dict[str, Tensor]:
        """Return the search's state."""
        return self._search.state()

    def load_state(self, state: dict[str, Tensor]) -> None:  # type: ignore[override]
        """Take what :meth:`state` returned."""
        self._search.load_state(state)


class _Search:
    """The bit-width parameter of every free layer: a real number, between the two widths of the layer's pair."""

    def __init__(self, model: SwitchableNetwork, budget: float) -> None:
        self.model = model
        self.budget = budget
        self.layers = {name: layer for name, layer in model.weight_layers() if not model.is_pinned(name)}
        self.costs = costs_of(model, AVERAGE_WIDTH).table
        highest = model.width_set.highest
        self.shares = torch.tensor([self.costs[name][highest] / highest for name in self.layers])
        self.bits = nn.Parameter(torch.full((len(self.layers),), float(highest)))
        # Sum over all steps of the squared gradient of the average width.
        self.squares = torch.zeros(())
        self.over = budget >= highest
        self.steps_done, self.falling_steps = 0, 1

    def begin_epoch(self, epoch: int, epochs: int, batches: int) -> None:
        search_epochs = max(1, round(SEARCH_SHARE * epochs))
        if epoch >= search_epochs:
            self.settle()
        self.steps_done = epoch * batches
        self.falling_steps = max(1, round(FALL_SHARE * search_epochs * batches))

    def pairs(self) -> list[tuple[int, int]]:
        """Return (upper, lower) of every layer: adjacent widths with lower < bits <= upper, or the lowest pair."""
        widths = self.model.width_set.widths
        adjacent = list(pairwise(widths))
        return [next((pair for pair in adjacent if pair[1] < bits), adjacent[-1]) for bits in self.bits.tolist()]

    def betas(self) -> Tensor:
        """Return the chance of each layer's upper width, kept from 0 and 1; the gradient passes straight through."""
        upper, lower = torch.tensor(self.pairs(), dtype=self.bits.dtype).T
        beta = (self.bits - lower) / (upper - lower)
        return beta + (beta.clamp(LEAST_CHANCE, 1 - LEAST_CHANCE) - beta).detach()

    def draw(self, generator: torch.Generator) -> Widths:
        """Return drawn widths; the layers blend both widths of their pair, one with the factor 1."""
        chosen = {}
        logits = torch.logit(self.betas())
        for (name, layer), (upper, lower), logit in zip(self.layers.items(), self.pairs(), logits, strict=True):
            kept, given_up = stochastic_choice(logit, TEMPERATURE, generator)
            if float(kept.detach()) > 0.5:
                layer.blend, chosen[name] = (kept, lower, given_up), upper
            else:
                layer.blend, chosen[name] = (given_up, upper, kept), lower
        return widths_of(self.model, chosen, self.model.width_set.highest)

    @torch.no_grad()
    def pressures(self) -> Tensor:
        """Return the weight of each layer in the penalty: 1 / (1 + error / mean error), at the pairs' lower widths.

        The mean is of the layers with the same lower width. A bit less makes every layer's error four times as large,
        and what that costs is in the gradients already.
        """
        lower = torch.tensor([pair[1] for pair in self.pairs()])
        errors = [
            float((layer.quantized_at(bits) - layer.weight).square().mean() / (layer.weight.var() + 1e-12))
            for layer, bits in zip(self.layers.values(), lower.tolist(), strict=True)
        ]
        error = torch.tensor(errors) + 1e-12
        same = (lower[:, None] == lower).to(error)
        return 1 / (1 + error / (same @ error / same.sum(1)))

    @torch.no_grad()
    def step(self) -> None:
        """Move the widths against their gradients, and then down by the penalty's until the average is as planned."""
        assert self.bits.grad is not None
        distributed.average([self.bits.grad])
        # Of the loss, by a bit that the average width has more in this layer.
        slopes = self.bits.grad / self.shares
        self.squares += (self.shares * slopes.square()).sum()
        moved = self.bits - STEP_BITS * slopes / (self.squares.sqrt() + 1e-12)
        self.steps_done += 1
        widths = self.model.width_set.widths
        fallen = min(1.0, self.steps_done / self.falling_steps)
        average = widths[0] - fallen * (widths[0] - self.budget)
        self.bits.copy_(lowered(moved, self.pressures(), self.shares, average, widths[-1], widths[0]))

    def clear(self) -> None:
        self.bits.grad = None
        for layer in self.layers.values():
            layer.blend = None

    def settled(self) -> dict[str, int]:
        """Return the widths rounded to those of the set, see :func:`rounded`; they stay as they are once settled."""
        bits = dict(zip(self.layers, self.bits.tolist(), strict=True))
        return rounded(bits, self.costs, self.budget)

    def settle(self) -> None:
        """End the search."""
        self.over = True
        settled = self.settled()
        self.bits.data.copy_(torch.tensor([float(settled[name]) for name in self.layers]))

    def widths(self) -> Widths:
        """Return the widths that the search has settled for, or settles for if it ends now."""
        return widths_of(self.model, self.settled(), self.model.width_set.highest)

    def state(self) -> dict[str, Tensor]:
        return {"bits": self.bits.detach(), "squares": self.squares}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        self.bits.copy_(state["bits"])
        self.squares.copy_(state["squares"])
