import itertools
import random

import pytest

from hwsim.machine import Machine
from hwsim.network import Assignment
from hwsim.program import build, fit_machine
from hwsim.tests.mutation import mutant
from hwsim.timing import image_timing
from quant import bit_allocation
from quant.bit_allocation import (
    AVERAGE_WIDTH,
    BUDGETS,
    CYCLES,
    WEIGHT_TRAFFIC,
    allocate,
    allocate_widths,
    average_width,
    costs_of,
    weight_losses,
    widths_of,
)
from quant.convert import prepare
from quant.export import export_network
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
    model = prepare(small_model(), "double-rounding", WIDTHS)
    with pytest.raises(ValueError, match="the budget must be of average-width, cycles, weight-traffic, not 'energy'"):
        allocate_widths(model, dict.fromkeys(dict(bit_allocation.free_layers(model)), 1.0), "energy", 1)


def uniform(model, bits):
    return model.resolve(lambda name: bits, lambda tensor: bits)


def sensitive(model):
    return {name: 1.0 + index for index, (name, _) in enumerate(bit_allocation.free_layers(model))}


@pytest.mark.parametrize("budget_of", [CYCLES, WEIGHT_TRAFFIC])
def test_budgets_of_the_hardware_are_kept_exactly(budget_of):
    model = prepare(small_model(), "double-rounding", WIDTHS)
    costs = costs_of(model, budget_of)
    totals = [costs.total(uniform(model, bits)) for bits in WIDTHS]
    assert totals[0] > totals[1] > totals[2] > costs.rest > 0
    budget = (totals[0] + 2 * totals[2]) / 3
    sensitivities = sensitive(model)
    widths = allocate_widths(model, sensitivities, budget_of, budget)
    assert costs.total(widths) <= budget
    assert len({widths.weight_bits[name] for name in sensitivities}) > 1
    losses = weight_losses(model, sensitivities)
    assert all(one[8] < one[4] < one[2] for one in losses.values())


def differing_counts(module):
    """Return the widths at which an image does not cost what the program that is built for them takes."""
    model = prepare(small_model(), "double-rounding", WIDTHS)
    cycles, traffic = (module.costs_of(model, budget_of) for budget_of in (CYCLES, WEIGHT_TRAFFIC))
    network, generator, wrong = export_network(model), random.Random(3), []
    drawn = [model.random_widths(generator) for _ in range(4)]
    for widths in [*(uniform(model, bits) for bits in WIDTHS), *drawn]:
        assignment = Assignment(name="one", network=network, layers=model.layer_widths(widths))
        machine = Machine.sized(model.width_set, model.width_set, 32, 16)
        program = build(network, fit_machine(network, [assignment], machine), [assignment])
        counted = image_timing(program.machine, program.assignments["one"]).cycles, program.weight_bits_read("one")
        if counted != (cycles.total(widths), traffic.total(widths)):
            wrong.append(widths)
    return wrong


def test_costs_are_the_cycles_and_the_weight_memory_bits_of_the_program():
    assert differing_counts(bit_allocation) == []


@pytest.mark.parametrize(
    "change",
    [
        ("layer.traffic.weight_bits", "layer.traffic.staged_bits"),
        ("layer.name: layer.cycles", "layer.name: layer.array_cycles"),
        ("total=lambda widths: sum(layer_costs(widths).values())", "total=lambda widths: sum(costs[8].values())"),
    ],
)
def test_other_counts_are_caught(change):
    assert differing_counts(mutant("quant.bit_allocation", change))


@pytest.mark.parametrize("budget_of", BUDGETS)
def test_the_least_budget_is_reached_and_less_is_refused(budget_of):
    model = prepare(small_model(), "double-rounding", WIDTHS)
    costs = costs_of(model, budget_of)
    least = costs.total(widths_of(model, costs.cheapest))
    widths = allocate_widths(model, sensitive(model), budget_of, least)
    assert costs.total(widths) <= least
    assert set(dict(bit_allocation.free_layers(model))) == set(costs.cheapest)
    less = least - costs.step / 2
    message = f"a budget of {budget_of} must be at least {least:.12g} here, .* cheapest width, not {less:.12g}"
    with pytest.raises(ValueError, match=message):
        allocate_widths(model, sensitive(model), budget_of, less)
    with pytest.raises(ValueError, match="cheapest width, not nan"):
        allocate_widths(model, sensitive(model), budget_of, float("nan"))


def test_an_average_width_is_exact():
    model = prepare(small_model(), "double-rounding", (8, 6, 3))
    names = [name for name, _ in bit_allocation.free_layers(model)]
    for bits in (8, 6, 3):
        assert average_width(model, dict.fromkeys(names, bits)) == bits
    widths = allocate_widths(model, sensitive(model), AVERAGE_WIDTH, 3.0)
    assert {widths.weight_bits[name] for name in names} == {3}
