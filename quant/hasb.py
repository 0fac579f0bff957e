"""Hessian-aware stochastic bit-switching (HASB, arXiv 2502.01199): joint training in which layers differ in width.

The step of Double Rounding, but at each of its widths b every layer takes, with probability sigma, a width of its own
instead of b, drawn by roulette (Algorithm 1): uniformly where the layer's Hessian trace is below the mean of all
layers, else in proportion to the width. sigma is 0 in the first ninth of the epochs (``mix_warmup`` of the released
code, 10 of 90), then 1/2 * (epoch + 1) / epochs. After training an integer program picks the widths, see
``quant.bit_allocation``.

Traces are Hutchinson's estimates on the float network at the end of its schedule: E[v' H v], v of +-1, over 1,024
training images (HAWQ-V2); t_l / n_l, the mean eigenvalue, is what the integer program weighs errors with, while the
roulette compares the traces t_l themselves.

BatchNorm. The paper keeps a set for every pair of widths of the previous and this layer (Bit-Mixer's transitional
BatchNorm). Here a layer has one set for each of its own weight widths. The previous layer's width reaches a layer
through the codes it reads, and those have a learned scale for every width, which the pair's set would mostly repeat;
n sets instead of n**2 are what the network file stores and the hardware's tables are folded from; and while layers are
mixed, a set learns the statistics of all the widths before it, which are those it is run with.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from quant.bit_allocation import allocate_widths, free_layers, leave_assignment, widths_of
from quant.block_replacement import FloatPartner
from quant.double_rounding import JointStep, scaled_learning_rates
from quant.steps import uniform_name
from quant.switchable import Widths

LEARNED = "hasb"
SIGMA = 0.5
WARM_UP = 1 / 9
TRACE_IMAGES = 1024
TRACE_PROBES = 8


def hessian_traces(
    partner: FloatPartner,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    probes: int = TRACE_PROBES,
    batch_size: int = 128,
) -> dict[str, float]:
    """Return Hutchinson's estimate of the trace of the loss' Hessian in each free layer's weights.

    Parameters
    ----------
    partner : FloatPartner
        The float network whose loss it is.
    images : uint8 tensor of shape (n, channels, height, width)
    labels : int64 tensor of shape (n,)
    generator : torch.Generator
        Of the probes, vectors of +-1.
    probes : int
        Estimates that are averaged.
    batch_size : int
        Images whose graph is held in memory at once.
    """
    partner = copy.deepcopy(partner)
    names = [name for name, _ in free_layers(partner.model)]
    weights = [dict(partner.model.weight_layers())[name].weight.requires_grad_() for name in names]
    totals = dict.fromkeys(names, 0.0)
    for part, classes in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        loss = F.cross_entropy(partner(part), classes)
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        for _ in range(probes):
            vectors = [torch.randint(0, 2, weight.shape, generator=generator).to(weight) * 2 - 1 for weight in weights]
            products = torch.autograd.grad(gradients, weights, vectors, retain_graph=True)
            for name, vector, product in zip(names, vectors, products, strict=True):
                totals[name] += float((vector * product).sum()) * len(part) / (len(images) * probes)
    return totals


def roulette(traces: Mapping[str, float], widths: tuple[int, ...]) -> dict[str, list[float]]:
    """Return the probability of every width for each layer (Algorithm 1).

    >>> roulette({"a": 1.0, "b": 3.0}, (8, 6, 4, 2))
    {'a': [0.25, 0.25, 0.25, 0.25], 'b': [0.4, 0.3, 0.2, 0.1]}
    """
    mean = sum(traces.values()) / len(traces)
    uniform = [1 / len(widths)] * len(widths)
    weighted = [bits / sum(widths) for bits in widths]
    return {name: list(uniform if trace < mean else weighted) for name, trace in traces.items()}


def mixing(epoch: int, epochs: int) -> float:
    """Return sigma of an epoch, counted from 0."""
    return 0.0 if epoch < round(WARM_UP * epochs) else SIGMA * (epoch + 1) / epochs


@dataclass(frozen=True, kw_only=True)
class MixedStep(JointStep):
    """One mini-batch of HASB: the widths in descending order, some layers at widths of their own.

    Parameters
    ----------
    traces : mapping of str to float
        Of the layers that are not pinned.
    generator : torch.Generator
        Of the roulette.
    budget_of : str
    budget : float
        What :func:`quant.bit_allocation.allocate_widths` keeps to when training is over.
    """

    traces: Mapping[str, float]
    generator: torch.Generator
    budget_of: str
    budget: float
    _memory: dict[str, Tensor] = field(default_factory=lambda: {"sigma": torch.zeros(())})

    def begin_epoch(self, epoch: int, epochs: int, batches: int) -> None:
        """Set sigma."""
        self._memory["sigma"] = torch.tensor(mixing(epoch, epochs))

    def drawn(self, bits: int) -> int | Widths:
        """Return the widths of one pass at width ``bits``."""
        sigma = float(self._memory["sigma"])
        if sigma == 0:
            return bits
        widths = self.model.width_set.widths
        chosen = {}
        for name, chances in roulette(self.traces, widths).items():
            own = float(torch.rand((), generator=self.generator)) < sigma
            index = int(torch.multinomial(torch.tensor(chances), 1, generator=self.generator))
            chosen[name] = widths[index] if own else bits
        return widths_of(self.model, chosen)

    def run(
        self, images: Tensor, targets: Tensor, learning_rate: float, scale_learning_rate: float
    ) -> dict[str, float]:
        """Train on one mini-batch, and return the loss of each pass, named ``hasb-W4A4`` by the width it stands for.

        Parameters as in ``TrainingStep``.
        """
        losses = {}
        for bits, rate in scaled_learning_rates(scale_learning_rate, self.model.width_set, self.alrs_decay).items():
            losses[f"{LEARNED}-{uniform_name(bits)}"] = self.step_at(
                self.drawn(bits), bits, images, targets, learning_rate, rate, scale_learning_rate
            )
        return losses

    def chosen(self) -> Widths:
        """Return the widths that the integer program finds."""
        counts = dict(free_layers(self.model))
        sensitivities = {name: trace / counts[name] for name, trace in self.traces.items()}
        return allocate_widths(self.model, sensitivities, self.budget_of, self.budget)

    def tested(self) -> dict[str, int | Widths]:
        """Return every uniform width, and the chosen ones."""
        return {**super().tested(), LEARNED: self.chosen()}

    def finish(self) -> None:
        """Leave the widths that the integer program finds in the model, under the name ``hasb``."""
        leave_assignment(self.model, LEARNED, self.chosen())
