"""Block replacement on a frozen full-precision partner, around any method (Yu et al., arXiv 2412.15846).

The paper's equations, loss weights and replacement patterns are not published where we could find them; this is our
minimal reconstruction of its idea. The partner F is a frozen float network. A mixed model
M_i runs the quantized blocks up to i, and the partner's after it; the quantized forward already made their input. With
one i drawn for each pass,

    loss = CE(Q(x), y) + a * KL(F(x) || Q(x)) + b * KL(F(x) || M_i(x)),

so that quantized blocks must make what the float blocks after them understand, and get gradients through those.
Nothing of it is left after training.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.network import IMAGE, IMAGE_SCALE
from quant.layers import QuantAveragePool2d, QuantMaxPool2d, StoredTensor
from quant.switchable import QuantLayer, SwitchableNetwork, Widths, set_width


class FloatPartner(nn.Module):
    """A frozen copy of a prepared model that runs without any quantizer: the float network it was prepared from.

    Parameters
    ----------
    model : SwitchableNetwork
        Right after ``prepare``: all BatchNorm sets of a layer are still those of the float network.
    """

    def __init__(self, model: SwitchableNetwork) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> FloatPartner:
        """Stay in evaluation mode, whatever is asked."""
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return the float network's logits, of shape (n, classes), for uint8 images."""
        dtype = next(self.model.parameters()).dtype
        return self.complete({IMAGE: StoredTensor(images.to(dtype) * IMAGE_SCALE)}, IMAGE)

    def complete(self, stored: Mapping[str, StoredTensor], last: str) -> Tensor:
        """Return the logits of a mixed model: tensors up to ``last`` as given, the float network after it.

        Parameters
        ----------
        stored : mapping of str to StoredTensor
            Real values of the tensors that are read after ``last``.
        last : str
            A tensor.
        """
        values = dict(stored)
        names = self.model.names
        for name in names if last == IMAGE else names[names.index(last) + 1 :]:
            wiring = self.model.wiring[name]
            source = values[wiring.input].code
            assert source is not None
            skip = None if wiring.skip is None else values[wiring.skip].real_skip
            result = _float_output(self.model.layer(name), source, skip)
            values[name] = StoredTensor(result, result)
        logits = values[names[-1]].code
        assert logits is not None
        return logits.flatten(1)


def _float_output(layer: QuantLayer, values: Tensor, skip: Tensor | None) -> Tensor:
    if isinstance(layer, QuantMaxPool2d):
        return layer(values)  # type: ignore[no-any-return]
    if isinstance(layer, QuantAveragePool2d):
        return layer.real_output(values)
    result = layer.operation(values, layer.weight, layer.bias)
    if layer.batch_norm is not None:
        result = next(iter(layer.batch_norm.sets.values()))(result)
    if skip is not None:
        result = result + skip
    return torch.relu(result) if layer.relu else result


def block_ends(model: SwitchableNetwork) -> tuple[str, ...]:
    """Return the tensors at which a network can be cut: all that is computed later reads, of what is there, only them.

    The last two layers make no block of their own: the logits end the network.
    """
    ends = []
    for index, name in enumerate(model.names[:-1]):
        made = {IMAGE, *model.names[:index]}
        later = model.names[index + 1 :]
        read = {model.wiring[one].input for one in later} | {model.wiring[one].skip for one in later}
        if not made & read:
            ends.append(name)
    return tuple(ends)


class BlockReplacement:
    """The pass of a quantized network that a frozen float partner guides; a ``PassLoss``.

    Parameters
    ----------
    model : SwitchableNetwork
    partner : FloatPartner
        Of the same architecture.
    weight : float
        Both a and b, positive.
    generator : torch.Generator
        Draws the block of each pass.
    """

    def __init__(
        self, model: SwitchableNetwork, partner: FloatPartner, weight: float, generator: torch.Generator
    ) -> None:
        if not weight > 0:
            raise ValueError(f"the weight of block replacement must be positive, not {weight!r}")
        self.model = model
        self.weight = weight
        self.generator = generator
        self.partner = partner
        self.ends = block_ends(model)
        self._images: Tensor | None = None
        self._teacher = torch.zeros(0)

    def __call__(self, bits: int | Widths, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return (loss, logits) of one pass."""
        stored: dict[str, StoredTensor] = {}
        logits = set_width(self.model, bits)(images, stored=stored)
        teacher = self._teacher_of(images)
        end = self.ends[int(torch.randint(len(self.ends), (), generator=self.generator))]
        mixed = self.partner.complete(stored, end)
        guidance = _divergence(teacher, logits) + _divergence(teacher, mixed)
        return F.cross_entropy(logits, targets) + self.weight * guidance, logits

    def _teacher_of(self, images: Tensor) -> Tensor:
        # Every width of a mini-batch sees the same images.
        if images is not self._images:
            with torch.no_grad():
                self._images, self._teacher = images, self.partner(images).log_softmax(1)
        return self._teacher


def _divergence(teacher: Tensor, logits: Tensor) -> Tensor:
    return F.kl_div(logits.log_softmax(1), teacher, log_target=True, reduction="batchmean")
