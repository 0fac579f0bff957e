import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hwsim import spec
from hwsim.precision import CATALOG
from hwsim.tests.mutation import mutant
from quant import functional, fused, kernels
from quant.convert import prepare
from quant.epochs import JointTraining
from quant.models import ResidualNetwork
from quant.training_config import TrainingConfig

FLOAT32, BFLOAT16 = np.float32, torch.bfloat16
RANGES = [(0, spec.unsigned_high(bits)) for bits in range(1, 9)] + [(-128, 127)]


def code_errors(module, low, high):
    """Sixteenths of a step, ties included, from below to above the range, and the neighbours of each in float32."""
    values = torch.arange(16 * (low - 2), 16 * (high + 3), dtype=torch.float32) / 16 * 0.3
    values = torch.cat([values, *(torch.nextafter(values, torch.tensor(end)) for end in (-math.inf, math.inf))])
    expected = functional.activation_codes(values, torch.tensor(0.3), low, high)
    scale, limits = FLOAT32(0.3), (FLOAT32(low), FLOAT32(high))
    found = [module._code(FLOAT32(value), scale, *limits) for value in values.tolist()]
    return int((torch.tensor(found) != expected).sum())


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_codes_are_those_of_the_plain_operator(low, high):
    assert code_errors(kernels, low, high) == 0


@pytest.mark.parametrize(
    "change",
    [
        ("value / scale + np.float32(0.5), low)", "value / scale, low)"),
        ("return _floor(min(max(value", "return (min(max(value"),
        ("min(max(value / scale + np.float32(0.5), low), high)", "max(value / scale + np.float32(0.5), low)"),
    ],
)
def test_a_wrong_code_is_caught(change):
    changed = mutant("quant.kernels", ("cache=True", "cache=False"), change)
    assert code_errors(changed, -128, 127)


def innermost(tensor, dtype=torch.float32):
    return tensor.to(dtype).contiguous(memory_format=torch.channels_last)


class Case:
    """A tensor with its BatchNorm and quantizers, twice: for the fused operator, and for the plain ones."""

    def __init__(self, seed, skip, skip_range, code_bits, channels=24, size=6):
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape):
            return torch.randn(*shape, generator=generator)

        # Multiples of 1/64, which bfloat16 holds.
        self.values = (draw(6, channels, size, size) * 32 + 16).round() / 64
        self.norm, self.plain_norm = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        with torch.no_grad():
            self.norm.weight.copy_(1 + 0.3 * draw(channels))
            self.norm.bias.copy_(0.3 * draw(channels))
            self.norm.running_mean.copy_(draw(channels))
        self.plain_norm.load_state_dict(self.norm.state_dict())
        self.skip_codes = torch.randint(0, 256, self.values.shape, generator=generator).float() if skip else None
        self.added_scale = torch.tensor(0.0078)
        self.skip_range, self.code_bits = skip_range, code_bits
        self.incoming = draw(*self.values.shape), draw(*self.values.shape)
        self.scales = [torch.tensor(0.013, requires_grad=True), torch.tensor(0.31, requires_grad=True)]

    def fused(self, dtype=torch.float32):
        """Return the outputs and gradients, skip codes as real values."""
        values = innermost(self.values, dtype).requires_grad_()
        added, bare = None, dtype == BFLOAT16
        if self.skip_codes is not None:
            real = self.skip_codes if bare else self.skip_codes * self.added_scale
            added = fused.Skip(innermost(real, dtype).requires_grad_(), self.added_scale if bare else None)
        scales = [scale.detach().clone().requires_grad_() for scale in self.scales]
        skips = codes = None
        if self.skip_range is not None:
            skips = fused.Quantizer(scale=scales[0], low=self.skip_range[0], high=self.skip_range[1])
        if self.code_bits is not None:
            codes = fused.Quantizer(scale=scales[1], low=0, high=spec.unsigned_high(self.code_bits))
        found = fused.normalise_and_store(values, self.norm, added, skips, codes, skip_dtype=dtype, code_dtype=dtype)
        stored_codes, stored_skips = found
        loss, real_skips = 0.0, stored_skips
        if stored_codes is not None:
            loss = (stored_codes.float() * self.incoming[0]).sum()
        if stored_skips is not None:
            real_skips = stored_skips.float() * scales[0].detach() if bare else stored_skips
            loss = loss + (real_skips * self.incoming[1]).sum()
        loss.backward()
        skip_gradient = None if added is None else added.values.grad.float() / (self.added_scale if bare else 1)
        return stored_codes, real_skips, [
            values.grad, self.norm.weight.grad, self.norm.bias.grad, skip_gradient, *(scale.grad for scale in scales)
        ]  # fmt: skip

    def plain(self):
        """Return the same of the plain operators, in float32."""
        values = self.values.clone().requires_grad_()
        scales = [scale.detach().clone().requires_grad_() for scale in self.scales]
        real, skip, loss = self.plain_norm(values), None, 0.0
        if self.skip_codes is not None:
            skip = (self.skip_codes * self.added_scale).requires_grad_()
            real = real + skip
        codes = skips = None
        if self.skip_range is not None:
            skips = functional.quantize_activation(real, scales[0], *self.skip_range)
            loss = (skips * self.incoming[1]).sum()
        if self.code_bits is not None:
            source = real if skips is None else skips
            codes = functional.quantize_activation(source, scales[1], 0, spec.unsigned_high(self.code_bits))
            loss = loss + (codes * self.incoming[0]).sum()
        loss.backward()
        return codes, skips, [
            values.grad, self.plain_norm.weight.grad, self.plain_norm.bias.grad, None if skip is None else skip.grad,
            *(scale.grad for scale in scales),
        ]  # fmt: skip


