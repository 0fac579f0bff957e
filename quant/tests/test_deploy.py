from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hwsim import engine, spec
from hwsim.assignments import mixed_assignments, uniform_assignments
from hwsim.network import IMAGE, IMAGE_SCALE
from hwsim.precision import WidthSet
from hwsim.requantize import build_requantizers
from hwsim.tests.mutation import mutant
from quant import deploy, functional
from quant.deploy import deployed_forward, training_forward_codes
from quant.export import export_network
from quant.layers import LOGIT_SCALE, QuantAveragePool2d
from quant.switchable import set_width
from quant.tests.conftest import small_network


def assignments(network):
    return (*uniform_assignments(network), *mixed_assignments(network))


def differences(module, model, images):
    """Return (codes that differ from the integer model's, codes compared) over all assignments."""
    network = export_network(model)
    differing = compared = 0
    for assignment in assignments(network):
        tables = build_requantizers(network, assignment)
        expected = engine.run(network, assignment, tables, images)
        found = module.deployed_forward(model, assignment, tables, images)
        assert list(found) == list(expected)
        for key, values in expected.items():
            assert found[key].dtype == values.dtype and found[key].shape == values.shape
            differing += int((found[key] != values).sum())
            compared += values.size
    return differing, compared


def test_deployed_forward_equals_the_integer_model(trained, images):
    differing, compared = differences(deploy, trained, images)
    assert differing == 0 and compared > 20_000


def test_bipolar_weights_are_equal_too(images):
    differing, compared = differences(deploy, small_network(WidthSet((8, 2, 1))), images)
    assert differing == 0 and compared > 100_000


@pytest.mark.parametrize(
    "change",
    [
        ("scaled = scaled + skip * table(requantizer.skip_multiplier)", "scaled = scaled - skip"),
        ("return (scaled >> table(requantizer.shift))", "return ((scaled + 1) >> table(requantizer.shift))"),
        ("weight = layer.switched_codes(weight_bits)", "weight = layer.stored_codes()"),
        (".clamp(requantizer.low, requantizer.high)", ".clamp(requantizer.low + 1, requantizer.high)"),
    ],
)
def test_a_wrong_deployed_forward_is_caught(trained_8642, images, change):
    assert differences(mutant("quant.deploy", change), trained_8642, images)[0] > 0


def test_requantize_twin_equals_spec():
    generator = np.random.default_rng(0)
    channels = 300
    table = SimpleNamespace(
        multiplier=generator.integers(-(2**17), 2**17, channels),
        skip_multiplier=generator.integers(-(2**17), 2**17, channels),
        addend=generator.integers(-(2**46), 2**46, channels),
        shift=generator.integers(0, 48, channels),
        low=-128,
        high=127,
    )
    accumulator = torch.from_numpy(generator.integers(-(2**24), 2**24, (4, channels, 1, 1)))
    skip = torch.from_numpy(generator.integers(-128, 256, (4, channels, 1, 1)))
    found = deploy.requantize(accumulator, skip, table)
    seen = set()
    for image in range(4):
        for channel in range(channels):
            row = [int(getattr(table, name)[channel]) for name in ("multiplier", "skip_multiplier", "addend", "shift")]
            operands = int(accumulator[image, channel]), int(skip[image, channel])
            expected = spec.requantize(*operands, *row, -128, 127)
            assert int(found[image, channel]) == expected
            seen.add(expected)
    assert len(seen) > 50


