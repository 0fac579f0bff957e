import random

import pytest
import torch

from hwsim.assignments import mixed_assignments, uniform_assignments
from hwsim.network import LayerWidths
from hwsim.precision import CATALOG
from quant.convert import prepare
from quant.export import export_network
from quant.switchable import set_width
from quant.tests.conftest import small_model


@pytest.fixture
def model():
    return prepare(small_model(), "double-rounding", CATALOG["8-4-2"])


def test_it_starts_at_the_highest_width(model):
    assert set(model.widths.weight_bits.values()) == {8} and set(model.widths.code_bits.values()) == {8}


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_a_uniform_width_leaves_the_first_and_the_last_layer_at_8(model, bits):
    set_width(model, bits)
    weights, codes = model.widths.weight_bits, model.widths.code_bits
    assert weights["conv"] == 8 and weights["linear"] == 8
    assert {weights[name] for name in weights if name not in ("conv", "linear")} == {bits}
    assert codes["image"] == 8 and codes["pool"] == 8
    assert {codes[name] for name in codes if name not in ("image", "pool")} == {bits}


def test_assignments_of_the_exported_network_set_the_same_widths(model):
    network = export_network(model)
    for assignment in (*uniform_assignments(network), *mixed_assignments(network)):
        set_width(model, assignment)
        for name, _ in model.weight_layers():
            assert model.widths.weight_bits[name] == assignment.weight_bits(name)
        for name in model.names:
            assert model.widths.code_bits.get(name) == assignment.code_bits(name)


def test_widths_of_each_layer_may_be_given(model):
    names = [name for name in model.names if not model.is_pinned(name)]
    set_width(model, {name: LayerWidths(2, 4) for name in names})
    assert model.widths.weight_bits["blocks.0.conv1"] == 2 and model.widths.code_bits["conv"] == 4
    set_width(model, dict.fromkeys(names, 4))
    assert model.widths == set_width(model, 4).widths


@pytest.mark.parametrize(
    ("width", "error", "message"),
    [
        (6, ValueError, r"the width must be one of \{8, 4, 2\}, not 6"),
        (9, ValueError, "the width must be 1 .. 8 bits, not 9"),
        (4.0, TypeError, "the width must be an integer number of bits, not 4.0"),
        ({}, ValueError, "layer blocks.0.conv1: has no width"),
        ({"nowhere": 4}, ValueError, "the network has no layer 'nowhere'"),
    ],
)
def test_wrong_widths_are_refused(model, width, error, message):
    before = model.widths
    with pytest.raises(error, match=message):
        set_width(model, width)
    assert model.widths is before


def test_wrong_widths_of_single_layers_are_refused(model):
    names = [name for name in model.names if not model.is_pinned(name)]
    with pytest.raises(ValueError, match=r"layer blocks.1.conv1: the weight width must be one of \{8, 4, 2\}, not 3"):
        set_width(model, {**dict.fromkeys(names, 4), "blocks.1.conv1": 3})
    with pytest.raises(ValueError, match=r"all readers of blocks.0.conv2 share its width, but .* bits"):
        set_width(model, {**dict.fromkeys(names, 4), "blocks.1.conv1": 2})
    with pytest.raises(ValueError, match=r"layer blocks.0.conv1: the activation width must be one of 8, 4, 2, not 6"):
        set_width(model, {**dict.fromkeys(names, 4), "blocks.0.conv1": LayerWidths(4, 6)})
    with pytest.raises(ValueError, match=r"layer blocks.0.conv1: has no weight width"):
        set_width(model, {**dict.fromkeys(names, 4), "blocks.0.conv1": LayerWidths(None, 4)})


def test_random_widths_are_seeded_vary_and_keep_the_pinned_layers(model):
    drawn = [model.random_widths(random.Random(seed)) for seed in range(20)]
    assert drawn[3] == model.random_widths(random.Random(3))
    assert {widths.weight_bits["blocks.0.conv1"] for widths in drawn} == {8, 4, 2}
    assert {widths.weight_bits["conv"] for widths in drawn} == {8}
    assert {widths.code_bits["pool"] for widths in drawn} == {8}


def test_images_are_checked(model):
    with pytest.raises(TypeError, match=r"images must be a uint8 tensor, not torch.float32"):
        model(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"images must have shape \(n, 1, 8, 8\), not \(1, 3, 8, 8\)"):
        model(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_the_width_changes_the_logits(trained_8642, images):
    model = trained_8642.eval()
    logits = {bits: set_width(model, bits)(torch.from_numpy(images)).detach() for bits in model.width_set}
    assert not torch.equal(logits[8], logits[2])
    assert torch.equal(set_width(model, 8)(torch.from_numpy(images)).detach(), logits[8])
