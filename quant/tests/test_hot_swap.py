import copy

import numpy as np
import pytest
import torch

from hwsim import engine
from hwsim.assignments import uniform_assignments
from hwsim.precision import WidthSet
from hwsim.requantize import build_requantizers, switched_weights
from hwsim.tests.mutation import mutant
from quant import data, hot_swap
from quant.convert import prepare
from quant.deploy import deployed_forward
from quant.export import export_network
from quant.progress import Progress
from quant.switchable import set_width
from quant.tests.conftest import small_model
from quant.train import TrainingConfig, train_jointly

SET = WidthSet((8, 4, 3, 2, 1))


@pytest.fixture(scope="module")
def model():
    config = TrainingConfig(method="hot-swap", widths=SET, joint_epochs=2, batch_size=16, compare_float=False)
    images, labels = (torch.from_numpy(array[:64]) for array in data.load_digits())
    prepared = prepare(small_model(), "hot-swap", SET)
    train_jointly(prepared, images, labels, config, Progress("", 1, shown=False))
    return prepared


def transform_errors(module):
    """How far the transform is from orthonormal, and its inverse from the inverse."""
    torch.manual_seed(0)
    matrix = torch.randn(6, 10, dtype=torch.float64)
    parts = module.haar(matrix)
    errors = [abs(float(parts.square().sum() - matrix.square().sum()))]
    errors.append(float((module.inverse_haar(parts) - matrix).abs().max()))
    flat = module.haar(torch.ones(4, 4, dtype=torch.float64))
    errors.append(float(flat[1:].abs().max()) + float((flat[0] - 2).abs().max()))
    return [error for error in errors if error > 1e-12]


def test_the_transform_is_orthonormal_and_inverted():
    assert transform_errors(hot_swap) == []


@pytest.mark.parametrize(
    "change",
    [
        ("left - right", "right - left"),
        ("top - bottom", "top + bottom"),
        ("return torch.stack([low + high, low - high], -2)", "return torch.stack([low - high, low + high], -2)"),
        ("torch.stack(parts) / 2", "torch.stack(parts)"),
    ],
)
def test_a_wrong_transform_is_caught(change):
    assert transform_errors(mutant("quant.hot_swap", change))


def test_gains_of_one_change_nothing_and_others_do():
    for shape in ((4, 3, 3, 3), (5, 7), (6, 4, 1, 1)):
        weight = torch.randn(shape)
        wavelet = hot_swap.WaveletWeights(weight, SET)
        assert torch.allclose(wavelet.reconstruct(weight, 4), weight, atol=1e-6)
        with torch.no_grad():
            wavelet.gains["4"].copy_(torch.tensor([1.0, 0.5, 1.0, 1.0]))
        assert not torch.allclose(wavelet.reconstruct(weight, 4), weight, atol=1e-2)
        assert torch.allclose(wavelet.reconstruct(weight, 8), weight, atol=1e-6)


def test_gains_and_scales_of_every_width_learn(model):
    for name, layer in model.weight_layers():
        if model.is_pinned(name):
            assert layer.reconstruction is None
            continue
        wavelet = layer.reconstruction
        for bits in SET:
            assert not torch.equal(wavelet.gains[str(bits)], torch.ones(4)), (name, bits)
            start = hot_swap.initial_scale(layer.weight.detach(), bits)
            assert not torch.equal(wavelet.scales[str(bits)], start)


@pytest.mark.parametrize("bits", SET)
def test_a_switched_model_is_the_same_function_and_exports(model, bits, images):
    switched = hot_swap.at_width(model, bits)
    batch = torch.from_numpy(images)
    with torch.no_grad():
        assert torch.equal(set_width(switched.eval(), bits)(batch), set_width(model.eval(), bits)(batch))
    network = export_network(switched)
    assert network.width_set.widths == ((2, 1) if bits == 1 else (bits,))
    assignment = next(one for one in uniform_assignments(network) if one.name == f"W{bits}A{bits}")
    tables = build_requantizers(network, assignment)
    expected = engine.run(network, assignment, tables, images[:8])
    found = deployed_forward(switched, assignment, tables, images[:8])
    assert all(np.array_equal(found[key], values) for key, values in expected.items())
    weights = switched.layer("blocks.0.conv1").switched_codes(bits).unique().tolist()
    assert weights == [-1, 1] if bits == 1 else len(weights) > 1


def bipolar_errors(module, model):
    """Return the layers whose weights at 1 bit are not sign times scale, in training or as exported."""
    model = copy.deepcopy(model)
    for _, layer in model.weight_layers():
        if layer.reconstruction is not None:
            layer.reconstruction.__class__ = module.WaveletWeights
    exported, wrong = export_network(module.at_width(model, 1)), []
    for name, layer in model.weight_layers():
        if model.is_pinned(name):
            continue
        wavelet = layer.reconstruction
        rebuilt = wavelet.reconstruct(layer.weight, 1).detach().numpy()
        signs = np.where(rebuilt >= 0, 1, -1)
        scale = wavelet.scales["1"].detach().numpy()
        found = exported.layer(name)
        trained = wavelet.quantized(layer.weight, 1).detach().numpy()
        right = (
            np.array_equal(trained, signs * scale.reshape(-1, *(1,) * (signs.ndim - 1)))
            and np.array_equal(switched_weights(found, 1), signs)
            and np.array_equal(switched_weights(found, 2), signs)
            and np.array_equal(found.weight_scale, scale)
        )
        if not right:
            wrong.append(name)
    return wrong


def test_bipolar_weights_are_the_signs_of_the_reconstruction(model):
    assert bipolar_errors(hot_swap, model) == []


@pytest.mark.parametrize(
    "change",
    [
        # The weights through the switch from codes of two bits: positive down to minus half a step.
        (
            "return functional.bipolar(rebuilt, self.scales[str(bits)])",
            "return functional.double_rounding(rebuilt, self.scales[str(bits)], 2, 1)",
        ),
        ("taken = wavelet.quantized if bits == 1 else wavelet.reconstruct", "taken = wavelet.reconstruct"),
        ("layer.weight_scale.copy_(wavelet.scales[str(bits)])", "layer.weight_scale.mul_(2)"),
    ],
)
def test_biased_bipolar_weights_are_caught(model, change):
    assert bipolar_errors(mutant("quant.hot_swap", change), model)


def test_a_bipolar_scale_starts_at_the_mean_magnitude():
    weight = torch.randn(4, 3, 3, 3)
    assert torch.equal(hot_swap.initial_scale(weight, 1), weight.abs().mean((1, 2, 3)))


def test_a_model_of_all_widths_has_nothing_to_export(model):
    with pytest.raises(ValueError, match=r"has no stored codes: export quant.hot_swap.at_width\(model, bits\)"):
        export_network(model)
    with pytest.raises(ValueError, match=r"the width must be one of \{8, 4, 3, 2, 1\}, not 6"):
        hot_swap.at_width(model, 6)
    with pytest.raises(ValueError, match="nothing to reconstruct"):
        hot_swap.at_width(prepare(small_model(), "double-rounding", (8, 2)), 2)
    assert list(hot_swap.deployable(model)) == list(SET)
    plain = prepare(small_model(), "double-rounding", (8, 2))
    assert hot_swap.deployable(plain) == {8: plain}
