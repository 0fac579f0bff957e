import math
from fractions import Fraction

import pytest
import torch

from hwsim import spec
from hwsim.precision import CATALOG, WidthSet
from hwsim.tests.mutation import mutant
from quant import functional

SETS = {**CATALOG, "8-1": WidthSet((8, 1)), "3-1": WidthSet((3, 1)), "all": WidthSet(tuple(range(1, 9)))}
PAIRS = sorted({(stored, bits) for widths in SETS.values() for stored in (widths.highest, 8) for bits in widths})


def codes_of(bits):
    return range(spec.signed_low(bits), spec.signed_high(bits) + 1)


def switch_errors(module, stored_bits, target_bits):
    codes = torch.tensor(list(codes_of(stored_bits)), dtype=torch.float32)
    found = module.switch_codes(codes, stored_bits, target_bits).tolist()
    return [
        (code, value)
        for code, value in zip(codes_of(stored_bits), found, strict=True)
        if value != spec.switch(code, stored_bits, target_bits)
    ]


@pytest.mark.parametrize(("stored_bits", "target_bits"), PAIRS)
def test_switch_twin_equals_spec_on_every_code(stored_bits, target_bits):
    assert switch_errors(functional, stored_bits, target_bits) == []


@pytest.mark.parametrize(
    "change",
    [
        ("switched = torch.floor((codes + float(1 << (shift - 1))) * 2.0**-shift)",
         "switched = torch.round(codes * 2.0**-shift)"),
        ("switched = torch.floor((codes + float(1 << (shift - 1))) * 2.0**-shift)",
         "switched = torch.floor(codes * 2.0**-shift)"),
        ("return switched.clamp_(max=spec.signed_high(target_bits))", "return switched"),
    ],
)  # fmt: skip
def test_a_wrong_switch_twin_is_caught(change):
    changed = mutant("quant.functional", change)
    assert all(switch_errors(changed, 8, bits) for bits in (6, 4, 2))


def floor_errors(module, stored_bits, target_bits):
    codes = torch.tensor(list(codes_of(stored_bits)), dtype=torch.float32)
    found = module.switch_codes(codes, stored_bits, target_bits, "floor").tolist()
    return [
        (code, value)
        for code, value in zip(codes_of(stored_bits), found, strict=True)
        if value != spec.switch_floor(code, stored_bits, target_bits)
    ]


@pytest.mark.parametrize(("stored_bits", "target_bits"), PAIRS)
def test_floor_twin_equals_spec_on_every_code(stored_bits, target_bits):
    assert floor_errors(functional, stored_bits, target_bits) == []


@pytest.mark.parametrize(
    "change",
    [
        ("return torch.floor(codes * 2.0**-shift)", "return torch.trunc(codes * 2.0**-shift)"),
        ("return torch.floor(codes * 2.0**-shift)", "return torch.round(codes * 2.0**-shift)"),
        ("if rule == FLOOR:", "if rule == ROUND:"),
    ],
)
def test_a_wrong_floor_twin_is_caught(change):
    changed = mutant("quant.functional", change)
    assert all(floor_errors(changed, 8, bits) for bits in (6, 4, 2))


@pytest.mark.parametrize(("bits", "differing"), [(6, 32), (4, 8), (2, 2)])
def test_half_even_is_python_rounding_and_differs_where_the_tie_goes_up(bits, differing):
    codes = torch.arange(-128, 128, dtype=torch.float32)
    found = functional.switch_codes(codes, 8, bits, functional.HALF_EVEN).tolist()
    expected = [min(round(Fraction(code, 1 << (8 - bits))), 2 ** (bits - 1) - 1) for code in range(-128, 128)]
    assert found == expected
    ours = functional.switch_codes(codes, 8, bits).tolist()
    assert sum(one != other for one, other in zip(found, ours, strict=True)) == differing


@pytest.mark.parametrize("bits", [6, 4, 2])
def test_gradients_of_the_floor_rule_pass_exactly_where_nothing_is_clipped(bits):
    step = 2.0 ** (8 - bits)
    low, high = spec.signed_low(bits), spec.signed_high(bits)
    quotients = torch.arange(4 * (low - 2), 4 * (high + 3)) / 4
    weight = (quotients * step).reshape(1, -1).requires_grad_()
    scale = torch.ones(1, requires_grad=True)
    values = functional.double_rounding(weight, scale, 8, bits, "floor")
    values.sum().backward()
    inside = (quotients >= low) & (quotients <= high + 1)
    assert torch.equal(weight.grad[0], inside.float())
    codes = (values.detach() / step)[0]
    assert float(scale.grad) == float((codes - quotients * inside).sum())


