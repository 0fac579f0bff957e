import functools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from hwsim import engine, kernels, layers, requantize, spec
from hwsim.assignments import standard_assignments
from hwsim.network import AveragePool2d, Linear, MaxPool2d, Network, OutputScales, WeightLayer, uniform_assignment
from hwsim.precision import CATALOG
from hwsim.random_network import (
    SMALL,
    AveragePool,
    Convolution,
    Hidden,
    MaximumPool,
    random_assignment,
    random_images,
    random_network,
)
from hwsim.requantize import (
    Affine,
    Certificate,
    RequantizerFormat,
    accumulator_range,
    build_requantizers,
    certify_unclamped,
    floor_sum,
    fold,
    search,
    search_logits,
    switched_weights,
)
from hwsim.tests.mutation import INTERPRETED, mutant

EVERYTHING = (
    *SMALL[:2],
    Convolution(channels=12, stride=2, batch_norm=False),
    MaximumPool(kernel=2, stride=1, padding=1),
    AveragePool(kernel=2, stride=1),
    *SMALL[2:],
    Hidden(features=9),
)


def trained(affine, channel, accumulators, skips):
    """F of every pair, in big integers over the common denominator: int64 (accumulators, skips)."""
    values = [Fraction(float(part[channel])) for part in (affine.alpha, affine.kappa, affine.beta)]
    denominator = 2 * math.lcm(*(value.denominator for value in values))
    alpha, kappa, beta = (int(value * denominator) for value in values)
    accumulators, skips = np.array(accumulators, object), np.array(skips, object)
    total = alpha * accumulators[:, None] + kappa * skips[None, :] + (beta + denominator // 2)
    return np.clip(total // denominator, affine.low, affine.high).astype(np.int64)


def realised(table, channel, accumulators, skips):
    """R of every pair through ``spec.requantize``."""
    row = [int(part[channel]) for part in (table.multiplier, table.skip_multiplier, table.addend, table.shift)]
    return np.array([[spec.requantize(a, s, *row, table.low, table.high) for s in skips] for a in accumulators])


def brute_certificate(affine, table, low, high, skip_range):
    pairs, displaced, largest = 0, 0, 0
    skips = range(skip_range[0], skip_range[1] + 1)
    for channel in range(len(affine.alpha)):
        accumulators = range(int(low[channel]), int(high[channel]) + 1)
        difference = trained(affine, channel, accumulators, skips) - realised(table, channel, accumulators, skips)
        pairs += difference.size
        displaced += int((difference != 0).sum())
        largest = max(largest, int(abs(difference).max()))
    return Certificate(displaced, pairs, largest)


def random_case(seed):
    """Three channels with a few hundred accumulators: any sign and size of alpha, ties, constants, clamps, skips."""
    rng = np.random.default_rng(seed)
    low, high = [(0, 1), (0, 3), (0, 15), (0, 63), (-8, 7), (-128, 127)][seed % 6]
    skip_range = [(0, 0), (0, 0), (-8, 7), (0, 15)][seed // 2 % 4]
    acc_low, acc_high = -rng.integers(0, 150, 3), rng.integers(0, 150, 3)
    alpha = rng.normal(size=3) * (high - low) / 200 * 10.0 ** rng.integers(-2, 3)
    beta = rng.normal(size=3) * (high - low)
    if seed % 5 == 0:
        alpha[0], beta[0] = rng.integers(-3, 4) / 4, rng.integers(-8, 8) / 8  # many exact ties
    if seed % 7 == 0:
        alpha[1] = 0
    kappa = np.full(3, rng.uniform(0.05, 2.0) if skip_range != (0, 0) else 0.0)
    affine = Affine(alpha=alpha, kappa=kappa, beta=beta, low=low, high=high)
    bits = rng.integers(2, 20, 2)
    table_format = RequantizerFormat(multiplier_bits=int(bits[0]), skip_multiplier_bits=int(bits[1]))
    return affine, acc_low, acc_high, skip_range, table_format


def certificate_errors(seeds, search=search):
    """Cases whose certificate is not what trying every operand pair says, or whose table breaks its format."""
    wrong = []
    for seed in seeds:
        affine, low, high, skip_range, table_format = random_case(seed)
        table = search(affine, low, high, skip_range, table_format)
        if table.certificate != brute_certificate(affine, table, low, high, skip_range):
            wrong.append(seed)
        if not fits(table, table_format, low, high, skip_range):
            wrong.append(seed)
    return wrong


def fits(table, table_format, low, high, skip_range):
    for channel in range(table.channels):
        m, k, b, s = (
            int(part[channel]) for part in (table.multiplier, table.skip_multiplier, table.addend, table.shift)
        )
        sums = [m * int(a) + k * skip + b for a in (low[channel], high[channel]) for skip in skip_range]
        if not (
            spec.signed_bits(m, m) <= table_format.multiplier_bits
            and spec.signed_bits(k, k) <= table_format.skip_multiplier_bits
            and spec.signed_bits(min(b, *sums), max(b, *sums)) <= table_format.addend_bits
            and 0 <= s <= table_format.shift_max
        ):
            return False
    return True


def test_certificates_count_every_operand_pair():
    assert certificate_errors(range(120)) == []


def test_both_verdicts_occur_in_these_cases():
    verdicts = [search(*random_case(seed)).certificate for seed in range(120)]
    assert 30 < sum(verdict.exact for verdict in verdicts) < 90
    assert max(verdict.largest_displacement for verdict in verdicts) > 1


@pytest.mark.parametrize(
    "change",
    [
        ("rest = float(step) - 0.5 - beta - kappa * skip", "rest = float(step) - beta - kappa * skip"),
        ("rest = float(step) - 0.5 - beta - kappa * skip", "rest = float(step) - 0.5 - beta + kappa * skip"),
        ("rest = float(step) - 0.5 - beta - kappa * skip", "rest = float(step) - 0.5 + beta - kappa * skip"),
        ("first = np.int64(np.ceil(crossing))", "first = np.int64(np.floor(crossing))"),
        ("addend_high = min(addend_high, least + m - 1)", "addend_high = min(addend_high, least + m + 1)"),
        ("addend_low = max(addend_low, least)", "addend_low = max(addend_low, least - 1)"),
        ("addend_low = max(addend_low, base + ((first - 1) << s) - m * acc_low)", "pass"),
        ("addend_high = min(addend_high, base + (last << s) - 1 - m * acc_high)", "pass"),
        ("min(max(-((-needed) // m), acc_low), acc_high + 1)", "min(max(needed // m, acc_low), acc_high + 1)"),
        ("pairs += max(0, stop - max(start, covered))", "pairs += stop - start"),
        ("largest = max(largest, index + 1 - behind)", "largest = 1"),
    ],
)
def test_a_wrong_search_is_caught(change, monkeypatch):
    changed = mutant("hwsim.kernels", INTERPRETED, change)
    monkeypatch.setattr(kernels, "search_tables", changed.search_tables)
    assert any(certificate_errors([seed]) for seed in range(40))


@pytest.mark.parametrize(
    "change",
    [
        ("multiplier=np.where(mirrored, -found[:, 0], found[:, 0])", "multiplier=found[:, 0]"),
        ("np.where(mirrored, -accumulator_high, accumulator_low)", "accumulator_low"),
        ("(skip_range[1] - skip_range[0] + 1)", "(skip_range[1] - skip_range[0])"),
    ],
)
def test_a_wrong_mirror_is_caught(change):
    changed = mutant("hwsim.requantize", change)

    def search_changed(affine, low, high, skip_range, table_format):
        found = changed.search(affine, low, high, skip_range, changed.RequantizerFormat(**vars(table_format)))
        verdict = found.certificate
        certificate = Certificate(verdict.displaced_pairs, verdict.operand_pairs, verdict.largest_displacement)
        return requantize.Requantizer(**{**vars(found), "certificate": certificate})

    assert certificate_errors(range(10), search_changed)


def test_interpreted_kernels_find_what_compiled_ones_find():
    changed = mutant("hwsim.kernels", INTERPRETED)
    compiled = [search(*random_case(seed)) for seed in range(12)]
    for seed, table in enumerate(compiled):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "search_tables", changed.search_tables)
            again = search(*random_case(seed))
        for part in ("multiplier", "skip_multiplier", "addend", "shift"):
            assert (getattr(table, part) == getattr(again, part)).all()


def exact_addend_exists(wanted, low, m, s, codes):
    """Whether some B makes (acc * M + B) >> S, clamped, equal to ``wanted`` on every accumulator from ``low``."""
    least, most = -(2**60), 2**60
    for index, code in enumerate(wanted):
        accumulator = low + index
        if code > codes[0]:
            least = max(least, code * 2**s - m * accumulator)
        if code < codes[1]:
            most = min(most, (code + 1) * 2**s - 1 - m * accumulator)
    return least <= most


@pytest.mark.parametrize("seed", range(40))
def test_no_narrower_table_is_exact(seed):
    rng = np.random.default_rng(seed)
    low, high = -int(rng.integers(1, 60)), int(rng.integers(1, 60))
    codes = (0, int(rng.choice([1, 3, 7, 15])))
    affine = Affine(
        alpha=rng.uniform(0.02, 0.6, 1), kappa=np.zeros(1), beta=rng.normal(size=1) * 4, low=codes[0], high=codes[1]
    )
    table = search(affine, np.array([low]), np.array([high]), (0, 0), RequantizerFormat())
    assert table.certificate.exact
    wanted = trained(affine, 0, range(low, high + 1), [0])[:, 0].tolist()
    shift = int(table.shift[0])
    assert exact_addend_exists(wanted, low, int(table.multiplier[0]), shift, codes)
    for narrower in range(shift):
        for m in range(2 ** (narrower + 1) + 4):
            assert not exact_addend_exists(wanted, low, m, narrower, codes), (narrower, m)


def threshold_errors(module, count):
    """Steps that meet an accumulator exactly, or miss it by the last bit of beta: (wrong thresholds, ties)."""
    rng = np.random.default_rng(9)
    wrong, tied = 0, 0
    for trial in range(count):
        alpha = float(rng.integers(1, 2**12)) * 2.0 ** -int(rng.integers(0, 12))
        accumulator, step = int(rng.integers(-(2**20), 2**20)), int(rng.integers(-128, 256))
        kappa, skip = float(rng.integers(0, 2**10)) * 2.0**-8, int(rng.integers(-128, 256))
        if trial % 2:  # no ties then, but misses far below what float64 arithmetic resolves
            alpha, kappa = rng.uniform(0.1, 2.0, 2)
        beta = float(Fraction(step) - Fraction(1, 2) - Fraction(alpha) * accumulator - Fraction(kappa) * skip)
        for near in (float(np.nextafter(beta, -np.inf)), beta, float(np.nextafter(beta, np.inf))):
            rest = step - Fraction(1, 2) - Fraction(near) - Fraction(kappa) * skip
            wanted = math.ceil(rest / Fraction(alpha))
            tied += wanted * Fraction(alpha) == rest
            wrong += module.first_accumulator(alpha, kappa, skip, near, step, -(2**30), 2**30) != wanted
            reached = Fraction(alpha) * accumulator >= rest
            wrong += module.reaches(alpha, accumulator, kappa, skip, near, step) != reached
    return wrong, tied


def test_thresholds_are_exact_at_ties_and_one_unit_beside():
    wrong, tied = threshold_errors(kernels, 2000)
    assert wrong == 0 and tied >= 1000


@pytest.mark.parametrize(
    "change",
    [
        ("nearest if reaches(alpha, nearest, kappa, skip, beta, step) else nearest + 1", "nearest"),
        ("nearest if reaches(alpha, nearest, kappa, skip, beta, step) else nearest + 1", "nearest + 1"),
        ("if abs(crossing - nearest) > error:", "if True:"),
        ("return x, (a - (x - part)) + (b - part)", "return x, 0.0"),
        ("((x - a_high * b_high) - a_low * b_high)", "(x - a_high * b_high)"),
        ("return expansion[index] > 0.0", "return expansion[index] < 0.0"),
    ],
)
def test_wrong_thresholds_are_caught(change):
    assert threshold_errors(mutant("hwsim.kernels", INTERPRETED, change), 100)[0]


@pytest.mark.parametrize("alpha", [1e-150, 1e-19, 1e-12, 3e-7, 0.3, 1e4, 1e9, 1e150])
@pytest.mark.parametrize("beta", [0.0, -0.5, 0.25, 1e-30, -1e12, 1e150])
def test_extreme_parameters_are_certified_too(alpha, beta):
    affine = Affine(alpha=np.array([alpha, -alpha]), kappa=np.zeros(2), beta=np.full(2, beta), low=0, high=255)
    low, high = np.full(2, -70), np.full(2, 50)
    table = search(affine, low, high, (0, 0), RequantizerFormat())
    assert table.certificate == brute_certificate(affine, table, low, high, (0, 0))


def test_affine_evaluates_itself_exactly():
    affine = random_case(2)[0]
    for accumulator in range(-20, 20):
        for skip in (-8, 0, 7):
            wanted = trained(affine, 1, [accumulator], [skip])[0, 0]
            assert affine.evaluate(accumulator, skip, 1) == wanted


@pytest.mark.parametrize("seed", range(200))
def test_logit_certificates_count_every_accumulator(seed):
    rng = np.random.default_rng(seed)
    slope = Fraction(float(rng.normal() * 10.0 ** rng.integers(-3, 2)))
    offset = Fraction(float(rng.normal() * 10))
    shift = int(rng.integers(0, 12))
    multiplier = round(slope * 2**shift) + int(rng.integers(-2, 3))
    addend = round(offset * 2**shift) + int(rng.integers(-3000, 3000)) * int(rng.integers(0, 2))
    low, high = -int(rng.integers(0, 300)), int(rng.integers(0, 300))
    difference = [((a * multiplier + addend) >> shift) - math.floor(slope * a + offset) for a in range(low, high + 1)]
    expected = Certificate(sum(d != 0 for d in difference), len(difference), max(map(abs, difference)))
    assert certify_unclamped(slope, offset, multiplier, addend, shift, low, high) == expected


def test_floor_sum_is_the_sum_of_floors():
    rng = np.random.default_rng(3)
    for _ in range(300):
        count = int(rng.integers(0, 60))
        slope, offset = (Fraction(int(rng.integers(-99, 99)), int(rng.integers(1, 40))) for _ in range(2))
        assert floor_sum(count, slope, offset) == sum(math.floor(slope * x + offset) for x in range(count))


def logit_case(alpha, beta=0.3, **widths):
    affine = Affine(
        alpha=np.array([alpha, -alpha]),
        kappa=np.zeros(2),
        beta=np.array([beta, beta]),
        low=spec.signed_low(32),
        high=spec.signed_high(32),
    )
    low, high = np.full(2, -900), np.full(2, 700)
    return affine, low, high, RequantizerFormat(**widths)


@pytest.mark.parametrize("alpha", [0.0, 1e-9, 0.01, 0.5, 1.7, 300.0, 2.0**15])
@pytest.mark.parametrize("multiplier_bits", [6, 18, 32])
def test_logit_tables_fit_and_are_certified(alpha, multiplier_bits):
    affine, low, high, table_format = logit_case(alpha, multiplier_bits=multiplier_bits)
    if alpha >= 2 ** (multiplier_bits - 1):
        with pytest.raises(ValueError, match=f"whose multiplier fits {multiplier_bits} bits"):
            search_logits(affine, low, high, table_format)
        return
    table = search_logits(affine, low, high, table_format)
    assert fits(table, table_format, low, high, (0, 0))
    assert table.certificate == brute_certificate(affine, table, low, high, (0, 0))
    assert table.certificate.exact or multiplier_bits < 18


def test_logits_beyond_int32_are_refused():
    with pytest.raises(ValueError, match=r"the layer, channel 0: logits reach .* outside int32; raise the logit scale"):
        search_logits(*logit_case(3e6))


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"multiplier_bits": 1}, ValueError, "multiplier_bits must be 2 .. 32, not 1"),
        ({"multiplier_bits": 33}, ValueError, "multiplier_bits must be 2 .. 32, not 33"),
        ({"skip_multiplier_bits": 41}, ValueError, "skip_multiplier_bits must be 2 .. 40, not 41"),
        ({"addend_bits": 63}, ValueError, "addend_bits must be 16 .. 62, not 63"),
        ({"shift_max": 0}, ValueError, "shift_max must be 1 .. 52, not 0"),
        ({"shift_max": 3.0}, TypeError, "shift_max must be an integer, not 3.0"),
    ],
)
def test_bad_formats_are_refused(fields, error, message):
    with pytest.raises(error, match=message):
        RequantizerFormat(**fields)


