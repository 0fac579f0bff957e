import itertools
import random

import pytest

from quant import bit_allocation
from quant.bit_allocation import CYCLES, WEIGHT_TRAFFIC, HardwareCosts, allocate, allocate_widths, weight_losses
from quant.convert import prepare
from quant.tests.conftest import small_model

WIDTHS = (8, 4, 2)


def tables(seed, layers=4):
    generator = random.Random(seed)
    names = [f"layer{index}" for index in range(layers)]
    losses = {name: dict(zip(WIDTHS, sorted(generator.random() for _ in WIDTHS), strict=True)) for name in names}
    costs = {name: {bits: bits * generator.randint(1, 9) for bits in WIDTHS} for name in names}
    return losses, costs


def total(table, chosen):
    return sum(table[name][bits] for name, bits in chosen.items())


@pytest.mark.parametrize("seed", range(8))
def test_the_program_finds_what_trying_everything_finds(seed):
    losses, costs = tables(seed)
    cheapest = sum(min(costs[name].values()) for name in costs)
    budget = cheapest * random.Random(seed).uniform(1.1, 2.5)
    everything = [dict(zip(losses, widths, strict=True)) for widths in itertools.product(WIDTHS, repeat=len(losses))]
    best = min(total(losses, one) for one in everything if total(costs, one) <= budget)
    chosen = allocate(losses, costs, budget)
    assert total(costs, chosen) <= budget and total(losses, chosen) == pytest.approx(best, abs=1e-9)


def test_more_sensitive_layers_get_more_bits():
    errors = {8: 0.001, 4: 0.1, 2: 1.0}
    losses = {name: {bits: factor * error for bits, error in errors.items()} for name, factor in (("a", 1), ("b", 50))}
    costs = {name: {bits: float(bits) for bits in WIDTHS} for name in losses}
    for budget in (6, 10, 12):
        chosen = allocate(losses, costs, budget)
        assert chosen["b"] > chosen["a"]
    # The objective as printed, (t / n) * b at a fixed cost, is the other way round.
    printed = {name: {bits: factor * bits for bits in WIDTHS} for name, factor in (("a", 1), ("b", 50))}
    exact = {name: {bits: -float(bits) for bits in WIDTHS} for name in losses}
    chosen = allocate(printed, {name: {b: 100 + c for b, c in exact[name].items()} for name in exact}, 190)
    assert chosen["b"] < chosen["a"]


def test_what_cannot_be_allocated_is_told():
    losses, costs = tables(0)
    with pytest.raises(ValueError, match=r"the budget must be at least .*, what the cheapest widths cost, not 1"):
        allocate(losses, costs, 1)
    with pytest.raises(ValueError, match="must be of the same layers and widths"):
        allocate(losses, dict(list(costs.items())[1:]), 100)
    with pytest.raises(ValueError, match="must be finite"):
        allocate({**losses, "layer0": dict.fromkeys(WIDTHS, float("nan"))}, costs, 1000)
    model = prepare(small_model(), WIDTHS)
    with pytest.raises(ValueError, match="the budget must be of average-width, cycles, weight-traffic, not 'energy'"):
        allocate_widths(model, dict.fromkeys(dict(bit_allocation.free_layers(model)), 1.0), "energy", 1)


@pytest.mark.parametrize("budget_of", [CYCLES, WEIGHT_TRAFFIC])
def test_budgets_of_the_hardware_are_kept_exactly(budget_of):
    model = prepare(small_model(), WIDTHS)
    hardware = HardwareCosts.of(model)
    uniform = [
        hardware.total(model, model.resolve(lambda name, b=bits: b, lambda tensor, b=bits: b), budget_of)
        for bits in WIDTHS
    ]
    assert uniform[0] > uniform[1] > uniform[2] > hardware.rest(model, budget_of) > 0
    budget = (uniform[0] + 2 * uniform[2]) / 3
    sensitivities = {name: 1.0 + index for index, (name, _) in enumerate(bit_allocation.free_layers(model))}
    widths = allocate_widths(model, sensitivities, budget_of, budget)
    assert hardware.total(model, widths, budget_of) <= budget
    assert len({widths.weight_bits[name] for name in sensitivities}) > 1
    losses = weight_losses(model, sensitivities)
    assert all(one[8] < one[4] < one[2] for one in losses.values())
