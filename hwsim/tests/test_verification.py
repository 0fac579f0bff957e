import numpy as np
import pytest

from hwsim.tests.mutation import mutant
from hwsim.verification import Comparison, Mismatch, combine, compare


def stored():
    rng = np.random.default_rng(1)
    return {
        ("conv1", "skip"): rng.integers(-128, 128, (2, 3, 4, 5)).astype(np.int16),
        ("conv1", "code"): rng.integers(0, 256, (2, 3, 4, 5)).astype(np.uint8),
        ("logits", "logits"): rng.integers(-(2**31), 2**31, (2, 10, 1, 1)).astype(np.int32),
    }


def test_equal_tensors():
    found = compare("W4A4", stored(), stored())
    assert found == Comparison("W4A4", 260, 0) and found.equal
    assert str(found) == "W4A4: all 260 codes are equal."


def test_dtype_and_order_do_not_matter_but_values_do():
    wide = {key: array.astype(np.int64) for key, array in reversed(stored().items())}
    assert compare("W4A4", stored(), wide).equal
    # 255 and -1 have the same bits in 8 of them.
    ones = {("a", "code"): np.full((1, 1, 1, 1), 255, np.uint8)}
    assert not compare("W4A4", ones, {("a", "code"): np.full((1, 1, 1, 1), -1, np.int8)}).equal


@pytest.mark.parametrize("place", [(0, 0, 0, 0), (1, 2, 3, 4), (0, 2, 1, 3), (1, 0, 2, 0)])
def test_one_changed_code_is_located(place):
    changed = stored()
    changed["conv1", "code"] = changed["conv1", "code"].astype(np.int64)
    changed["conv1", "code"][place] += 1
    found = compare("mixed-1", stored(), changed, first_image=32)
    value = int(stored()["conv1", "code"][place])
    image, channel, row, column = place
    assert found.mismatches == 1 and not found.equal
    assert found.first == Mismatch("mixed-1", "conv1", "code", 32 + image, channel, row, column, value, value + 1)
    assert str(found) == (
        f"mixed-1: 1 of 260 codes differs, first conv1 (code), image {32 + image}, channel {channel}, row {row}, "
        f"column {column}: {value + 1} instead of {value}."
    )


def test_the_first_mismatch_is_the_first_in_network_order():
    changed = stored()
    changed["logits", "logits"][0, 0] ^= 1
    changed["conv1", "skip"][1, 2, 3] ^= 1
    changed["conv1", "skip"][1, 2, 2, 4] ^= 1
    found = compare("W2A2", stored(), dict(reversed(changed.items())))
    assert found.mismatches == 7
    assert (found.first.tensor, found.first.form) == ("conv1", "skip")
    assert (found.first.image, found.first.channel, found.first.row, found.first.column) == (1, 2, 2, 4)
    assert str(found).startswith("W2A2: 7 of 260 codes differ, first conv1 (skip)")


@pytest.mark.parametrize(
    "change",
    [
        ("mismatches += count", "mismatches = count"),
        ("wanted.astype(np.int64) != actual.astype(np.int64)", "wanted.astype(np.uint8) != actual.astype(np.uint8)"),
        ("compared += differ.size", "compared = differ.size"),
    ],
)
def test_a_wrong_comparison_is_caught(change):
    changed = stored()
    changed["conv1", "skip"][0, 0, 0, :2] ^= 1
    changed["logits", "logits"][0, 0] ^= 256
    found = mutant("hwsim.verification", change).compare("W2A2", stored(), changed)
    assert (found.mismatches, found.codes_compared) != (3, 260)
    assert compare("W2A2", stored(), changed).mismatches == 3


def test_comparing_nothing_is_an_error():
    for nothing in ({}, {("a", "code"): np.zeros((0, 3, 4, 4), np.uint8)}):
        with pytest.raises(ValueError, match="W8A8: nothing was compared"):
            compare("W8A8", nothing, nothing)
    with pytest.raises(ValueError, match="all: nothing was compared"):
        combine("all", [])


def test_missing_and_extra_tensors_are_errors():
    less = stored()
    del less["conv1", "code"]
    with pytest.raises(ValueError, match=r"W8A8: conv1 \(code\) was expected but not found"):
        compare("W8A8", stored(), less)
    with pytest.raises(ValueError, match=r"W8A8: conv1 \(code\) was found but not expected"):
        compare("W8A8", less, stored())


def test_shapes_must_agree_without_broadcasting():
    ours = {("a", "code"): np.zeros((2, 3, 4, 4), np.uint8)}
    for shape in ((1, 3, 4, 4), (2, 3, 16, 1), (2, 3, 4, 5)):
        with pytest.raises(ValueError, match=r"a \(code\) must have one shape \(n, c, h, w\), not \(2, 3, 4, 4\) and"):
            compare("W8A8", ours, {("a", "code"): np.zeros(shape, np.uint8)})
    with pytest.raises(ValueError, match="must have one shape"):
        compare("W8A8", *[{("a", "code"): np.zeros((2, 3), np.uint8)}] * 2)


@pytest.mark.parametrize("dtype", [np.float32, bool])
def test_what_is_no_integer_is_refused(dtype):
    ours = {("a", "code"): np.zeros((2, 3, 4, 4), np.uint8)}
    with pytest.raises(TypeError, match=r"a \(code\) must hold integers, not"):
        compare("W8A8", ours, {("a", "code"): np.zeros((2, 3, 4, 4), dtype)})


def test_comparisons_combine():
    changed = stored()
    changed["conv1", "code"][0, 0, 0, 0] ^= 1
    parts = [
        compare("W8A8", stored(), stored()),
        compare("W8A8", stored(), changed, 1),
        compare("W8A8", stored(), changed, 2),
    ]
    whole = combine("W8A8", parts)
    assert (whole.codes_compared, whole.mismatches) == (780, 2)
    assert whole.first.image == 1


def test_a_mismatch_as_plain_values():
    first = Mismatch("W8A8", "conv1", "code", 3, 2, 1, 0, 7, 9)
    assert first.to_json() == {
        "assignment": "W8A8", "tensor": "conv1", "form": "code", "image": 3, "channel": 2, "row": 1, "column": 0,
        "expected": 7, "found": 9, "told": "conv1 (code), image 3, channel 2, row 1, column 0: 9 instead of 7",
    }  # fmt: skip
