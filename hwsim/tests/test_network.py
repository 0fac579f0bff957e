from dataclasses import replace

import numpy as np
import pytest

from hwsim.network import (
    AveragePool2d,
    BatchNorm,
    Conv2d,
    LayerWidths,
    Linear,
    MaxPool2d,
    Network,
    OutputScales,
    assignment_from_weights,
    uniform_assignment,
)
from hwsim.precision import CATALOG, WidthSet
from hwsim.random_network import SMALL, Convolution, MaximumPool, random_assignment, random_network

SET = WidthSet((8, 4))
CODE = OutputScales(code={8: 0.01, 4: 0.1})


def vector(length, value=1.0):
    return np.full(length, value, np.float32)


def norm(channels, **changes):
    parts = {name: vector(channels) for name in ("gamma", "beta", "mean", "variance")}
    return BatchNorm(**{**parts, "epsilon": 1e-5, **changes})


def conv(name="conv", source="image", shape=(4, 1, 3, 3), **changes):
    fields = {
        "name": name,
        "input": source,
        "codes": np.ones(shape, np.int8),
        "stored_bits": 8,
        "weight_scale": vector(shape[0], 0.01),
        "padding": shape[2] // 2,
        "output": CODE,
    }
    return Conv2d(**{**fields, **changes})


def head(source="pool", inputs=4, **changes):
    fields = {
        "name": "logits",
        "input": source,
        "codes": np.ones((10, inputs), np.int8),
        "stored_bits": 8,
        "weight_scale": vector(10),
        "output": OutputScales(logit=0.01),
    }
    return Linear(**{**fields, **changes})


def pool(source="conv", **changes):
    return AveragePool2d(**{"name": "pool", "input": source, "kernel": (6, 6), "stride": 6, "output": CODE, **changes})


def network(*layers, width_set=SET, image_shape=(1, 6, 6)):
    return Network(width_set=width_set, image_shape=image_shape, layers=layers)


def test_a_minimal_network():
    made = network(conv(), pool(), head())
    assert [made.shape(name) for name in ("image", "conv", "pool", "logits")] == [
        (1, 6, 6),
        (4, 6, 6),
        (4, 1, 1),
        (10, 1, 1),
    ]
    assert made.classes == 10
    assert made.macs(made.layer("conv")) == 4 * 9 * 36
    assert made.is_pinned(made.layer("conv")) and made.is_pinned(made.layer("logits"))
    assert made.readers("conv") == ("pool",) and made.adders("conv") == ()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: conv(codes=np.ones((4, 1, 3, 3), np.int16)), "layer conv: codes must be int8 with 4 dimensions"),
        (lambda: conv(codes=np.ones((4, 9), np.int8)), "layer conv: codes must be int8 with 4 dimensions"),
        (lambda: conv(codes=np.full((4, 1, 3, 3), 8, np.int8), stored_bits=4), "codes of 4 bits must be -8 .. 7"),
        (lambda: conv(stored_bits=9), "the stored width must be 1 .. 8 bits, not 9"),
        (lambda: conv(weight_scale=vector(3)), r"the weight scale must be float32 of shape \(4,\)"),
        (lambda: conv(weight_scale=np.ones(4)), "the weight scale must be float32"),
        (lambda: conv(weight_scale=vector(4, 0)), "the weight scale must be positive, not 0.0"),
        (lambda: conv(weight_scale=vector(4, np.nan)), "the weight scale must be finite, not nan"),
        (lambda: conv(bias=vector(5)), r"the bias must be float32 of shape \(4,\)"),
        (lambda: conv(batch_norms={8: norm(3)}), "BatchNorm at 8 bits must have 4 channels, not 3"),
        (lambda: conv(batch_norms={9: norm(4)}), "a BatchNorm width must be 1 .. 8 bits, not 9"),
        (lambda: conv(stride=0), "kernel and stride must be at least 1"),
        (lambda: conv(padding=3), "padding must be 0 .. kernel - 1, not 3"),
        (lambda: pool(kernel=(0, 2)), "kernel and stride must be at least 1"),
        (lambda: norm(3, variance=vector(3, -1)), "variance must not be negative, not -1"),
        (lambda: norm(3, beta=vector(2)), r"BatchNorm beta must be float32 of shape \(3,\)"),
        (lambda: norm(3, epsilon=0), "BatchNorm epsilon must be positive and finite, not 0"),
        (lambda: OutputScales(code={8: 0.0}), "the scale at 8 bits must be positive and finite, not 0.0"),
        (lambda: OutputScales(skip=float("inf")), "the skip scale must be positive and finite, not inf"),
        (lambda: OutputScales(logit=1, skip=1), "a layer that makes logits stores neither a code nor a skip code"),
        (lambda: network(), "a network must have at least one layer"),
        (lambda: network(conv(), image_shape=(6, 6)), r"image shape must be \(channels, height, width\), not \(6, 6\)"),
        (lambda: network(conv(), conv(), head()), "layer conv: the name is used twice"),
        (lambda: network(conv(source="x"), head()), "layer conv: its input 'x' is not made by an earlier layer"),
        (lambda: network(conv(), pool(), head(inputs=5)), r"has 5 inputs, but pool has shape \(4, 1, 1\)"),
        (lambda: network(conv(shape=(4, 2, 3, 3)), pool(), head()), "has 2 input channels, but image has 1"),
        (lambda: network(conv(), pool(kernel=(7, 7)), head()), r"a kernel of \(7, 7\) does not fit into conv"),
        (lambda: network(conv(), pool(), head("conv", 144)), "layer pool: nothing reads its output"),
        (lambda: network(conv(), pool()), "layer pool: the last layer must be a weight layer that makes logits"),
        (lambda: network(conv(output=OutputScales(logit=1)), head("conv", 144)), "the last layer, and no other, must"),
        (lambda: network(conv(), pool(), head(output=CODE)), "the last layer, and no other, must make logits"),
        (lambda: network(conv(output=OutputScales(code={4: 1.0})), head("conv", 144)), "read at 8 bits and has no sca"),
        (lambda: network(conv(stored_bits=7), head("conv", 144)), "must store 8-bit codes, not 7"),
        (lambda: network(conv(batch_norms={4: norm(4)}), head("conv", 144)), "has no BatchNorm set at 8 bits"),
        (
            lambda: network(conv(), conv("two", "conv", (4, 4, 3, 3), skip="conv"), head("two", 144)),
            "layer conv: feeds the add of two and needs a skip scale",
        ),
        (
            lambda: network(conv(), conv("two", "conv", (4, 4, 3, 3), skip="image"), head("two", 144)),
            "layer two: its skip 'image' is not made by an earlier layer",
        ),
        (
            lambda: network(conv(), conv("two", "conv", (5, 4, 3, 3), skip="conv"), head("two", 180)),
            "layer two: adds",
        ),
        (
            lambda: network(
                conv(),
                MaxPool2d(name="most", input="conv", kernel=(1, 1), stride=1),
                conv("two", "most", (4, 4, 3, 3), skip="most"),
                head("two", 144),
            ),
            "max pooling stores no skip code",
        ),
        (
            lambda: network(
                MaxPool2d(name="most", input="image", kernel=(1, 1), stride=1), conv(source="most"), head("conv", 144)
            ),
            "the image must be read by a weight layer first",
        ),
        (
            lambda: network(pool("image", kernel=(1, 1), stride=1), conv(source="pool"), head("conv", 144)),
            "the image must be read by a weight layer first",
        ),
    ],
)  # fmt: skip
def test_what_is_inconsistent_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_arrays_are_copies_that_cannot_be_written():
    codes = np.ones((4, 1, 3, 3), np.int8)
    layer = conv(codes=codes)
    codes[:] = 7
    assert layer.codes.max() == 1
    with pytest.raises(ValueError, match="read-only"):
        layer.codes[:] = 0
    with pytest.raises(ValueError, match="read-only"):
        layer.weight_scale[:] = 0