def test_a_wrong_sign_of_a_bipolar_weight_is_caught():
    changed = mutant("quant.functional", ("torch.where(values >= 0, 1.0, -1.0)", "torch.where(values > 0, 1.0, -1.0)"))
    assert switch_errors(changed, 8, 1) == [(0, -1.0)]


def test_bipolar_weights_and_their_gradients():
    weight = torch.tensor([[-1.1, -1.0, -0.01, -0.0, 0.0, 0.01, 1.0, 1.1], [-8.0, -2.0, -0.1, 0.0, 0.1, 2.0, 6.0, 8.0]])
    weight.requires_grad_()
    scale = torch.tensor([0.5, 3.0], requires_grad=True)
    values = functional.bipolar(weight, scale)
    signs = torch.tensor([[-1.0, -1, -1, 1, 1, 1, 1, 1], [-1.0, -1, -1, 1, 1, 1, 1, 1]])
    assert torch.equal(values, signs * scale.detach()[:, None])
    incoming = torch.arange(1.0, 17).reshape(2, 8)
    values.backward(incoming)
    passed = torch.tensor([[0.0, 1, 1, 1, 1, 1, 1, 0], [0.0, 1, 1, 1, 1, 1, 1, 0]])
    assert torch.equal(weight.grad, incoming * passed)
    assert torch.equal(scale.grad, (incoming * signs).sum(1))


def test_mean_magnitude_is_the_best_scale_of_bipolar_weights():
    weight = torch.randn(3, 200, generator=torch.Generator().manual_seed(0))
    scale = weight.abs().mean(1).requires_grad_()
    (functional.bipolar(weight, scale) - weight).square().sum().backward()
    assert float(scale.grad.abs().max()) < 1e-3


def rounded(value, low, high):
    return spec.clamp(math.floor(value + Fraction(1, 2)), low, high)


def weight_errors(module, bits):
    """Sixteenths of a step, ties included, from below to above the range: the rationals are exact in float32."""
    sixteenths = range(16 * (spec.signed_low(bits) - 2), 16 * (spec.signed_high(bits) + 3))
    weight = torch.tensor([[number / 16 * 0.25 for number in sixteenths]])
    found = module.weight_codes(weight, torch.tensor([0.25]), bits)[0].tolist()
    low, high = spec.signed_low(bits), spec.signed_high(bits)
    expected = [rounded(Fraction(number, 16), low, high) for number in sixteenths]
    return [pair for pair in zip(sixteenths, found, expected, strict=True) if pair[1] != pair[2]]


@pytest.mark.parametrize("bits", range(1, 9))
def test_weight_codes_round_half_up_and_clamp(bits):
    assert weight_errors(functional, bits) == []


def test_a_wrong_first_rounding_is_caught():
    changed = mutant("quant.functional", ("return values.add_(0.5).floor_()", "return values.round_()"))
    assert weight_errors(changed, 4)
    changed = mutant(
        "quant.functional",
        ("return codes.clamp_(spec.signed_low(stored_bits), spec.signed_high(stored_bits))", "return codes"),
    )
    assert weight_errors(changed, 4)


@pytest.mark.parametrize(("low", "high"), [(0, spec.unsigned_high(bits)) for bits in range(1, 9)] + [(-128, 127)])
def test_activation_codes_round_half_up_and_clamp(low, high):
    assert activation_errors(functional, low, high) == []


def activation_errors(module, low, high):
    """Eighths of a step, ties included, from below to above the range."""
    eighths = range(8 * (low - 2), 8 * (high + 3))
    values = torch.tensor([number / 8 * 0.5 for number in eighths])
    found = module.activation_codes(values, torch.tensor(0.5), low, high).tolist()
    expected = [rounded(Fraction(number, 8), low, high) for number in eighths]
    return [pair for pair in zip(eighths, found, expected, strict=True) if pair[1] != pair[2]]


@pytest.mark.parametrize(
    "change",
    [
        ("return values.add_(0.5).floor_()", "return values.round_()"),
        ("return values.add_(0.5).floor_()", "return values.floor_()"),
        (".clamp_(low, high)", ".clamp_(max=high)"),
        (".clamp_(low, high)", ".clamp_(min=low)"),
    ],
)
def test_a_wrong_activation_rounding_is_caught(change):
    changed = mutant("quant.functional", change)
    assert activation_errors(changed, 0, 3) and activation_errors(changed, -128, 127)


