import pytest
import torch

from hwsim.precision import WidthSet
from quant import functional, lsq
from quant.convert import prepare
from quant.tests.conftest import small_model


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_quantizer_is_lsq_at_one_width(bits):
    torch.manual_seed(bits)
    weight = torch.randn(3, 40, requires_grad=True)
    scale = torch.tensor([0.1, 0.4, 0.9], requires_grad=True)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    upstream = torch.randn(3, 40)
    functional.double_rounding(weight, scale, bits, bits).backward(upstream)
    quotient = (weight / scale[:, None]).detach()
    rounded = quotient.clamp(low, high).round()
    inside = (quotient >= low) & (quotient <= high)
    assert torch.equal(weight.grad, upstream * inside)
    slope = torch.where(inside, rounded - quotient, rounded)
    assert torch.allclose(scale.grad, (upstream * slope).sum(1), rtol=1e-5, atol=1e-5)
    values = functional.double_rounding(weight, scale, bits, bits).detach()
    assert torch.equal(values, rounded * scale[:, None].detach())


def test_weight_scales_start_where_lsq_says():
    weight = torch.tensor([[1.0, -3.0], [0.0, 0.0]])
    assert lsq.initial_scale(weight, 4).tolist() == pytest.approx([4 / 7**0.5, 2e-6 / 7**0.5])
    model, plain = prepare(small_model(), "lsq", (4,)), prepare(small_model(), "double-rounding", (4,))
    for name, layer in model.weight_layers():
        same = torch.equal(layer.weight_scale, plain.layer(name).weight_scale)
        assert same == model.is_pinned(name)


def test_only_single_widths_are_accepted():
    lsq.check_widths(WidthSet((2,)))
    with pytest.raises(ValueError, match=r"must be one width, not {4, 2}"):
        lsq.check_widths(WidthSet((4, 2)))
