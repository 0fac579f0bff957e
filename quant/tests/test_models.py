import pytest
import torch

from quant.convert import prepare
from quant.layers import QuantConv2d, QuantWeightLayer
from quant.models import ARCHITECTURES, build


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_can_be_prepared(architecture):
    model = build(architecture)
    assert model(torch.zeros(2, *model.image_shape)).shape == (2, 10)
    network = prepare(model, "double-rounding", (8, 2))
    assert network(torch.zeros(2, *model.image_shape, dtype=torch.uint8)).shape == (2, 10)


def test_the_digits_network_has_both_kinds_of_add():
    network = prepare(build("digits"), "double-rounding", (8, 2))
    skips = {name: wiring.skip for name, wiring in network.wiring.items() if wiring.skip}
    assert skips == {"blocks.0.conv2": "conv", "blocks.1.conv2": "blocks.1.shortcut"}
    projection = network.layer("blocks.1.shortcut")
    assert isinstance(projection, QuantConv2d) and projection.weight.shape == (32, 16, 1, 1) and projection.stride == 2
    assert projection.output.skip.signed and projection.output.code is None
    assert not network.layer("conv").output.skip.signed


def test_resnet20_has_twenty_layers_and_two_projections():
    network = prepare(build("resnet20"), "double-rounding", (8, 2))
    weights = [layer for _, layer in network.weight_layers()]
    assert len(weights) == 20 + 2
    assert all(isinstance(layer, QuantWeightLayer) for layer in weights)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="the architecture must be one of digits, resnet20, not 'vgg'"):
        build("vgg")