def test_a_sum_that_fits_nowhere_is_refused_by_name():
    affine = Affine(alpha=np.array([5.0]), kappa=np.array([0.0]), beta=np.array([0.0]), low=0, high=255)
    with pytest.raises(ValueError, match=r"conv7: channel 0 \(alpha 5, beta 0\) has no requantizer whose sum fits 16"):
        search(affine, np.array([-(2**29)]), np.array([2**29]), (0, 0), RequantizerFormat(addend_bits=16), "conv7")


def test_an_accumulator_beyond_32_bits_is_refused_by_name():
    affine = Affine(alpha=np.array([5.0]), kappa=np.array([0.0]), beta=np.array([0.0]), low=0, high=255)
    with pytest.raises(ValueError, match="conv7: its accumulator needs 33 bits, and 32 is the most"):
        search(affine, np.array([0]), np.array([2**31]), (0, 0), RequantizerFormat(), "conv7")
    wide = Linear(
        name="logits",
        input="image",
        codes=np.full((2, 70000), 127, np.int8),
        stored_bits=8,
        weight_scale=np.full(2, 1e-9, np.float32),
        output=OutputScales(logit=0.1),
    )
    made = Network(width_set=CATALOG["8"], image_shape=(7, 100, 100), layers=(wide,))
    with pytest.raises(ValueError, match="layer logits at W8A8: its accumulator needs 33 bits, and 32 is the most"):
        build_requantizers(made, uniform_assignment(made, 8))


