# amaranth: UnusedElaboratable=no
"""The tree against integer sums, in both forms."""

import random

import pytest

from rtl.leaves.digit_packing import PARITY_BIT, result_bits
from rtl.leaves.digit_tree import DigitTree, Ecp5DigitTree
from rtl.tests import simulate
from rtl.tests.mutation import mutant

SHAPES = [(4, (8, 4, 2)), (8, (4, 2)), (2, (8,)), (16, (8, 2)), (32, (8, 4)), (4, (2,))]


def draw(tree, count, seed):
    """Return (inputs, totals); what lies above a slot's dot product is rubbish."""
    rng = random.Random(seed)
    words, totals = [], []
    for cycle in range(count):
        at = rng.randrange(len(tree.slots))
        slot = tree.slots[-1 - at]
        full = cycle % 8 == 0
        fields = [(1 << tree.field_bits) - 1 if full else rng.getrandbits(tree.field_bits) for _ in range(tree.lanes)]
        parities = rng.getrandbits(tree.lanes) if slot == 2 else 0
        correction = rng.choice((0, (1 << tree.correction_bits) - 1, rng.getrandbits(tree.correction_bits)))
        kept = (1 << result_bits(slot)) - 1
        total = sum((field & kept) ^ (parities >> lane & 1) << PARITY_BIT for lane, field in enumerate(fields))
        words.append(
            {
                "fields": sum(field << (tree.field_bits * lane) for lane, field in enumerate(fields)),
                "parities": parities,
                "wider": (1 << at) - 1,
                "correction": correction,
            }
        )
        totals.append(total)
    # The correction comes later than what it belongs to.
    delay = tree.CORRECTION_DELAY
    corrections = [word.pop("correction") for word in words]
    for at, word in enumerate(words):
        word["correction"] = corrections[at - delay] if at >= delay else 0
    low, high = -(1 << tree.sum_bits - 1), (1 << tree.sum_bits - 1) - 1
    pairs = [total - correction for total, correction in zip(totals, corrections, strict=True)][:-delay]
    assert all(low <= pair <= high for pair in pairs)
    return words, pairs


def found(tree, words):
    seen = simulate.stream(tree, words, ["total"], tree.LATENCY)
    return [word["total"] for word in seen][: -tree.CORRECTION_DELAY]


@pytest.mark.parametrize("form", [DigitTree, Ecp5DigitTree])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_totals(form, shape):
    tree = form(*shape)
    words, totals = draw(tree, 120 if shape[0] < 16 else 20, seed=shape[0])
    assert found(tree, words) == totals


@pytest.mark.parametrize(
    ("form", "right", "wrong"),
    [
        (DigitTree, "value ^ parities[lane]", "value"),
        (DigitTree, "wider[max(narrower)]", "wider[min(narrower)]"),
        (DigitTree, "fields[0] - self.correction", "fields[0] + self.correction"),
        (Ecp5DigitTree, "masks = PARITIES,", "masks = PRODUCTS,"),
        (Ecp5DigitTree, "masks = (keeps, keeps)", "masks = (keeps, one)"),
        (Ecp5DigitTree, "chain.add((one, None)", "chain.add((Const(0, 1), None)"),
    ],
)
def test_a_wrong_one_is_caught(form, right, wrong):
    words, totals = draw(form(*SHAPES[0]), 60, seed=3)
    assert found(mutant(form, right, wrong)(*SHAPES[0]), words) != totals


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match=r"slots must be one or more of \(8, 4, 2\), each once, not \(8, 1\)"):
        DigitTree(4, (8, 1))
