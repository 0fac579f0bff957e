"""What training methods have in common: the loss of one pass, and one mini-batch of training at a width set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from quant import distributed
from quant.switchable import SwitchableNetwork, Widths, set_width

PassLoss: TypeAlias = Callable[[int | Widths, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(width or widths, images, targets) -> (loss, logits) of one forward pass; targets are classes or probabilities."""

Recorder: TypeAlias = Callable[[Tensor], None]
"""Takes the logits of a pass."""

RATE_SHARE = "rate_share"
"""Entry of an optimizer's group of parameters: they learn at this share of the learning rate, 1 without the entry."""


def uniform_name(bits: int) -> str:
    """Return the name of a width's uniform assignment.

    >>> uniform_name(4)
    'W4A4'
    """
    return f"W{bits}A{bits}"


@dataclass(frozen=True, kw_only=True)
class EpochLoss:
    """Mean losses of one epoch.

    Parameters
    ----------
    mean : float
        Of all passes.
    passes : mapping of str to float
        Of each pass of a mini-batch: by the name of its width such as ``W4A4``, by ``float32``, or by the name of the
        method where layers have widths of their own.
    """

    mean: float
    passes: Mapping[str, float]

    @property
    def told(self) -> str:
        """For progress: the mean, then each pass where there are several."""
        passes = ", ".join(f"{name} {loss:.3f}" for name, loss in self.passes.items())
        return f"loss {self.mean:.3f}" + (f" ({passes})" if len(self.passes) > 1 else "")


def cross_entropy_pass(model: SwitchableNetwork) -> PassLoss:
    """Return the pass that every method has unless something wraps it: cross entropy of the model's logits."""

    def run(bits: int | Widths, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = set_width(model, bits)(images)
        return F.cross_entropy(logits, targets), logits

    return run


@dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """One mini-batch of a training method.

    Parameters
    ----------
    model : SwitchableNetwork
    weight_optimizer : torch.optim.Optimizer
        Of everything but the quantization scales.
    scale_optimizer : ScaleOptimizer
        Of the quantization scales.
    pass_loss : PassLoss, optional
        Cross entropy of the model if not given.
    record : Recorder, optional
        Remembers what :meth:`teach` is given.
    """

    model: SwitchableNetwork
    weight_optimizer: torch.optim.Optimizer
    scale_optimizer: torch.optim.Optimizer
    pass_loss: PassLoss | None = None
    record: Recorder | None = None

    def loss_of(self, bits: int | Widths, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return (loss, logits) of one pass at a width."""
        run = self.pass_loss if self.pass_loss is not None else cross_entropy_pass(self.model)
        return run(bits, images, targets)

    def teach(self, logits: Tensor) -> None:
        """Let the pass that stands for the highest width, once for each mini-batch, teach the next epoch's passes."""
        if self.record is not None:
            self.record(logits)

    def run(
        self, images: Tensor, targets: Tensor, learning_rate: float, scale_learning_rate: float
    ) -> dict[str, float]:
        """Train on one mini-batch at every width, and return the loss of each pass, named as in :class:`EpochLoss`.

        Parameters
        ----------
        images : uint8 tensor of shape (n, channels, height, width)
        targets : int64 tensor of shape (n,), or float tensor of shape (n, classes)
            Classes, or probabilities of each class.
        learning_rate, scale_learning_rate : float
            Of this iteration, after the schedule: for the weights and for the scales.
        """
        raise NotImplementedError

    def tested(self) -> dict[str, int | Widths]:
        """Return what the method trains, to be tested: width or widths, by the name of the assignment."""
        return {uniform_name(bits): bits for bits in self.model.width_set}

    def begin_epoch(self, epoch: int, epochs: int, batches: int) -> None:
        """Tell which epoch begins, counted from 0, how many there are, and of how many mini-batches each is."""

    def finish(self) -> None:
        """Leave in the model what the method found; the last epoch is over."""

    def state(self) -> dict[str, Tensor]:
        """Return what the method remembers between mini-batches, besides the model and the optimizers."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take what :meth:`state` returned."""

    def set_rates(self, learning_rate: float, scale_learning_rate: float) -> None:
        """Set the learning rates of the next optimizer steps."""
        for optimizer, rate in (
            (self.weight_optimizer, learning_rate),
            (self.scale_optimizer, scale_learning_rate),
        ):
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get(RATE_SHARE, 1.0)

    def average_gradients(self) -> None:
        """Average gradients over the processes that train together; to be called after the last backward pass."""
        distributed.average_gradients((self.weight_optimizer, self.scale_optimizer))

    def clear_gradients(self) -> None:
        """Forget all gradients: None, not zero, so that what had no part in a pass does not move on old momentum."""
        self.weight_optimizer.zero_grad(set_to_none=True)
        self.scale_optimizer.zero_grad(set_to_none=True)