@pytest.mark.parametrize("widths", CATALOG.values(), ids=CATALOG)
def test_uniform_assignments(widths):
    made = random_network(1, widths, sketches=SMALL)
    for bits in widths:
        assignment = uniform_assignment(made, bits)
        assert assignment.name == f"W{bits}A{bits}"
        for layer in made.weight_layers:
            expected = LayerWidths(8, 8) if made.is_pinned(layer) else LayerWidths(bits, bits)
            assert assignment.layers[layer.name] == expected
        assert assignment.average_weight_bits == bits
        assert assignment.code_bits("block2_b") == bits  # read by the average pooling
        assert assignment.code_bits("block2_shortcut") is None  # only added
        assert assignment.code_bits("average1") == 8  # read by the last layer
    missing = next(bits for bits in range(1, 9) if bits not in widths)
    with pytest.raises(ValueError, match=f"the weight width must be one of .*, not {missing}"):
        uniform_assignment(made, missing)


@pytest.mark.parametrize("seed", range(10))
def test_random_assignments_are_valid_and_mixed(seed):
    made = random_network(2, CATALOG["8-6-4-2"], sketches=[*SMALL[:2], MaximumPool(), Convolution(channels=5)])
    assignment = random_assignment(made, seed)
    assert assignment.activation_bits("maximum1") == assignment.activation_bits("conv2")
    assert len({str(widths) for widths in assignment.layers.values()}) > 1


def refused(message, **changes):
    sketches = [*SMALL, MaximumPool(kernel=1), Convolution(channels=5, kernel=1)]
    made = random_network(2, CATALOG["8-4-2"], sketches=sketches)
    layers = dict(uniform_assignment(made, 4).layers)
    layers |= changes
    with pytest.raises(ValueError, match=message):
        replace(uniform_assignment(made, 4), layers={name: widths for name, widths in layers.items() if widths})


def test_bad_assignments_are_refused():
    refused("has no widths for layer block1_a", block1_a=None)
    refused("the network has no layer 'nine'", nine=LayerWidths(4, 4))
    refused("the weight width must be one of {8, 4, 2}, not 6", block1_a=LayerWidths(6, 4))
    refused("the activation width must be one of {8, 4, 2}, not 6", block1_a=LayerWidths(4, 6))
    refused("layer conv1: the first and the last layer must be W8A8, not W4A8", conv1=LayerWidths(4, 8))
    refused("layer logits: the first and the last layer must be W8A8", logits=LayerWidths(8, 4))
    refused("layer block1_a: has no weight width", block1_a=LayerWidths(None, 4))
    refused("pooling has no weights, yet a weight width of 4", average1=LayerWidths(4, 4))
    refused("all readers of block1_b share its width", block2_a=LayerWidths(4, 2))
    refused("max pooling maximum1 keeps its width of 2 bits", maximum1=LayerWidths(None, 2))


def test_the_assignment_function_pins_what_is_pinned():
    made = random_network(2, CATALOG["8-4-2"])
    assignment = assignment_from_weights(
        made, "low", dict.fromkeys([layer.name for layer in made], 2), lambda tensor: 2
    )
    assert assignment.layers["conv1"] == assignment.layers["logits"] == LayerWidths(8, 8)
    assert assignment.weight_bits("block1_a") == 2
    with pytest.raises(ValueError, match="layer average1 has no weights"):
        assignment.weight_bits("average1")
