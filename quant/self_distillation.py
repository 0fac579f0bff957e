"""Progressive self-distillation, in the form of the released code of Double Rounding.

The target of an image is (1 - a) * label + a * p, with p the softmax that the highest width gave the image in the
previous epoch (its label in the first) and a = strength * (epoch + 1) / epochs. It serves every width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from quant.steps import PassLoss
from quant.switchable import Widths

STRENGTH = 0.7


class SelfDistillation:
    """Remembers what the highest width said about every training image.

    Parameters
    ----------
    labels : int64 tensor of shape (n,)
        Of all training images.
    classes : int
    highest : int
        The width that teaches.
    strength : float
        a of the last epoch, 0 .. 1.
    """

    def __init__(self, labels: Tensor, classes: int, highest: int, strength: float = STRENGTH) -> None:
        if not 0 <= strength <= 1:
            raise ValueError(f"the strength of self-distillation must be 0 .. 1, not {strength!r}")
        self.labels = F.one_hot(labels, classes).to(torch.float32)
        self.previous = self.labels.clone()
        self.current = self.labels.clone()
        self.highest = highest
        self.strength = strength
        self.share = 0.0
        self._indices: Tensor | None = None

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Let what was recorded in the last epoch become the teacher of this one, counted from 0."""
        self.share = self.strength * (epoch + 1) / epochs
        self.previous = self.current.clone()

    def targets(self, indices: Tensor) -> Tensor:
        """Return the targets, float32 (n, classes), of the images with these indices, the next that are passed."""
        self._indices = indices
        return torch.lerp(self.labels[indices], self.previous[indices], self.share)

    def wrap(self, pass_loss: PassLoss) -> PassLoss:
        """Return a pass that also records what the highest width says."""

        def run(bits: int | Widths, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            loss, logits = pass_loss(bits, images, targets)
            if bits == self.highest and self._indices is not None:
                self.current[self._indices] = logits.detach().softmax(1)
            return loss, logits

        return run

    def state(self) -> dict[str, Tensor]:
        """Return what is remembered between epochs."""
        return {"self_distillation.current": self.current}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take what :meth:`state` returned."""
        self.current.copy_(state["self_distillation.current"])
