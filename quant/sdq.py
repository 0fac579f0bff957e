"""Stochastic differentiable quantization (SDQ, Huang et al., ICML 2022, arXiv 2206.04459): widths are learned.

First half of the epochs, the search. Every free layer has a differentiable bit-width parameter beta between two
adjacent widths of the set: it runs at the upper one with probability beta, else at the lower one. The draw is a
Gumbel-softmax with a hard sample: forward one of the two quantized weights, backward through both, weighted by the
relaxed sample. A penalty pushes beta down, hardest in layers that lose little by the lower width. Once beta is below a
threshold the upper width is given up, and the next pair of widths becomes active. The search ends when the average
width of a weight is within the budget.

Second half. Widths are fixed; the float network teaches (cross entropy of its softmax), and bin regularization pulls
weights to the values they are rounded to: for every bin the squared distance of its mean to its level plus its
variance, which is the mean squared distance of its weights to the level. Each bin counts the same however few weights
it holds, which is all that is entropy-aware here: the paper's normalisation of weights for evenly filled bins is left
to the learned scales.

The paper's equations were available to us through a summary only. The pairs, the stochastic draw, distillation and
lambda_E = 0.1 are from there; the penalty's form, the threshold, and the end of the search by a budget are ours.
Activations have one width, the highest of the set. The paper does not learn theirs either: its tables have weights of
mixed widths with activations of 32, 4 or 2 bits, and of 8 bits on the accelerator it measures (Bit Fusion). The learned
widths are exported under the name ``sdq``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim import spec
from quant import distributed, functional
from quant.bit_allocation import average_width, free_layers, leave_assignment, widths_of
from quant.block_replacement import FloatPartner
from quant.double_rounding import JointStep
from quant.layers import QuantWeightLayer
from quant.switchable import SwitchableNetwork, Widths

LEARNED = "sdq"
SEARCH_SHARE = 0.5
"""Share of the epochs that search at most."""

START = 2.0
"""Logit of beta at the start of a pair: 0.88."""

THRESHOLD = 0.5
TEMPERATURE = 1.0
BETA_LEARNING_RATE = 0.05
PENALTY = 2.0
BIN_WEIGHT = 0.1
"""lambda_E, the best one of the paper's Table 4."""


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
        object.__setattr__(self, "_search", _Search(self.model))

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """End the search when its share of the epochs is over; what is still too wide then goes down by force."""
        if epoch >= max(1, round(SEARCH_SHARE * epochs)):
            self._search.force(self.average_bits)

    def run(
        self, images: Tensor, targets: Tensor, learning_rate: float, scale_learning_rate: float
    ) -> dict[str, float]:
        """Train on one mini-batch and return its loss, named ``sdq``; parameters as in ``TrainingStep``."""
        search = self._search
        searching = search.average_bits() > self.average_bits
        if searching:
            widths = search.draw(self.generator)
        else:
            widths = widths_of(self.model, search.upper_widths(), self.model.width_set.highest)
            with torch.no_grad():
                targets = self.partner(images).softmax(1)
        loss, _ = self.loss_of(widths, images, targets)
        extra = search.penalty() if searching else self._bins(widths)
        (loss + extra).backward()  # type: ignore[no-untyped-call]
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

    def finish(self) -> None:
        """Leave the learned widths in the model."""
        self._search.force(self.average_bits)
        widths = widths_of(self.model, self._search.upper_widths(), self.model.width_set.highest)
        leave_assignment(self.model, LEARNED, widths)

    def state(self) -> dict[str, Tensor]:
        """Return the search's state."""
        return self._search.state()

    def load_state(self, state: dict[str, Tensor]) -> None:  # type: ignore[override]
        """Take what :meth:`state` returned."""
        self._search.load_state(state)


class _Search:
    """Pairs of adjacent widths, and beta, of every free layer."""

    def __init__(self, model: SwitchableNetwork) -> None:
        self.model = model
        self.layers = {name: layer for name, layer in model.weight_layers() if not model.is_pinned(name)}
        # Index of the upper width of the pair in the width set.
        self.pairs = torch.zeros(len(self.layers), dtype=torch.int64)
        self.logits = nn.Parameter(torch.full((len(self.layers),), START))

    def upper_widths(self) -> dict[str, int]:
        widths = self.model.width_set.widths
        return {name: widths[pair] for name, pair in zip(self.layers, self.pairs.tolist(), strict=True)}

    def average_bits(self) -> float:
        return average_width(self.model, self.upper_widths())

    def _lower(self, index: int) -> int | None:
        pair, widths = int(self.pairs[index]), self.model.width_set.widths
        return widths[pair + 1] if pair + 1 < len(widths) else None

    def draw(self, generator: torch.Generator) -> Widths:
        """Return drawn widths; the layers blend both widths of their pair, one with the factor 1."""
        chosen = {}
        for index, (name, bits) in enumerate(self.upper_widths().items()):
            lower = self._lower(index)
            if lower is not None:
                kept, given_up = stochastic_choice(self.logits[index], TEMPERATURE, generator)
                if float(kept.detach()) > 0.5:
                    self.layers[name].blend = kept, lower, given_up
                else:
                    self.layers[name].blend = given_up, bits, kept
                    bits = lower
            chosen[name] = bits
        return widths_of(self.model, chosen, self.model.width_set.highest)

    def penalty(self) -> Tensor:
        """Return the sum of beta times a layer's share of the weights, more where the lower width loses little."""
        errors = []
        with torch.no_grad():
            for index, layer in enumerate(self.layers.values()):
                lower = self._lower(index)
                lost = 0.0
                if lower is not None:
                    lost = float((layer.quantized_at(lower) - layer.weight).square().mean() / layer.weight.var())
                errors.append(lost)
        movable = [self._lower(index) is not None for index in range(len(errors))]
        mean = sum(errors) / max(1, sum(movable)) + 1e-12
        pressure = torch.tensor([move / (1 + error / mean) for move, error in zip(movable, errors, strict=True)])
        return PENALTY * (pressure * torch.sigmoid(self.logits)).sum() / len(errors)

    @torch.no_grad()
    def step(self) -> None:
        """Move beta against its gradient's sign, and go to the next pair below the threshold."""
        assert self.logits.grad is not None
        distributed.average([self.logits.grad])
        self.logits.sub_(BETA_LEARNING_RATE * torch.sign(self.logits.grad))
        for index in range(len(self.layers)):
            if float(torch.sigmoid(self.logits[index])) < THRESHOLD and self._lower(index) is not None:
                self.pairs[index] += 1
                self.logits[index] = START

    def clear(self) -> None:
        self.logits.grad = None
        for layer in self.layers.values():
            layer.blend = None

    @torch.no_grad()
    def force(self, average_bits: float) -> None:
        """Give up the upper width of the layer with the smallest beta until the average is within the budget."""
        while self.average_bits() > average_bits:
            movable = [index for index in range(len(self.layers)) if self._lower(index) is not None]
            index = min(movable, key=lambda one: float(self.logits[one]))
            self.pairs[index] += 1
            self.logits[index] = START

    def state(self) -> dict[str, Tensor]:
        return {"pairs": self.pairs, "logits": self.logits.detach()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        self.pairs.copy_(state["pairs"])
        self.logits.copy_(state["logits"])