@torch.no_grad()
def codes_from(model, assignment, stored, images):
    """Return what the float32 training-time forward stores of every layer if what the layer reads is ``stored``."""

    def real(tensor, form, output):
        codes = torch.from_numpy(stored[tensor, form]).to(torch.float32)
        scale = output.skip.scale if form == "skip" else output.code.scale(model.widths.code_bits[tensor])
        return codes * scale

    found = {}
    set_width(model, assignment).eval()
    for name, layer in model.items():
        wiring = model.wiring[name]
        if wiring.input == IMAGE:
            values = torch.from_numpy(images).to(torch.float32) * IMAGE_SCALE
        else:
            values = real(wiring.input, "code", model.layer(wiring.input).output)
        if isinstance(layer, QuantAveragePool2d):
            result = layer.real_output(values)
        else:
            skip = None if wiring.skip is None else real(wiring.skip, "skip", model.layer(wiring.skip).output)
            result = layer.real_output(values, skip, model.widths.weight_bits[name])
        if layer.output is None:
            found[name, "logits"] = functional.round_half_up(result / LOGIT_SCALE)
        else:
            codes = layer.output.codes(result, model.widths.code_bits.get(name))
            found |= {
                (name, form): one for form, one in (("skip", codes.skip), ("code", codes.code)) if one is not None
            }
    return {key: one.numpy().astype(np.int64) for key, one in found.items()}


def local_displacements(module, model, images):
    """Return (largest difference, differing, compared) to the deployed codes, each layer reading the deployed ones."""
    network = export_network(model)
    largest = differing = compared = 0
    for assignment in assignments(network):
        tables = build_requantizers(network, assignment)
        deployed = module.deployed_forward(model, assignment, tables, images)
        found = codes_from(model, assignment, deployed, images)
        assert set(found) == set(deployed)
        for key, values in deployed.items():
            displaced = np.abs(found[key] - values)
            largest = max(largest, int(displaced.max()))
            differing, compared = differing + int((displaced > 0).sum()), compared + values.size
    return largest, differing, compared


def test_a_layer_in_training_stores_the_deployed_codes_but_for_ties(trained, images):
    largest, differing, compared = local_displacements(deploy, trained, images)
    # A real value at a tie, which float32 rounds the other way.
    assert largest <= 1
    assert differing <= compared / 1000 and compared > 15_000


def test_a_rounding_that_training_does_not_have_is_caught(trained_8642, images):
    moved = mutant(
        "quant.deploy", ("(scaled >> table(requantizer.shift))", "((scaled >> table(requantizer.shift)) + 2)")
    )
    assert local_displacements(moved, trained_8642, images)[0] > 1
    floors = ("return (scaled >>", "return ((scaled - (1 << (table(requantizer.shift) - 1))) >>")
    _, differing, compared = local_displacements(mutant("quant.deploy", floors), trained_8642, images)
    assert differing > compared / 1000


def test_training_forward_stores_nearly_the_deployed_codes(trained, images):
    network = export_network(trained)
    for assignment in assignments(network):
        tables = build_requantizers(network, assignment)
        deployed = deployed_forward(trained, assignment, tables, images)
        trained_codes = training_forward_codes(trained, assignment, images)
        assert list(trained_codes) == list(deployed)
        for key, values in deployed.items():
            displaced = np.abs(trained_codes[key].astype(np.int64) - values)
            assert trained_codes[key].dtype == values.dtype
            # From layer to layer a code at a tie moves others: how far depends on the weights that read it, and a step
            # of a narrow code is several of a wide one. Only the mean is bounded by what ties are rare.
            assert displaced.mean() <= (2 if key[1] == "logits" else 0.05), (assignment.name, key)


def test_training_forward_codes_are_the_logits_of_the_model(trained_8642, images):
    assignment = uniform_assignments(export_network(trained_8642))[1]
    widths, training = trained_8642.widths, trained_8642.training
    codes = training_forward_codes(trained_8642, assignment, images)
    assert trained_8642.widths is widths and trained_8642.training == training
    logits = set_width(trained_8642.eval(), assignment)(torch.from_numpy(images)).detach().numpy()
    assert np.array_equal(codes["linear", "logits"].reshape(logits.shape) * trained_8642.logit_scale, logits)


def test_wrong_images_are_refused(trained_8642):
    assignment = uniform_assignments(export_network(trained_8642))[0]
    with pytest.raises(TypeError, match="images must be an array of uint8, not float64"):
        training_forward_codes(trained_8642, assignment, np.zeros((1, 1, 8, 8)))
    with pytest.raises(ValueError, match=r"of \(1, 8, 8\), not \(1, 8, 8\)"):
        deployed_forward(trained_8642, assignment, {}, np.zeros((1, 8, 8), np.uint8))
