import numpy as np
import pytest

from hwsim import layers, spec
from hwsim.network import AveragePool2d, Conv2d, Linear, MaxPool2d, OutputScales
from hwsim.requantize import switched_weights
from hwsim.tests import reference
from hwsim.tests.mutation import INTERPRETED, mutant

CODE = OutputScales(code={8: 1.0})


def random_codes(rng, shape, bits):
    return rng.integers(0, 2**bits, shape).astype(np.uint8)


def random_weights(rng, shape, stored_bits):
    return rng.integers(-(2 ** (stored_bits - 1)), 2 ** (stored_bits - 1), shape).astype(np.int8)


def convolution(codes, stored_bits=8, **changes):
    return Conv2d(
        name="conv",
        input="image",
        codes=codes,
        stored_bits=stored_bits,
        weight_scale=np.ones(len(codes), np.float32),
        output=CODE,
        **changes,
    )


def linear(codes, stored_bits=8):
    return Linear(
        name="linear",
        input="image",
        codes=codes,
        stored_bits=stored_bits,
        weight_scale=np.ones(len(codes), np.float32),
        output=CODE,
    )


def accumulate_errors(layer, weight_bits, codes):
    found = layers.accumulate(layer, switched_weights(layer, weight_bits), codes)
    wanted = np.array([reference.accumulators(layer, weight_bits, image) for image in codes.tolist()])
    assert found.dtype == np.int32 and found.shape == wanted.shape and wanted.any()
    return int((found != wanted).sum())


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((3, 3), 1, 1), ((3, 3), 2, 1), ((1, 1), 1, 0), ((1, 1), 2, 0), ((5, 5), 3, 2), ((3, 3), 1, 0), ((2, 3), 2, 1),
     ((3, 1), 1, 0), ((7, 6), 1, 0)],
)  # fmt: skip
@pytest.mark.parametrize("weight_bits", [8, 3, 1])
def test_convolution_is_the_sum_of_products(kernel, stride, padding, weight_bits):
    rng = np.random.default_rng(4)
    layer = convolution(random_weights(rng, (3, 2, *kernel), 8), stride=stride, padding=padding)
    assert accumulate_errors(layer, weight_bits, random_codes(rng, (2, 2, 7, 6), 8)) == 0


@pytest.mark.parametrize("stored_bits", range(1, 9))
def test_planes_make_the_same_sums_at_every_width(stored_bits):
    """The reference adds planes (``spec.plane_bit`` ...), ``layers`` multiplies: equal for every stored width."""
    rng = np.random.default_rng(stored_bits)
    codes = random_weights(rng, (4, 3, 3, 3), stored_bits)
    for target_bits in range(1, stored_bits + 1):
        activation_bits = int(rng.integers(1, 9))
        layer = convolution(codes, stored_bits, padding=1)
        assert accumulate_errors(layer, target_bits, random_codes(rng, (1, 3, 4, 5), activation_bits)) == 0


def test_linear_flattens_channels_rows_columns():
    rng = np.random.default_rng(8)
    layer = linear(random_weights(rng, (5, 24), 8))
    codes = random_codes(rng, (3, 2, 3, 4), 8)
    assert accumulate_errors(layer, 8, codes) == 0
    found = layers.accumulate(layer, layer.codes, codes)
    assert (found[..., 0, 0] == codes.reshape(3, 24).astype(int) @ layer.codes.astype(int).T).all()


def test_saturated_inputs_and_weights():
    for sign in (-128, 127):
        layer = convolution(np.full((2, 16, 3, 3), sign, np.int8), padding=1)
        codes = np.full((1, 16, 4, 4), 255, np.uint8)
        assert accumulate_errors(layer, 8, codes) == 0


def test_groups_of_images_do_not_change_the_sums(monkeypatch):
    rng = np.random.default_rng(2)
    layer = convolution(random_weights(rng, (3, 2, 3, 3), 8), padding=1)
    codes = random_codes(rng, (7, 2, 5, 5), 8)
    whole = layers.accumulate(layer, layer.codes, codes)
    monkeypatch.setattr(layers, "COLUMN_BYTES", 4 * 18 * 25 * 3)
    assert (layers.accumulate(layer, layer.codes, codes) == whole).all()


