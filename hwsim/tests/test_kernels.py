import numpy as np
import pytest

from hwsim import kernels, spec
from hwsim.tests.mutation import INTERPRETED, mutant


def random_tables(rng, channels, low, high):
    """Tables that use all of their widths and put the results around ``low .. high``."""
    shift = rng.integers(0, 40, channels)
    multiplier = rng.integers(-(2**17), 2**17, channels)
    skip_multiplier = rng.integers(-(2**31), 2**31, channels)
    addend = rng.integers(low - 40, high + 40, channels) << np.minimum(shift, 30)
    return multiplier, skip_multiplier, addend, shift


def requantize_errors(function):
    """(wrong elements, results strictly inside the clamp) of a kernel against integers written out here."""
    rng = np.random.default_rng(0)
    wrong, inside = 0, 0
    for low, high in ((0, 255), (0, 3), (-128, 127), (-(2**31), 2**31 - 1)):
        for with_skip in (False, True):
            channels = int(rng.integers(1, 5))
            tables = random_tables(rng, channels if with_skip else 1, low, high)
            reach = 2 ** rng.integers(1, 31, (2, channels, 9))
            accumulators = rng.integers(-reach, reach).astype(np.int32)
            skips = rng.integers(-128, 256, accumulators.shape).astype(np.int16)
            out = np.empty(accumulators.shape, np.int32)
            function(accumulators, skips if with_skip else np.empty((0, 1, 1), np.int16), *tables, low, high, out)
            for index in np.ndindex(*out.shape):
                m, k, b, s = (int(part[index[1] if len(part) > 1 else 0]) for part in tables)
                total = int(accumulators[index]) * m + (int(skips[index]) * k if with_skip else 0) + b
                wanted = min(max(total // 2**s, low), high)
                wrong += int(out[index]) != wanted
                inside += low < wanted < high
    return wrong, inside


def test_the_compiled_requantize_is_requantize():
    wrong, inside = requantize_errors(kernels.requantize_tensor)
    assert wrong == 0 and inside > 50


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("scale_accumulator", lambda a, k, m, n, b, s: (a * m - k * n + b) >> s),
        ("scale_accumulator", lambda a, k, m, n, b, s: (abs(a) * m + k * n + b) >> s),
        ("scale_accumulator", lambda a, k, m, n, b, s: (a * m + k * n + b + (1 << s >> 1)) >> s),
        ("clamp", lambda value, low, high: min(max(value, low), high - 1)),
    ],
)
def test_kernels_have_the_arithmetic_of_spec_and_no_other(name, wrong, monkeypatch):
    monkeypatch.setattr(spec, name, wrong)
    assert requantize_errors(mutant("hwsim.kernels", INTERPRETED).requantize_tensor)[0]


@pytest.mark.parametrize(
    "change",
    [
        ("channel if multiplier.size > 1 else 0", "0"),
        ("np.int64(skips[image, channel, pixel]) if with_skip else np.int64(0)", "np.int64(0)"),
    ],
)
def test_a_wrong_kernel_is_caught(change):
    assert requantize_errors(mutant("hwsim.kernels", INTERPRETED, change).requantize_tensor)[0]


def test_what_calls_spec_is_not_cached_across_changes_of_spec():
    assert kernels.requantize_tensor._cache.__class__.__name__ == "NullCache"
    assert kernels.search_tables._cache.__class__.__name__ != "NullCache"