@pytest.mark.parametrize(("stored_bits", "target_bits"), PAIRS)
def test_operator_forward_is_the_switched_code_times_its_scale(stored_bits, target_bits):
    scale = torch.tensor([0.3, 0.0071])
    codes = torch.tensor([list(codes_of(stored_bits))] * 2, dtype=torch.float32)
    found = functional.double_rounding(codes * scale[:, None], scale, stored_bits, target_bits)
    step = scale * 2.0 ** spec.switch_scale_exponent(stored_bits, target_bits)
    switched = torch.tensor([float(spec.switch(int(code), stored_bits, target_bits)) for code in codes[0]])
    assert torch.equal(found, switched * step[:, None])


@pytest.mark.parametrize(("stored_bits", "target_bits"), PAIRS)
def test_weight_gradients_follow_equation_13(stored_bits, target_bits):
    generator = torch.Generator().manual_seed(stored_bits * 10 + target_bits)
    scale = torch.tensor([0.5, 0.125, 2.0], requires_grad=True)
    spread = scale.detach()[:, None] * 2.0 ** (stored_bits - 1)
    weight = (torch.randn(3, 400, generator=generator) * spread).requires_grad_()
    incoming = torch.randn(3, 400, generator=generator)
    functional.double_rounding(weight, scale, stored_bits, target_bits).backward(incoming)
    low, high = (-2, 2) if target_bits == 1 else (-(2 ** (target_bits - 1)), 2 ** (target_bits - 1) - 1)
    expected_weight = torch.zeros(3, 400)
    expected_scale = [0.0, 0.0, 0.0]
    outside = 0
    for channel in range(3):
        step = float(scale[channel].detach()) * 2.0 ** spec.switch_scale_exponent(stored_bits, target_bits)
        for index in range(400):
            quotient = float(weight[channel, index].detach()) / step
            stored = rounded(
                Fraction(float(weight[channel, index].detach())) / Fraction(float(scale[channel].detach())),
                spec.signed_low(stored_bits),
                spec.signed_high(stored_bits),
            )
            code = spec.switch(stored, stored_bits, target_bits)
            gradient = float(incoming[channel, index])
            if low <= quotient <= high:
                expected_weight[channel, index] = gradient
                expected_scale[channel] += gradient * (code - quotient)
            else:
                outside += 1
                expected_scale[channel] += gradient * code
    assert outside > 100
    assert torch.equal(weight.grad, expected_weight)
    assert scale.grad.tolist() == pytest.approx(expected_scale, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize(("low", "high"), [(0, 3), (0, 255), (-128, 127)])
def test_activation_gradients_follow_equation_13(low, high):
    generator = torch.Generator().manual_seed(high)
    scale = torch.tensor(0.25, requires_grad=True)
    values = (torch.randn(2, 500, generator=generator) * 0.25 * high).requires_grad_()
    incoming = torch.randn(2, 500, generator=generator)
    functional.quantize_activation(values, scale, low, high).backward(incoming)
    quotient = values.detach() / 0.25
    inside = (quotient >= low) & (quotient <= high)
    assert 0 < int(inside.sum()) < inside.numel()
    assert torch.equal(values.grad, torch.where(inside, incoming, 0.0))
    codes = functional.activation_codes(values.detach(), scale.detach(), low, high)
    slope = torch.where(inside, codes - quotient, torch.where(quotient < low, float(low), float(high)))
    assert float(scale.grad) == pytest.approx(float((incoming * slope).sum()), rel=1e-4)


def test_scale_gradient_descends_the_quantization_error():
    weight = torch.randn(1, 4000, generator=torch.Generator().manual_seed(1))
    scale = torch.tensor([0.001], requires_grad=True)
    errors = []
    for _ in range(60):
        error = ((functional.double_rounding(weight, scale, 8, 4) - weight) ** 2).mean()
        (gradient,) = torch.autograd.grad(error, scale)
        errors.append(float(error.detach()))
        with torch.no_grad():
            scale -= 0.002 * gradient.sign() * scale.clamp(max=0.05)
            scale.clamp_(min=1e-5)
    direction = torch.autograd.grad(((functional.double_rounding(weight, scale, 8, 4) - weight) ** 2).mean(), scale)
    assert errors[-1] < errors[0]
    assert float(direction[0]) < 0  # far too small a scale: growing lowers the error


def test_logits_lie_on_their_grid_and_pass_their_gradient():
    values = torch.tensor([0.75, -0.75, 0.1, 2.25]).requires_grad_()
    rounded_values = functional.round_to_grid(values, 0.5)
    rounded_values.backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert rounded_values.tolist() == [1.0, -0.5, 0.0, 2.5]
    assert values.grad.tolist() == [1.0, 2.0, 3.0, 4.0]
