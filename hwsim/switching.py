"""What rounding does to a weight: exact counts of what is lost when stored codes are switched to fewer bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim import spec
from hwsim.network import Network
from hwsim.requantize import switched_weights


def switch_table(stored_bits: int, target_bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return every stored code, ascending, and the weight that it switches to."""
    codes = np.arange(spec.signed_low(stored_bits), spec.signed_high(stored_bits) + 1)
    weights = np.array([spec.switch(int(code), stored_bits, target_bits) for code in codes])
    return codes, weights


def in_stored_units(weights: NDArray[Any], stored_bits: int, target_bits: int) -> NDArray[np.int64]:
    """Return switched weights times ``2**e``, to be compared with the stored codes (``spec.switch_scale_exponent``)."""
    return weights.astype(np.int64) << spec.switch_scale_exponent(stored_bits, target_bits)


@dataclass(frozen=True)
class SwitchLoss:
    """What a layer loses at one width, against its stored codes.

    Parameters
    ----------
    layer : str
    target_bits : int
    weights, unchanged, saturated : int
        Weights; those with no error at all; those that were limited to the highest weight.
    relative_error : float
        Root mean square of the error, divided by that of the stored codes.
    """

    layer: str
    target_bits: int
    weights: int
    unchanged: int
    saturated: int
    relative_error: float


def switch_losses(network: Network, target_bits: int) -> tuple[SwitchLoss, ...]:
    """Return what every layer that switches loses at one width of the set."""
    losses = []
    for layer in network.weight_layers:
        if network.is_pinned(layer):
            continue
        codes = layer.codes.astype(np.int64)
        found = in_stored_units(switched_weights(layer, target_bits), layer.stored_bits, target_bits)
        limit = spec.signed_high(target_bits)
        rounded = spec.round_shift(codes, layer.stored_bits - target_bits)
        losses.append(
            SwitchLoss(
                layer=layer.name,
                target_bits=target_bits,
                weights=codes.size,
                unchanged=int((found == codes).sum()),
                saturated=int((rounded > limit).sum()) if target_bits > 1 else 0,
                relative_error=float(np.sqrt(((found - codes) ** 2).mean() / max((codes**2).mean(), 1e-9))),
            )
        )
    return tuple(losses)


def differ_in_two_steps(stored_bits: int, middle_bits: int, target_bits: int) -> int:
    """Return the stored codes for which a switch by way of ``middle_bits`` gives another weight than a direct one."""
    codes, weights = switch_table(stored_bits, target_bits)
    return sum(
        spec.switch(spec.switch(int(code), stored_bits, middle_bits), middle_bits, target_bits) != weight
        for code, weight in zip(codes, weights, strict=True)
    )
