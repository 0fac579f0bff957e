"""The standard assignments."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hwsim import network_file
from hwsim.assignments import mixed_assignments, select_assignments, standard_assignments
from hwsim.network import LayerWidths, Network
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


def test_learned_assignments_come_last_and_survive_a_file(network: Network, tmp_path: Path) -> None:
    widths = mixed_assignments(network)[1].layers
    learned = dataclasses.replace(network, learned={"budget": widths})
    network_file.save(learned, tmp_path / "learned.safetensors")
    loaded = network_file.load(tmp_path / "learned.safetensors")
    assert [one.name for one in standard_assignments(loaded)][-2:] == ["mixed-2", "budget"]
    (chosen,) = select_assignments(loaded, "budget")
    # In the file names are sorted, in an assignment they are in execution order.
    order = [layer.name for layer in network]
    assert order != sorted(order) and list(chosen.layers) == order
    assert chosen.layers == widths and dict(loaded.learned["budget"]) == dict(widths)
    with pytest.raises(ValueError, match=r"must be W<bits>A<bits>, budget, mixed-1 or mixed-2, not 'other'"):
        select_assignments(loaded, "other")
    assert network_file.structure_of(network) != network_file.structure_of(loaded)


def test_learned_assignments_must_fit_the_network_and_have_names_of_their_own(network: Network) -> None:
    widths = dict(mixed_assignments(network)[0].layers)
    for name in ("W8A8", "mixed-1", "", "a,b"):
        with pytest.raises(ValueError, match="a learned assignment must have a name of its own"):
            dataclasses.replace(network, learned={name: widths})
    widths[next(iter(widths))] = LayerWidths(2, 8)
    with pytest.raises(ValueError, match="the first and the last layer must be W8A8, not W2A8"):
        dataclasses.replace(network, learned={"budget": widths})