TOLERANCES = (2e-6, 2e-6, 2e-6, 2e-6, 2e-5, 2e-5)
"""Scales' gradients are sums that cancel."""


def close(one, other, tolerance):
    if one is None or other is None:
        return one is None and other is None
    return float((one.float() - other).norm()) <= tolerance * (1e-6 + float(other.norm()))


CASES = {
    "code": (False, None, 4), "code, added": (True, None, 2), "skip": (False, (-128, 127), None),
    "both": (False, (0, 255), 8), "both, added": (True, (0, 255), 2), "skip, added": (True, (0, 255), None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_outputs_gradients_and_statistics_are_those_of_the_plain_operators(name):
    case = Case(len(name), *CASES[name])
    codes, skips, gradients = case.fused()
    plain_codes, plain_skips, plain_gradients = case.plain()
    for one, other in ((codes, plain_codes), (skips, plain_skips)):
        assert (one is None) == (other is None)
        if one is not None:
            assert torch.equal(one, other)  # no real value lies close enough to a tie for the last bits to matter
    for one, other, tolerance in zip(gradients, plain_gradients, TOLERANCES, strict=True):
        assert close(one, other, tolerance)
    for one, other in zip(case.norm.buffers(), case.plain_norm.buffers(), strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_keeps_the_same_codes_and_rounds_only_what_is_handed_over(name):
    case = Case(len(name), *CASES[name])
    codes, skips, gradients = case.fused(BFLOAT16)
    plain_codes, plain_skips, plain_gradients = case.plain()
    assert codes is None or torch.equal(codes, plain_codes.bfloat16())
    assert skips is None or torch.equal(skips, plain_skips)
    assert all(close(one, other, 8e-3) for one, other in zip(gradients, plain_gradients, strict=True))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("code", ("mean[channel] * coefficients[2, channel]", "coefficients[2, channel]")),
        ("code", ("- slopes[channel] * coefficients[0, channel]", "")),
        ("both, added", ("part_skip[lane] += arriving * (stored", "part_skip[lane] -= arriving * (stored")),
    ],
)
def test_a_wrong_kernel_is_caught(monkeypatch, name, change):
    changed = mutant("quant.kernels", ("cache=True", "cache=False"), change)
    monkeypatch.setattr(fused, "_kernels", lambda: changed)
    case = Case(len(name), *CASES[name])
    codes, _, gradients = case.fused()
    plain_codes, _, plain_gradients = case.plain()
    equal = torch.equal(codes, plain_codes)
    assert not equal or not all(map(close, gradients, plain_gradients, TOLERANCES))


def weights_of(layout, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (5, 12) if layout == "linear" else (5, 6, 3, 3)
    scale = 0.01 + 0.02 * torch.rand(5, generator=generator)
    sixteenths = torch.randint(-160 * 16, 160 * 16, shape, generator=generator) / 16
    weight = functional.per_channel(scale, sixteenths) * sixteenths
    return (innermost(weight) if layout == "innermost" else weight), scale


@pytest.mark.parametrize("layout", ["outermost", "innermost", "linear"])
@pytest.mark.parametrize("rule", ["round", "floor"])
@pytest.mark.parametrize(("stored_bits", "bits"), [(8, 8), (8, 6), (8, 4), (8, 2), (6, 3), (4, 4), (3, 2)])
def test_weights_are_those_of_the_plain_operator(stored_bits, bits, rule, layout):
    weight, scale = weights_of(layout)
    incoming = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    results = []
    for operator in (functional.double_rounding, fused.double_rounding):
        leaves = weight.clone().requires_grad_(), scale.clone().requires_grad_()
        dtype = () if operator is functional.double_rounding else (torch.float32,)
        found = operator(*leaves, stored_bits, bits, rule, *dtype)
        found.backward(incoming)
        results.append((found, leaves[0].grad, leaves[1].grad))
    (plain, plain_passed, plain_slope), (found, passed, slope) = results
    assert torch.equal(found, plain)
    assert torch.equal(passed, plain_passed)
    assert close(slope, plain_slope, 1e-6)
    narrow = fused.double_rounding(weight, scale, stored_bits, bits, rule, BFLOAT16)
    assert torch.equal(narrow, plain.bfloat16())


def test_a_wrong_switch_is_caught(monkeypatch):
    changes = [
        ("(code + half)", "code"),
        (
            "min(_floor((code + half) * np.float32(1 / (1 << shift))), high)",
            "_floor((code + half) * np.float32(1 / (1 << shift)))",
        ),
    ]
    weight, scale = weights_of("outermost")
    plain = functional.double_rounding(weight, scale, 8, 4)
    for change in changes:
        changed = mutant("quant.kernels", ("cache=True", "cache=False"), change)
        monkeypatch.setattr(fused, "_kernels", lambda changed=changed: changed)
        assert not torch.equal(fused.double_rounding(weight, scale, 8, 4, "round", torch.float32), plain)


def trained(method="double-rounding", fuse=True, compiled=False, **options):
    """Return a small network after a step of training, and the mean loss of its passes."""
    config = TrainingConfig(method=method, channels_last=True, shift_pixels=0, batch_size=12, seed=3, **options)
    torch.manual_seed(5)
    model = prepare(ResidualNetwork((3, 8, 8), ((8, 2, 1), (16, 1, 2)), 10), method, CATALOG["8-6-4-2"])
    images = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8)
    labels = torch.randint(10, (12,))
    training = JointTraining.begin(model, images, labels, config)
    assert model.fused
    model.fused = fuse
    if compiled:
        model.compile(backend="eager")
    return model, training.run_epoch(images, labels, 0).mean


@pytest.mark.parametrize("method", ["double-rounding", "truncation-ready", "hasb", "any-precision", "sdq", "hot-swap"])
def test_steps_are_those_of_the_plain_operators(method):
    (model, loss), (plain, plain_loss) = trained(method), trained(method, fuse=False)
    # Adam turns the sign of a gradient that is almost 0 into a step.
    assert loss == pytest.approx(plain_loss, rel=5e-3)
    for one, two in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.allclose(one.float(), two.float(), rtol=0.05, atol=0.05)


# torch.compile looks at the gradient of every tensor that it meets.
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_a_compiled_model_runs_the_plain_operators(monkeypatch):
    monkeypatch.setattr(fused, "_kernels", lambda: pytest.fail("torch.compile cannot look into the kernels"))
    (_, loss), (_, plain_loss) = trained(compiled=True), trained(fuse=False)
    assert loss == pytest.approx(plain_loss, rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"block_replacement": 0.5}, {"self_distillation": 0.5}])