def test_large_logits_with_small_slopes_do_not_overflow_the_search():
    for alpha, beta in ((1e-9, 2.0**30), (1e-3, -(2.0**31) + 10), (3e-7, 2.0**29 + 0.25)):
        affine, low, high, table_format = logit_case(alpha, beta, multiplier_bits=32, addend_bits=62, shift_max=52)
        table = search_logits(affine, low, high, table_format)
        assert fits(table, table_format, low, high, (0, 0))
        assert table.certificate == brute_certificate(affine, table, low, high, (0, 0))
        assert table.certificate.exact


def test_not_finite_parameters_are_refused():
    with pytest.raises(ValueError, match=r"alpha must be 0 or 1e-200 .. 1e200 in size"):
        Affine(alpha=np.array([np.inf]), kappa=np.zeros(1), beta=np.zeros(1), low=0, high=1)


def test_verdicts_in_words():
    assert str(Certificate(0, 10, 0)) == "exact"
    assert str(Certificate(1200, 3_000_000, 1)) == "displaced 1,200 of 3,000,000 operand pairs, by at most 1 code"
    assert str(Certificate(2, 30, 3)) == "displaced 2 of 30 operand pairs, by at most 3 codes"
    assert requantize.combine([Certificate(1, 5, 1), Certificate(2, 6, 4)]) == Certificate(3, 11, 4)


