import pytest
import torch
from torch import nn

from hwsim import engine, verification
from hwsim.precision import WidthSet
from hwsim.requantize import build_requantizers
from quant import models
from quant.convert import prepare
from quant.layers import QuantConv2d, QuantWeightLayer
from quant.models import ARCHITECTURES, build
from quant.reference import Reference
from quant.train import TrainingConfig, percent_correct, train_network


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_can_be_prepared(architecture, classes):
    model = build(architecture, classes)
    assert model(torch.zeros(2, *model.image_shape)).shape == (2, classes)
    network = prepare(model, "double-rounding", (8, 2))
    assert network(torch.zeros(2, *model.image_shape, dtype=torch.uint8)).shape == (2, classes)
    assert network.classes == classes


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


def test_an_architecture_of_ones_own_trains_and_comes_back_by_its_name(tmp_path, monkeypatch):
    class Own(nn.Module):
        image_shape = (1, 8, 8)

        def __init__(self, classes):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(1, 6, 3, bias=False), nn.AvgPool2d(2)
            self.norm, self.linear = nn.BatchNorm2d(6), nn.Linear(54, classes)

        def forward(self, images):
            return self.linear(torch.flatten(self.pool(torch.relu(self.norm(self.conv(images)))), 1))

    monkeypatch.setattr(models, "ARCHITECTURES", dict(ARCHITECTURES))
    models.register("own", Own)
    config = TrainingConfig(architecture="own", widths=WidthSet((8, 2)), float_epochs=1, joint_epochs=1)
    path = tmp_path / "own.safetensors"
    result = train_network(config, checkpoint=path, run_directory=tmp_path / "run", progress=False)
    assert result.accuracies["W8A8"] > 40
    reference = Reference(path)
    network = reference.network
    for name, accuracy in result.accuracies.items():
        assignment = reference.assignment(name)
        tables = build_requantizers(network, assignment)
        stored = engine.run(network, assignment, tables, reference.images[:30])
        expected = reference.deployed(network, name, tables, reference.images[:30])
        assert verification.compare(name, expected, stored, 0).equal
        predicted = engine.classify(engine.logits(network, assignment, tables, reference.images))
        assert percent_correct(predicted, reference.labels) == pytest.approx(accuracy, abs=2)
    with pytest.raises(ValueError, match="the architecture 'own' is there already"):
        models.register("own", Own)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="the architecture must be one of digits, resnet20, not 'vgg'"):
        build("vgg")
