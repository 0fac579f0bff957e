"""A width for every layer within a budget: an integer program over measured losses and costs (section 1.4 of HASB).

Each layer takes exactly one width. The program minimises the sum of the layers' losses while the sum of their costs
stays within the budget; costs are widths, or the cycles or weight memory bits read that ``hwsim.estimate`` counts.

The objective printed in the paper, minimise ``sum_l (t_l / n_l) * b_l`` at a fixed mean width, gives the *fewest* bits
to the layers with the largest traces t_l. Ours is that of HAWQ-V2: ``sum_l (t_l / n_l) * |Q_b(W_l) - W_l|**2``, which
falls with b, so that more sensitive layers get more bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp

from hwsim.estimate import estimate
from hwsim.machine import Machine
from hwsim.network import Assignment
from hwsim.program import fit_machine
from quant.export import export_network
from quant.switchable import SwitchableNetwork, Widths, set_width

Table = Mapping[str, Mapping[int, float]]
"""Layer -> width in bits -> number."""

AVERAGE_WIDTH, CYCLES, WEIGHT_TRAFFIC = "average-width", "cycles", "weight-traffic"
BUDGETS = (AVERAGE_WIDTH, CYCLES, WEIGHT_TRAFFIC)


def allocate(losses: Table, costs: Table, budget: float) -> dict[str, int]:
    """Return the widths of least total loss whose total cost is at most ``budget``, by HiGHS.

    Parameters
    ----------
    losses, costs : mapping of str to mapping of int to float
        The same layers and widths in both; finite.
    budget : float

    Raises
    ------
    ValueError
        If the tables disagree, hold what is not finite, or even the cheapest widths cost more than the budget.
    """
    if set(losses) != set(costs) or any(set(losses[name]) != set(costs[name]) for name in losses):
        raise ValueError("losses and costs must be of the same layers and widths")
    choices = [(name, bits) for name in losses for bits in losses[name]]
    loss = np.array([losses[name][bits] for name, bits in choices])
    cost = np.array([costs[name][bits] for name, bits in choices])
    if not (np.isfinite(loss).all() and np.isfinite(cost).all()):
        raise ValueError("losses and costs must be finite")
    least = sum(min(costs[name].values()) for name in costs)
    if least > budget:
        raise ValueError(f"the budget must be at least {least:g}, what the cheapest widths cost, not {budget:g}")
    one_each = np.array([[float(name == layer) for name, _ in choices] for layer in losses])
    # HiGHS works to absolute tolerances: bring losses and costs to the order of 1.
    constraints = [LinearConstraint(one_each, 1, 1), LinearConstraint(cost[None] / budget, -np.inf, 1)]
    scale = np.abs(loss).max() or 1.0
    found = milp(loss / scale, integrality=np.ones(len(choices)), bounds=Bounds(0, 1), constraints=constraints)
    assert found.x is not None, found.message
    return {name: bits for (name, bits), taken in zip(choices, found.x, strict=True) if taken > 0.5}


def free_layers(model: SwitchableNetwork) -> list[tuple[str, int]]:
    """Return the layers that are not pinned, with their numbers of weights."""
    return [(name, layer.weight.numel()) for name, layer in model.weight_layers() if not model.is_pinned(name)]


@torch.no_grad()
def weight_losses(model: SwitchableNetwork, sensitivities: Mapping[str, float]) -> dict[str, dict[int, float]]:
    """Return sensitivity * |Q_b(W) - W|**2 of every layer that is not pinned, at every width of the set.

    Parameters
    ----------
    sensitivities : mapping of str to float
        Mean eigenvalue of the Hessian of each layer, t_l / n_l; what is negative counts as 0.
    """
    losses: dict[str, dict[int, float]] = {}
    for name, layer in model.weight_layers():
        if not model.is_pinned(name):
            errors = {
                bits: float((layer.quantized_weight(bits) - layer.weight).square().sum()) for bits in model.width_set
            }
            losses[name] = {bits: max(sensitivities[name], 0.0) * error for bits, error in errors.items()}
    return losses


def widths_of(model: SwitchableNetwork, weight_bits: Mapping[str, int], activation_bits: int | None = None) -> Widths:
    """Return resolved widths from the weight width of every free layer.

    Activations have ``activation_bits``, or, if that is None, as in HASB, the width of the layer that reads them: the
    largest where several do.
    """

    def code_bits(tensor: str) -> int:
        if activation_bits is not None:
            return activation_bits
        return max((weight_bits.get(name, model.width_set.highest) for name in model.readers(tensor)), default=8)

    return model.resolve(lambda name: weight_bits[name], code_bits)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What the widths of one model cost, in the unit of a budget.

    Parameters
    ----------
    budget_of : str
    table : mapping of str to mapping of int to float
        What each free layer costs at each width when all layers have it, weights and activations alike.
    rest : float
        What the pinned layers and the poolings cost.
    total : callable of Widths to float
        What all layers cost, exactly: a layer's cycles depend a little on its neighbours' widths, which the table
        cannot say.
    step : float
        The least difference between two totals.
    """

    budget_of: str
    table: Table
    rest: float
    total: Callable[[Widths], float]
    step: float

    @property
    def cheapest(self) -> dict[str, int]:
        """The width of every free layer at which it costs least."""
        return {name: min(costs, key=costs.__getitem__) for name, costs in self.table.items()}