def test_steps_in_bfloat16_stay_close_to_the_plain_ones(options):
    (_, loss), (_, plain_loss) = trained(bfloat16=True, **options), trained(fuse=False, bfloat16=True, **options)
    assert loss == pytest.approx(plain_loss, rel=2e-2)


def test_a_loss_that_is_no_number_is_still_noticed():
    values = torch.full((2, 3, 4, 4), math.nan)
    quantizer = fused.Quantizer(scale=torch.tensor(1.0), low=0, high=3)
    codes, _ = fused.normalise_and_store(innermost(values), nn.BatchNorm2d(3), None, None, quantizer)
    assert bool(codes.isnan().all())


def test_what_is_not_supported_runs_plainly():
    values = torch.zeros(2, 3, 4, 4)
    assert fused.supports(innermost(values)) and fused.supports(innermost(values, BFLOAT16))
    assert not fused.supports(values) and not fused.supports(innermost(values, torch.float64))
    assert not fused.supports(torch.zeros(2, 3))


@pytest.mark.parametrize(("shape", "lanes"), [((4, 16, 8, 8), 512), ((1, 24, 3, 3), 24), ((2, 600, 4, 4), 600)])
def test_tiles_are_whole_pixels(shape, lanes):
    values = torch.zeros(shape)
    assert fused._lanes(values) == lanes
    assert values.numel() % lanes == 0 == lanes % shape[1]


def test_an_evaluated_model_is_untouched_by_the_kernels():
    model, _ = trained()
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    fast = model.eval()(images)
    model.fused = False
    assert torch.equal(model(images), fast)
    assert F.softmax(fast, 1).isfinite().all()
