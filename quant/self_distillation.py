"""Progressive self-distillation, in the form of the released code of Double Rounding.

The target of an image is (1 - a) * label + a * p, with p the softmax that the highest width gave the image in the
previous epoch (its label in the first) and a = strength * (epoch + 1) / epochs. It serves every width.

Training steps name the pass that teaches (``TrainingStep.teach``): the one at the highest width, or in HASB, the one
that stands for it, in which some layers are narrower, as in the released code.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from quant import distributed

STRENGTH = 0.7


class SelfDistillation:
    """Remembers what the highest width said about every training image.

    Parameters
    ----------
    labels : int64 tensor of shape (n,)
        Of all training images.
    classes : int
    strength : float
        a of the last epoch, 0 .. 1.
    """

    def __init__(self, labels: Tensor, classes: int, strength: float = STRENGTH) -> None:
        if not 0 <= strength <= 1:
            raise ValueError(f"the strength of self-distillation must be 0 .. 1, not {strength!r}")
        self.labels = F.one_hot(labels, classes).to(torch.float32)
        self.previous = self.labels.clone()
        self.current = self.labels.clone()
        self.strength = strength
        self.share = 0.0
        self._indices = torch.zeros(0, dtype=torch.int64)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Let what was recorded in the last epoch become the teacher of this one, counted from 0."""
        self.share = self.strength * (epoch + 1) / epochs
        self.previous = self.current.clone()

    def targets(self, indices: Tensor) -> Tensor:
        """Return the targets, float32 (n, classes), of the images with these indices, the next that are passed."""
        self._indices = indices
        return torch.lerp(self.labels[indices], self.previous[indices], self.share)

    def record(self, logits: Tensor) -> None:
        """Remember what those images of all processes were given by the pass that teaches: its logits, of this one."""
        said = distributed.gather(logits.detach().softmax(1))
        self.current[distributed.gather(self._indices)] = said.to(self.current)

    def state(self) -> dict[str, Tensor]:
        """Return what is remembered between epochs."""
        return {"self_distillation.current": self.current}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take what :meth:`state` returned."""
        self.current.copy_(state["self_distillation.current"])