def costs_of(model: SwitchableNetwork, budget_of: str) -> Costs:
    """Return the costs that a budget is about.

    Parameters
    ----------
    budget_of : str
        ``average-width``: mean bits of a weight, pinned layers left out. ``cycles``, ``weight-traffic`` (bits read from
        the weight memory): of one image on a machine of 32 x 16, pinned layers included.

    Raises
    ------
    ValueError
        If ``budget_of`` is something else.
    """
    if budget_of not in BUDGETS:
        raise ValueError(f"the budget must be of {', '.join(BUDGETS)}, not {budget_of!r}")
    if budget_of == AVERAGE_WIDTH:
        layers = dict(free_layers(model))
        weights = sum(layers.values())
        return Costs(
            budget_of=budget_of,
            table={name: {bits: bits * count / weights for bits in model.width_set} for name, count in layers.items()},
            rest=0.0,
            total=lambda widths: average_width(model, widths.weight_bits),
            step=1 / weights,
        )
    return _hardware_costs(model, budget_of)


def average_width(model: SwitchableNetwork, weight_bits: Mapping[str, int]) -> float:
    """Return the mean bits of a weight, pinned layers left out."""
    layers = dict(free_layers(model))
    return sum(weight_bits[name] * count for name, count in layers.items()) / sum(layers.values())


def _hardware_costs(model: SwitchableNetwork, budget_of: str, lanes: int = 32, columns: int = 16) -> Costs:
    network = export_network(model)
    sized = Machine.sized(model.width_set, model.width_set, lanes, columns)

    def assigned(widths: Widths) -> Assignment:
        return Assignment(name="budget", network=network, layers=model.layer_widths(widths))

    uniform = {bits: _uniform(model, bits) for bits in model.width_set}
    machine = fit_machine(network, [assigned(widths) for widths in uniform.values()], sized)

    def layer_costs(widths: Widths) -> dict[str, int]:
        assignment = assigned(widths)
        found = estimate(network, fit_machine(network, [assignment], machine), assignment)
        if budget_of == CYCLES:
            return {layer.name: layer.cycles for layer in found.layers}
        return {layer.name: layer.traffic.weight_bits for layer in found.layers}

    free = [name for name, _ in free_layers(model)]
    costs = {bits: layer_costs(widths) for bits, widths in uniform.items()}
    return Costs(
        budget_of=budget_of,
        table={name: {bits: layers[name] for bits, layers in costs.items()} for name in free},
        rest=sum(cost for name, cost in costs[model.width_set.highest].items() if name not in free),
        total=lambda widths: sum(layer_costs(widths).values()),
        step=1,
    )


def _uniform(model: SwitchableNetwork, bits: int) -> Widths:
    return model.resolve(lambda name: bits, lambda tensor: bits)


def require_reachable(model: SwitchableNetwork, costs: Costs, budget: float) -> None:
    """Raise ``ValueError`` unless the model keeps to the budget with every layer at its cheapest width.

    The values of the weights do not matter, so that a model can be asked before it is trained.
    """
    least = costs.total(widths_of(model, costs.cheapest))
    if not budget >= least:
        raise ValueError(
            f"a budget of {costs.budget_of} must be at least {least:.12g} here, with every layer at its cheapest "
            f"width, not {budget:.12g}"
        )


def allocate_widths(
    model: SwitchableNetwork, sensitivities: Mapping[str, float], budget_of: str, budget: float
) -> Widths:
    """Return the widths of a trained model within a budget, weights and activations sharing each layer's width.

    Parameters
    ----------
    sensitivities : mapping of str to float
    budget_of : str
        As in :func:`costs_of`.
    budget : float
        At most this.

    Raises
    ------
    ValueError
        If nothing is within the budget, or it is of something else.
    """
    costs = costs_of(model, budget_of)
    require_reachable(model, costs, budget)
    losses, cheapest = weight_losses(model, sensitivities), costs.cheapest
    least = sum(costs.table[name][bits] for name, bits in cheapest.items())
    # Allow less until the exact total is within the budget.
    allowed = budget - costs.rest
    while allowed >= least:
        widths = widths_of(model, allocate(losses, costs.table, allowed))
        over = costs.total(widths) - budget
        if over <= 0:
            return widths
        allowed -= max(over, costs.step)
    return widths_of(model, cheapest)


def leave_assignment(model: SwitchableNetwork, name: str, widths: Widths) -> None:
    """Keep widths in a model under a name, so that checkpoints and network files carry them; and set them."""
    model.learned[name] = widths
    set_width(model, widths)
