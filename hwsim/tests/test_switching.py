"""What the switch loses, against counts made from the rule itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwsim import spec
from hwsim.precision import CATALOG, WidthSet
from hwsim.random_network import SMALL, random_network
from hwsim.switching import differ_in_two_steps, in_stored_units, switch_losses, switch_table


@pytest.mark.parametrize("stored_bits", range(2, 9))
def test_the_error_is_half_a_step_at_most_or_saturation(stored_bits: int) -> None:
    for bits in range(2, stored_bits):
        codes, weights = switch_table(stored_bits, bits)
        error = in_stored_units(weights, stored_bits, bits) - codes
        half = 1 << (stored_bits - bits - 1)
        assert (weights[error < -half + 1] == spec.signed_high(bits)).all()
        assert error.max() == half and (error == 0).sum() == 1 << bits


def test_losses_count_every_weight() -> None:
    network = random_network(2, CATALOG["8-4-2"], (1, 8, 8), SMALL)
    layer = next(layer for layer in network.weight_layers if not network.is_pinned(layer))
    codes = np.resize(np.arange(-128, 128), layer.codes.size).astype(np.int8).reshape(layer.codes.shape)
    layers = tuple(replace(layer, codes=codes) if one is layer else one for one in network.layers)
    (loss, *_) = switch_losses(replace(network, layers=layers), 4)
    flat = codes.ravel().astype(int)
    found = np.array([spec.switch(int(code), 8, 4) * 16 for code in flat])
    assert (loss.layer, loss.target_bits, loss.weights) == (layer.name, 4, codes.size)
    assert loss.unchanged == int((flat % 16 == 0).sum())
    assert loss.saturated == int((flat >= 120).sum()) > 0
    assert loss.relative_error == pytest.approx(np.sqrt(((found - flat) ** 2).sum() / (flat**2).sum()))
    assert all(one.unchanged == one.weights and not one.saturated for one in switch_losses(network, 8))


def test_pinned_layers_do_not_switch() -> None:
    network = random_network(2, WidthSet((4, 2)), (1, 8, 8), SMALL)
    names = {loss.layer for loss in switch_losses(network, 2)}
    assert names == {layer.name for layer in network.weight_layers if not network.is_pinned(layer)}


def test_two_steps_differ() -> None:
    assert (differ_in_two_steps(8, 6, 4), differ_in_two_steps(8, 4, 2)) == (30, 24)
    assert differ_in_two_steps(8, 8, 4) == 0