# Whole networks


@pytest.fixture(params=CATALOG, scope="module")
def network(request):
    return random_network(21, CATALOG[request.param], (2, 7, 7), EVERYTHING)


@functools.cache
def assignments(network):
    return (*standard_assignments(network), random_assignment(network, 5))


@functools.cache
def default_tables(assignment):
    return build_requantizers(assignment.network, assignment)


def test_accumulator_bounds_are_reached_by_real_inputs(network):
    checked = 0
    for assignment in assignments(network):
        for layer in network.weight_layers:
            low, high = accumulator_range(network, layer, assignment)
            weights = switched_weights(layer, assignment.weight_bits(layer.name)).reshape(layer.out_channels, -1)
            top = spec.unsigned_high(assignment.activation_bits(layer.name))
            for channel, row in enumerate(weights.astype(int)):
                for bound, worst in ((low, row < 0), (high, row > 0)):
                    assert int((row * (worst * top)).sum()) == bound[channel]
                    checked += 1
    assert checked > 100


def exact_value(layer, channel, network, assignment):
    """(alpha, beta) of a layer's channel before the output scale, in Python floats in the documented order."""
    name = layer.name
    source = layer.input
    while source != "image" and isinstance(network.layer(source), MaxPool2d):
        source = network.layer(source).input
    bits = assignment.activation_bits(name)
    input_scale = 1 / 255 if source == "image" else network.layer(source).output.code[bits]
    if isinstance(layer, AveragePool2d):
        return input_scale, 0.0
    weight_bits = assignment.weight_bits(name)
    lost = layer.stored_bits - (2 if weight_bits == 1 else weight_bits)
    scale = float(layer.weight_scale[channel]) * 2.0**lost
    bias = 0.0 if layer.bias is None else float(layer.bias[channel])
    if not layer.batch_norms:
        return scale * input_scale, bias
    norm = layer.batch_norms[weight_bits]
    gain = float(norm.gamma[channel]) / math.sqrt(float(norm.variance[channel]) + norm.epsilon)
    return gain * scale * input_scale, float(norm.beta[channel]) + gain * (bias - float(norm.mean[channel]))