def test_many_pixels_cross_the_blocks_of_the_product():
    rng = np.random.default_rng(2)
    layer = convolution(random_weights(rng, (2, 1, 1, 1), 8))
    codes = random_codes(rng, (3, 1, 33, 37), 8)
    assert (layers.accumulate(layer, layer.codes, codes) == codes.astype(int) * layer.codes.reshape(2, 1, 1)).all()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("out[tap, index] = padded[image, channel, y * stride + row, ", "out[tap, index] = padded[image, channel, y, "),
        ("x * stride + column]\n                            index", "x]\n                            index"),
        ("total[index] += weight * column[index]", "total[index] += weight * abs(column[index] - 1)"),
        ("total[:] = 0", "total[:] = 1"),
        ("for tap in range(taps):", "for tap in range(taps - 1):"),
    ],
)
def test_a_wrong_convolution_is_caught(old, new, monkeypatch):
    changed = mutant("hwsim.kernels", INTERPRETED, (old, new))
    for name in ("unfold", "multiply_accumulate"):
        monkeypatch.setattr(f"hwsim.kernels.{name}", getattr(changed, name))
    rng = np.random.default_rng(4)
    layer = convolution(random_weights(rng, (2, 2, 3, 3), 8), padding=1)
    assert accumulate_errors(layer, 8, random_codes(rng, (1, 2, 4, 4), 8))


def test_an_accumulator_beyond_32_bits_is_refused():
    layer = linear(np.full((1, 70000), -128, np.int8))
    with pytest.raises(ValueError, match="layer linear: an accumulator can reach 2284800000, and 32 bits are the most"):
        layers.accumulate(layer, layer.codes, np.full((1, 70000, 1, 1), 255, np.uint8))


@pytest.mark.parametrize(("kernel", "stride"), [((2, 2), 2), ((3, 2), 1), ((7, 6), 1), ((2, 2), 3)])
def test_average_pooling_sums_windows(kernel, stride):
    codes = random_codes(np.random.default_rng(1), (2, 3, 7, 6), 8)
    layer = AveragePool2d(name="pool", input="x", kernel=kernel, stride=stride, output=CODE)
    found = layers.sum_windows(layer, codes)
    assert found.dtype == np.int32
    assert found.tolist() == [reference.pooled(layer, image, sum) for image in codes.tolist()]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [((2, 2), 2, 0), ((3, 3), 2, 1), ((3, 2), 1, 1), ((7, 6), 1, 0)]
)
def test_max_pooling_takes_the_largest_code(kernel, stride, padding):
    codes = random_codes(np.random.default_rng(1), (2, 3, 7, 6), 8)
    layer = MaxPool2d(name="pool", input="x", kernel=kernel, stride=stride, padding=padding)
    found = layers.max_windows(layer, codes)
    assert found.dtype == np.uint8
    assert found.tolist() == [reference.pooled(layer, image, max) for image in codes.tolist()]


def test_pooling_kinds_are_not_swapped():
    codes = np.full((1, 1, 2, 2), 200, np.uint8)
    average = AveragePool2d(name="pool", input="x", kernel=(2, 2), stride=2, output=CODE)
    most = MaxPool2d(name="pool", input="x", kernel=(2, 2), stride=2)
    assert layers.sum_windows(average, codes).item() == 800
    assert layers.max_windows(most, codes).item() == 200


@pytest.mark.parametrize("stored_bits", range(1, 9))
def test_switched_weights_are_the_switch_of_every_code(stored_bits):
    codes = np.arange(spec.signed_low(stored_bits), spec.signed_high(stored_bits) + 1).astype(np.int8)
    layer = convolution(codes.reshape(-1, 1, 1, 1), stored_bits)
    for target_bits in range(1, stored_bits + 1):
        found = switched_weights(layer, target_bits)
        assert found.dtype == np.int8 and found.shape == layer.codes.shape
        assert found.ravel().tolist() == [spec.switch(int(code), stored_bits, target_bits) for code in codes]
