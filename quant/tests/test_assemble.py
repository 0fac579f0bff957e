"""Networks whose quantizers are placed by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from hwsim import engine, network_file
from hwsim.assignments import standard_assignments
from hwsim.precision import WidthSet
from hwsim.requantize import build_requantizers
from quant import data
from quant.assemble import assemble
from quant.checkpoint import load_checkpoint, save_checkpoint
from quant.convert import prepare
from quant.deploy import deployed_forward
from quant.epochs import JointTraining
from quant.export import export_network
from quant.layers import (
    OutputQuantizer,
    QuantAveragePool2d,
    QuantConv2d,
    QuantLinear,
    QuantMaxPool2d,
    SkipQuantizer,
    SwitchableBatchNorm,
)
from quant.switchable import SwitchableNetwork, Wiring, set_width
from quant.tests.conftest import small_model
from quant.train import TrainingConfig

WIDTHS = (8, 4, 2)
CONFIG = TrainingConfig(widths=WidthSet(WIDTHS), joint_epochs=2, batch_size=16, compare_float=False)
WIRING = {
    "stem": Wiring(input="image"),
    "left": Wiring(input="stem"),
    "right": Wiring(input="left", skip="stem"),
    "mean": Wiring(input="right"),
    "classes": Wiring(input="mean"),
}


def convolution(inputs, channels, **changes):
    fields = {
        "weight": torch.randn(channels, inputs, 3, 3) / (9 * inputs) ** 0.5,
        "bias": None,
        "batch_norm": SwitchableBatchNorm(channels, WIDTHS),
        "relu": True,
        "stored_bits": 8,
        "stride": 1,
        "padding": 1,
        "output": OutputQuantizer(WIDTHS, feeds_add=False, signed=False),
    }
    return QuantConv2d(**(fields | changes))


def by_hand():
    """Return layers with an add, whose quantizers stand where the hardware rounds."""
    torch.manual_seed(3)
    return {
        "stem": convolution(
            1, 4, batch_norm=SwitchableBatchNorm(4, (8,)), output=OutputQuantizer(WIDTHS, feeds_add=True, signed=False)
        ),
        "left": convolution(4, 4),
        "right": convolution(4, 4),
        "mean": QuantAveragePool2d((8, 8), 8, OutputQuantizer((8,), feeds_add=False, signed=False)),
        "classes": QuantLinear(
            weight=torch.randn(10, 4) / 2, bias=torch.zeros(10), batch_norm=None, relu=False, stored_bits=8, output=None
        ),
    }


def digits(count):
    images, labels = data.load_digits()
    return torch.from_numpy(images[:count]), torch.from_numpy(labels[:count])


@pytest.mark.parametrize("method", ["double-rounding", "truncation-ready"])
def test_it_trains_and_is_the_integer_model(method, images, tmp_path):
    model = assemble(by_hand(), WIRING, WIDTHS, (1, 8, 8), method=method)
    config = TrainingConfig(**{**vars(CONFIG), "method": method})
    training = JointTraining.begin(model, *digits(64), config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (training.run_epoch(*digits(64), epoch).mean for epoch in range(2))
    assert second < first
    assert not torch.equal(model.layer("stem").output.skip.scale, before["layers.stem.output.skip.scale"])
    training.finish()
    network_file.save(export_network(model), tmp_path / "network.safetensors")
    network = network_file.load(tmp_path / "network.safetensors")
    assignments = standard_assignments(network)
    assert {"W8A8", "W4A4", "W2A2"} <= {assignment.name for assignment in assignments}
    for assignment in assignments:
        tables = build_requantizers(network, assignment)
        expected = engine.run(network, assignment, tables, images)
        found = deployed_forward(model, assignment, tables, images)
        assert list(found) == list(expected)
        for key, values in expected.items():
            assert np.array_equal(found[key], values), (assignment.name, key)


class ByModules(nn.Module):
    """The same structure as a float model."""

    image_shape = (1, 8, 8)

    def __init__(self, layers):
        super().__init__()
        for name in ("stem", "left", "right"):
            weight = layers[name].weight
            module = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=False)
            module.weight.data.copy_(weight)
            setattr(self, name, module)
            setattr(self, f"{name}_norm", nn.BatchNorm2d(4))
        self.mean, self.flatten = nn.AvgPool2d(8), nn.Flatten()
        self.classes = nn.Linear(4, 10)
        self.classes.weight.data.copy_(layers["classes"].weight)
        self.classes.bias.data.zero_()

    def forward(self, images):
        stem = torch.relu(self.stem_norm(self.stem(images)))
        left = torch.relu(self.left_norm(self.left(stem)))
        right = torch.relu(self.right_norm(self.right(left)) + stem)
        return self.classes(self.flatten(self.mean(right)))


def test_it_trains_as_what_prepare_makes_of_the_same_structure():
    networks = assemble(by_hand(), WIRING, WIDTHS, (1, 8, 8)), prepare(ByModules(by_hand()), "double-rounding", WIDTHS)
    assert networks[0].wiring == networks[1].wiring
    for network in networks:
        JointTraining.begin(network, *digits(32), CONFIG).run_epoch(*digits(32), 0)
    states = [network.state_dict() for network in networks]
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_checkpoint_comes_back_into_a_network_assembled_in_the_same_way(tmp_path):
    first, second = (assemble(by_hand(), WIRING, WIDTHS, (1, 8, 8)) for _ in range(2))
    JointTraining.begin(first, *digits(32), CONFIG).run_epoch(*digits(32), 0)
    save_checkpoint(first, tmp_path / "own.safetensors", architecture="by hand")
    assert load_checkpoint(tmp_path / "own.safetensors", set_width(second, WIDTHS[-1])).model is second
    assert second.widths == set_width(first, WIDTHS[0]).widths
    images = digits(32)[0]
    assert torch.equal(first.eval()(images), second(images))


def test_a_checkpoint_of_other_widths_does_not_go_into_an_assembled_network(tmp_path):
    model = assemble(by_hand(), WIRING, WIDTHS, (1, 8, 8))
    save_checkpoint(model, tmp_path / "own.safetensors", architecture="by hand")
    model.method = "truncation-ready"
    with pytest.raises(ValueError, match=r"is of double-rounding at widths .* and the network is of truncation-ready"):
        load_checkpoint(tmp_path / "own.safetensors", model)


NOT_ADDED = convolution(1, 4, batch_norm=SwitchableBatchNorm(4, (8,)))


@pytest.mark.parametrize(
    ("layers", "wiring", "message"),
    [
        ({}, {"left": Wiring(input="right")}, "layer left: its input must be the image or a layer before it, not 'ri"),
        ({}, {"left": Wiring(input="stem", skip="mean")}, "layer left: its skip must be a layer before it, not 'mean'"),
        ({}, {"mean": Wiring(input="image")}, "layer mean: the image must be read by a convolution or linear layer"),
        ({}, {"mean": Wiring(input="right", skip="left")}, "layer mean: only convolutions and linear layers add a sk"),
        ({}, {"other": Wiring(input="image")}, "the wiring must have an entry for each of the layers"),
        ({"left": convolution(4, 4, stored_bits=4)}, {}, "layer left: stored_bits must be 8, not 4"),
        (
            {"left": convolution(4, 4, batch_norm=SwitchableBatchNorm(4, (8, 2)))},
            {},
            r"layer left: its BatchNorm must have sets for the widths \(8, 4, 2\), not \(8, 2\)",
        ),
        (
            {"left": convolution(4, 4, output=OutputQuantizer((8, 2), feeds_add=False, signed=False))},
            {},
            r"layer left: its codes must have the widths \(8, 4, 2\), as its readers do, not \(8, 2\)",
        ),
        ({"left": convolution(4, 4, output=None)}, {}, "layer left: the last layer, and no other, must make"),
        ({"left": convolution(4, 4, relu=False)}, {}, "layer left: is read as a code and needs a ReLU"),
        (
            {"left": convolution(4, 4, output=OutputQuantizer(WIDTHS, feeds_add=True, signed=False))},
            {},
            r"layer left: must store a skip code \(feeds_add\) if and only if a layer adds it",
        ),
        (
            {"stem": NOT_ADDED, "left": convolution(4, 4, output=OutputQuantizer((), feeds_add=True, signed=True))},
            {"right": Wiring(input="stem", skip="left")},
            "layer left: its skip code must be signed if and only if it has no ReLU",
        ),
        (
            {"stem": NOT_ADDED, "left": QuantMaxPool2d((3, 3), 1, 1)},
            {"right": Wiring(input="left", skip="left")},
            "layer left: a max pooling stores no skip code and cannot be added",
        ),
        ({"classes": convolution(4, 10, batch_norm=None)}, {}, "layer classes: the last layer, and no other, must"),
    ],
)
def test_quantizers_that_the_hardware_does_not_have_there_are_refused(layers, wiring, message):
    with pytest.raises(ValueError, match=message):
        assemble(by_hand() | layers, WIRING | wiring, WIDTHS, (1, 8, 8))


def test_methods_are_checked():
    with pytest.raises(ValueError, match="the method must be one of"):
        assemble(by_hand(), WIRING, WIDTHS, (1, 8, 8), method="magic")
    with pytest.raises(ValueError, match="lsq trains a network for each width"):
        assemble(by_hand(), WIRING, WIDTHS, (1, 8, 8), method="lsq")
    network = SwitchableNetwork(WidthSet(WIDTHS), (1, 8, 8), by_hand(), WIRING)
    with pytest.raises(ValueError, match="the model was prepared for no method: make it with prepare or assemble"):
        JointTraining.begin(network, *digits(32), CONFIG)


def test_prepare_names_what_has_quantizers_already():
    model = small_model()
    model.quantizer = SkipQuantizer(signed=True)
    with pytest.raises(ValueError, match=r"module quantizer \(SkipQuantizer\): has its quantizers already"):
        prepare(model, "double-rounding", WIDTHS)
