"""Shared weights in the manner of Any-Precision DNN (Yu et al., arXiv 1911.07346): one step for all widths.

For every mini-batch the network runs at each width in descending order: the highest learns from the labels, each lower
one from the softmax of the next higher one ("recursive" distillation). Gradients of all widths accumulate and the
optimizers take one step. There is no scaling of learning rates by width.

The quantizer is that of the hardware, with the stored code and its switch, instead of the DoReFa quantizer of the
paper, so that what is compared with Double Rounding is the training procedure alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from quant.steps import TrainingStep, uniform_name


@dataclass(frozen=True, kw_only=True)
class RecursiveStep(TrainingStep):
    """One mini-batch: accumulated gradients of all widths, recursive distillation, one step of each optimizer."""

    def run(
        self, images: Tensor, targets: Tensor, learning_rate: float, scale_learning_rate: float
    ) -> dict[str, float]:
        """Train on one mini-batch at every width, and return their losses; parameters as in :class:`TrainingStep`."""
        width_set = self.model.width_set
        losses = {}
        for bits in width_set:
            loss, logits = self.loss_of(bits, images, targets)
            if bits == width_set.highest:
                self.teach(logits)
            # The mean of the widths, so that a learning rate means the same for every width set.
            (loss / len(width_set)).backward()  # type: ignore[no-untyped-call]
            targets = logits.detach().softmax(1)
            losses[uniform_name(bits)] = float(loss.detach())
        self.average_gradients()
        self.set_rates(learning_rate, scale_learning_rate)
        self.weight_optimizer.step()
        self.scale_optimizer.step()
        self.clear_gradients()
        return losses
