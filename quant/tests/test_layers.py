import math

import pytest
import torch
from torch import nn

from quant import functional
from quant.layers import (
    LOGIT_SCALE,
    CodeQuantizer,
    OutputQuantizer,
    QuantAveragePool2d,
    QuantConv2d,
    QuantLinear,
    QuantMaxPool2d,
    SwitchableBatchNorm,
    best_scale,
    initial_weight_scale,
)


def convolution(output=None, batch_norm=None, relu=True):
    torch.manual_seed(1)
    return QuantConv2d(
        weight=torch.randn(3, 2, 3, 3),
        bias=None,
        batch_norm=batch_norm,
        relu=relu,
        stored_bits=8,
        output=output if output is not None else OutputQuantizer((8, 4, 2), feeds_add=False, signed=False),
        stride=1,
        padding=1,
    )


def test_batch_norm_learns_only_at_the_width_that_runs():
    norm = SwitchableBatchNorm(3, (8, 4, 2)).train()
    norm(torch.randn(4, 3, 5, 5) * 3 + 1, 4)
    moved = {bits: float(norm.set_at(bits).running_mean.abs().sum()) > 0 for bits in (8, 4, 2)}
    assert moved == {8: False, 4: True, 2: False}


def test_batch_norm_uses_the_set_of_its_width():
    norm = SwitchableBatchNorm(1, (8, 2)).eval()
    norm.set_at(2).bias.data.fill_(5.0)
    values = torch.zeros(1, 1, 2, 2)
    assert norm(values, 8).unique().tolist() == [0.0] and norm(values, 2).unique().tolist() == [5.0]


def test_batch_norm_without_the_width_is_refused():
    with pytest.raises(ValueError, match=r"must have a set at the weight width, one of \['8', '2'\], not 4"):
        SwitchableBatchNorm(1, (8, 2))(torch.zeros(1, 1, 1, 1), 4)


def test_batch_norm_starts_from_the_float_one():
    module = nn.BatchNorm1d(2, eps=0.5)
    module.running_mean.copy_(torch.tensor([3.0, 4.0]))
    norm = SwitchableBatchNorm.from_float(module, (4, 2))
    assert [norm.set_at(bits).running_mean.tolist() for bits in (4, 2)] == [[3.0, 4.0]] * 2
    assert norm.set_at(2).eps == 0.5


def test_a_code_quantizer_has_one_scale_for_each_width():
    quantizer = CodeQuantizer((8, 2))
    quantizer.scale(2).data.fill_(0.5)
    values = torch.tensor([0.6, 9.0, -1.0])
    assert quantizer.codes(values, 2).tolist() == [1, 3, 0]
    assert quantizer.codes(values, 8).tolist() == [1, 9, 0]
    with pytest.raises(ValueError, match=r"one of the widths \(8, 2\), not 4"):
        quantizer.codes(values, 4)


def test_the_code_is_made_from_the_skip_code():
    output = OutputQuantizer((8, 2), feeds_add=True, signed=False)
    output.skip.scale.data.fill_(1.0)
    output.code.scale(2).data.fill_(0.99)
    values = torch.tensor([1.45, 1.55])
    assert output.codes(values, 2).skip.tolist() == [1, 2]
    assert output.codes(values, 2).code.tolist() == [1, 2]
    direct = functional.activation_codes(values, torch.tensor(0.99), 0, 3).tolist()
    assert direct == [1, 2]
    # 1.49 is skip code 1, so code 1; quantized directly it would be code 2.
    assert output.codes(torch.tensor([1.49]), 2).code.tolist() == [1]
    assert functional.activation_codes(torch.tensor([1.49]), torch.tensor(0.99), 0, 3).tolist() == [2]
    stored = output(torch.tensor([1.49]), 2)
    assert stored.skip.tolist() == [1.0] and stored.code.tolist() == pytest.approx([0.99])


def test_signed_skip_codes_reach_minus_128_and_unsigned_ones_do_not():
    values = torch.tensor([-500.0, -3.0, 500.0])
    assert OutputQuantizer((), feeds_add=True, signed=True).codes(values, None).skip.tolist() == [-128, -3, 127]
    assert OutputQuantizer((), feeds_add=True, signed=False).codes(values, None).skip.tolist() == [0, 0, 255]


