"""Truncation-ready training: the switch is a plain shift, and training computes with exactly what it gives.

The floor rule (``spec.switch_floor``) in the place of the rounding switch, in the manner of TruncQuant
(arXiv 2506.11431), AdaBits' modified scheme (arXiv 1912.09666) and Bit-Mixer (arXiv 2103.17267). Switching needs no
adder, no saturation and no rounding plane, and can be taken in steps.

Differences to TruncQuant: weights are two's-complement codes with a learned scale for each channel and an exact zero
instead of tanh-normalised codes with levels in the middle of each step, so that a floored weight lies half a step low
on average, which BatchNorm's own set at each width takes up as far as it can; activations are rounded to a scale of
each width, as in every method here; and training is the step of Double Rounding, so that the rule alone is compared.
"""

from __future__ import annotations

from hwsim.network import FLOOR
from quant.switchable import SwitchableNetwork


def floor_switch(model: SwitchableNetwork) -> None:
    """Make every layer of a prepared model switch by the floor rule, but the pinned ones, which never switch."""
    for name, layer in model.weight_layers():
        if not model.is_pinned(name):
            layer.switch_rule = FLOOR