def fold_errors(network, fold):
    wrong = []
    for assignment in assignments(network):
        for layer in network:
            if isinstance(layer, MaxPool2d):
                continue
            affine, code = fold(network, layer, assignment)
            output, bits = layer.output, assignment.code_bits(layer.name)
            adders = network.adders(layer.name)
            if layer.name == "logits":
                scale, clamps = output.logit, (-(2**31), 2**31 - 1)
            elif adders:
                scale = output.skip
                signed = isinstance(layer, WeightLayer) and not layer.relu
                clamps = (-128, 127) if signed else (0, 255)
            else:
                scale, clamps = output.code[bits], (0, 2**bits - 1)
            for channel in range(network.shape(layer.name)[0]):
                alpha, beta = exact_value(layer, channel, network, assignment)
                area = layer.kernel[0] * layer.kernel[1] if isinstance(layer, AveragePool2d) else 1
                skip = getattr(layer, "skip", None)
                kappa = network.layer(skip).output.skip / scale if skip else 0.0
                got = [affine.alpha[channel], affine.kappa[channel], affine.beta[channel]]
                if got != [alpha / (area * scale), kappa, beta / scale] or (affine.low, affine.high) != clamps:
                    wrong.append((assignment.name, layer.name, channel))
            if adders and bits is not None:
                if (code.alpha[0], code.low, code.high) != (scale / output.code[bits], 0, 2**bits - 1):
                    wrong.append((assignment.name, layer.name, "code"))
            elif code is not None:
                wrong.append((assignment.name, layer.name, "code"))
    return wrong