def test_an_unsigned_code_of_a_signed_tensor_is_refused():
    with pytest.raises(ValueError, match="must come from a ReLU or a pooling"):
        OutputQuantizer((8,), feeds_add=True, signed=True)


def test_the_main_path_is_not_rounded_before_the_add():
    layer = convolution()
    values, skip = torch.rand(1, 2, 4, 4), torch.rand(1, 3, 4, 4)
    weight = functional.double_rounding(layer.weight, layer.weight_scale, 8, 4)
    expected = torch.nn.functional.conv2d(values, weight, None, 1, 1) + skip
    assert torch.equal(layer.real_output(values, skip, 4), expected)
    scale = layer.output.code.scale(4)
    stored = layer(values, skip, 4, 4).code
    assert torch.equal(stored, functional.activation_codes(expected, scale, 0, 15) * scale)


def test_switched_codes_are_what_the_operator_computes_with():
    layer = convolution()
    for bits, exponent in ((8, 0), (6, 2), (4, 4), (2, 6), (1, 6)):
        weight = functional.double_rounding(layer.weight, layer.weight_scale, 8, bits)
        step = layer.weight_scale[:, None, None, None] * 2.0**exponent
        assert layer.switched_codes(bits).dtype == torch.int8
        assert torch.equal(weight, layer.switched_codes(bits).float() * step)
    assert torch.equal(layer.stored_codes(), layer.switched_codes(8))


def test_gradients_reach_weights_scales_and_the_batch_norm_of_the_width_alone():
    layer = convolution(batch_norm=SwitchableBatchNorm(3, (8, 4, 2)))
    layer(torch.rand(2, 2, 4, 4), None, 4, 4).code.sum().backward()
    with_gradient = {name for name, parameter in layer.named_parameters() if parameter.grad is not None}
    assert with_gradient == {
        "weight",
        "weight_scale",
        "batch_norm.sets.4.weight",
        "batch_norm.sets.4.bias",
        "output.code.scales.4",
    }


def test_the_last_layer_makes_logits_on_their_grid():
    layer = QuantLinear(
        weight=torch.randn(5, 8), bias=torch.randn(5), batch_norm=None, relu=False, stored_bits=8, output=None
    )
    logits = layer(torch.rand(3, 2, 2, 2), None, 8, None).code
    assert logits.shape == (3, 5, 1, 1)
    assert torch.equal(logits / LOGIT_SCALE, torch.round(logits / LOGIT_SCALE))


def test_average_pooling_rounds_once():
    pool = QuantAveragePool2d((2, 2), 2, OutputQuantizer((8,), feeds_add=False, signed=False))
    codes = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert pool(codes, 8).code.tolist() == [[[[3.0]]]]  # mean 2.5, ties up


def test_max_pooling_never_picks_padding():
    assert QuantMaxPool2d((3, 3), 2, 1)(torch.zeros(1, 1, 4, 4)).abs().max() == 0


def test_best_scale_is_the_best_of_a_grid_and_survives_dead_tensors():
    values = torch.randn(2000, generator=torch.Generator().manual_seed(0)).clamp(min=0)
    scale = best_scale(values, 0, 3)

    def error(one):
        return float(((functional.activation_codes(values, torch.tensor(one), 0, 3) * one - values) ** 2).mean())

    assert all(error(scale) <= error(scale * factor) + 1e-9 for factor in (0.5, 0.8, 1.25, 2.0))
    assert best_scale(torch.zeros(10), 0, 3) == 1.0
    assert best_scale(torch.tensor([-128.0, 0.0]), -128, 127) == 1.0


def test_initial_weight_scale_is_three_deviations_and_positive():
    weight = torch.tensor([[1.0, -1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0]])
    scale = initial_weight_scale(weight, 8)
    assert math.isclose(float(scale[0]), 3 / 128, rel_tol=1e-6) and float(scale[1]) > 0
