"""The standard assignments."""

from __future__ import annotations

import pytest

from hwsim.assignments import mixed_assignments, select_assignments, standard_assignments
from hwsim.network import Network
from hwsim.precision import CATALOG, WidthSet
from hwsim.tests.test_estimate import chain


@pytest.mark.parametrize("widths", CATALOG.values(), ids=CATALOG)
def test_uniform_first_then_mixed(widths: WidthSet) -> None:
    names = [assignment.name for assignment in standard_assignments(chain(widths, 6))]
    expected = [f"W{bits}A{bits}" for bits in widths]
    assert names == expected + (["mixed-1", "mixed-2"] if len(widths) > 1 else [])


def test_mixed_ones_use_every_width_for_weights_and_activations() -> None:
    network = chain(WidthSet((8, 6, 4, 2)), 10)
    for assignment in mixed_assignments(network):
        inner = [assignment.layers[layer.name] for layer in network.weight_layers[1:-1]]
        assert {widths.weight_bits for widths in inner} == {8, 6, 4, 2}
        assert {widths.activation_bits for widths in inner} == {8, 6, 4, 2}
    first, second = mixed_assignments(network)
    assert all(widths.weight_bits == widths.activation_bits for widths in first.layers.values())
    assert sum(widths.weight_bits != widths.activation_bits for widths in second.layers.values()) >= 5


@pytest.fixture(scope="module")
def network() -> Network:
    return chain(WidthSet((8, 4, 2)), 5)


def test_selection_by_name(network: Network) -> None:
    chosen = select_assignments(network, "W2A4, mixed-1,W8A8")
    assert [assignment.name for assignment in chosen] == ["W2A4", "mixed-1", "W8A8"]
    assert [assignment.name for assignment in select_assignments(network, None)] == [
        "W8A8",
        "W4A4",
        "W2A2",
        "mixed-1",
        "mixed-2",
    ]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("W8", "an assignment must be W<bits>A<bits>, mixed-1 or mixed-2, not 'W8'"),
        ("mixed-3", "an assignment must be W<bits>A<bits>, mixed-1 or mixed-2, not 'mixed-3'"),
        ("W6A6", r"the weight width must be one of \{8, 4, 2\}, not 6"),
        ("W8A8,W8A8", "each assignment must be named once, not W8A8 2 times"),
    ],
)
def test_bad_names_are_refused(network: Network, names: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        select_assignments(network, names)