def test_fold_is_the_documented_formula(network):
    assert fold_errors(network, fold) == []


@pytest.mark.parametrize(
    "change",
    [
        ("norm = layer.batch_norms[weight_bits]", "norm = layer.batch_norms[max(layer.batch_norms)]"),
        ("gain * (bias - norm.mean", "gain * (bias + norm.mean"),
        ("+ norm.epsilon)", ")"),
        ("skip_scale = cast(\"float\", adds.output.skip)", "skip_scale = cast(\"float\", output.skip)"),
        ("        return code_scale(network, layer.input, bits)", "        return 1.0"),
        ("(layer.kernel[0] * layer.kernel[1] * output_scale)", "output_scale"),
        ("low, high = network.skip_range(name)\n        if", "low, high = 0, 255\n        if"),
    ],
)  # fmt: skip
def test_a_wrong_fold_is_caught(change):
    made = random_network(21, CATALOG["8-4-2"], (2, 7, 7), EVERYTHING)
    assert fold_errors(made, mutant("hwsim.requantize", change).fold)


def test_an_alpha_of_average_pooling_is_certified_for_every_sum(network):
    assignment = assignments(network)[0]
    layer = network.layer("average1")
    affine, _ = fold(network, layer, assignment)
    low, high = accumulator_range(network, layer, assignment)
    table = default_tables(assignment)["average1"].primary
    assert table.certificate == brute_certificate(affine, table, low, high, (0, 0))


def test_stored_tensors_are_those_of_the_trained_function(network):
    """Where a layer is certified exact, the engine's codes are F of its accumulators; elsewhere within the verdict."""
    images = random_images(network.image_shape, 3, 1)
    exact = 0
    for assignment in assignments(network):
        tables = default_tables(assignment)
        stored = engine.run(network, assignment, tables, images)
        for layer in network.weight_layers:
            codes = images if layer.input == "image" else stored[layer.input, "code"]
            weights = switched_weights(layer, assignment.weight_bits(layer.name))
            accumulators = layers.accumulate(layer, weights, codes)
            affine, _ = fold(network, layer, assignment)
            certificate = tables[layer.name].primary.certificate
            form = "logits" if layer.makes_logits else "skip" if network.adders(layer.name) else "code"
            skips = np.zeros_like(accumulators) if layer.skip is None else stored[layer.skip, "skip"]
            largest = 0
            for channel in range(layer.out_channels):
                pairs = zip(accumulators[:, channel].ravel(), skips[:, channel].ravel(), strict=True)
                wanted = [affine.evaluate(int(a), int(s), channel) for a, s in pairs]
                found = stored[layer.name, form][:, channel].ravel()
                largest = max(largest, max(abs(int(w) - int(f)) for w, f in zip(wanted, found, strict=True)))
            assert largest <= certificate.largest_displacement
            exact += certificate.exact
    assert exact > 5 or len(network.width_set) == 1


def test_the_default_format_moves_few_pairs_by_one_code(network):
    for assignment in assignments(network):
        for name, tables in default_tables(assignment).items():
            verdict = tables.certificate
            assert verdict.largest_displacement <= 1
            share = 0.05 if name == "logits" else 5e-4
            assert verdict.displaced_pairs <= share * verdict.operand_pairs


def test_wider_multipliers_are_never_worse(network):
    assignment = standard_assignments(network)[0]
    displaced = []
    for bits in (12, 18, 26, 32):
        table_format = RequantizerFormat(multiplier_bits=bits, skip_multiplier_bits=40, addend_bits=60)
        tables = build_requantizers(network, assignment, table_format)
        displaced.append(sum(table.certificate.displaced_pairs for name, table in tables.items() if name != "logits"))
    assert displaced == sorted(displaced, reverse=True) and displaced[0] > displaced[-1]


def altered(network, name, **changes):
    changed = tuple(replace(layer, **changes) if layer.name == name else layer for layer in network)
    return Network(width_set=network.width_set, image_shape=network.image_shape, layers=changed)


def test_logits_with_a_relu_are_refused(network):
    made = altered(network, "logits", relu=True)
    with pytest.raises(ValueError, match="layer logits: makes logits, and so must have no ReLU and add no skip code"):
        build_requantizers(made, standard_assignments(made)[0])


def test_a_logit_scale_that_is_too_fine_is_refused(network):
    made = altered(network, "logits", output=OutputScales(logit=1e-12))
    with pytest.raises(ValueError, match=r"layer logits at .*: logits reach .* outside int32; raise the logit scale"):
        build_requantizers(made, standard_assignments(made)[0])
