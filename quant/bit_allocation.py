"""A width for every layer within a budget: an integer program over measured losses and costs (section 1.4 of HASB).

Each layer takes exactly one width. The program minimises the sum of the layers' losses while the sum of their costs
stays within the budget; costs are widths, cycles from ``hwsim.timing``, or weight memory bits read.

The objective printed in the paper, minimise ``sum_l (t_l / n_l) * b_l`` at a fixed mean width, gives the *fewest* bits
to the layers with the largest traces t_l. Ours is that of HAWQ-V2: ``sum_l (t_l / n_l) * |Q_b(W_l) - W_l|**2``, which
falls with b, so that more sensitive layers get more bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp

from hwsim.machine import Machine
from hwsim.network import Assignment, Network
from hwsim.program import build, fit_machine
from hwsim.timing import image_timing
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


def width_costs(model: SwitchableNetwork) -> dict[str, dict[int, float]]:
    """Return each layer's share of the average weight width: bits * weights / all weights, pinned layers left out."""
    layers = dict(free_layers(model))
    total = sum(layers.values())
    return {name: {bits: bits * count / total for bits in model.width_set} for name, count in layers.items()}


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


@dataclass(frozen=True)
class HardwareCosts:
    """Cycles and weight memory bits of one image, of a trained model on a machine."""

    network: Network
    machine: Machine

    @classmethod
    def of(cls, model: SwitchableNetwork, lanes: int = 32, columns: int = 16) -> HardwareCosts:
        """Return the costs on a machine of this size, with memories that fit the model."""
        network = export_network(model)
        widths = model.width_set
        machine = Machine.sized(widths, widths, lanes, columns)
        uniform = [_uniform(network, model, bits) for bits in widths]
        return cls(network, fit_machine(network, uniform, machine))

    def table(self, model: SwitchableNetwork, budget_of: str) -> dict[str, dict[int, float]]:
        """Return what each free layer costs at each width, weights and activations alike; the rest is :meth:`rest`."""
        costs: dict[str, dict[int, float]] = {name: {} for name, _ in free_layers(model)}
        for bits in model.width_set:
            layers = self._layers(_uniform(self.network, model, bits), budget_of)
            for name in costs:
                costs[name][bits] = layers[name]
        return costs

    def total(self, model: SwitchableNetwork, widths: Widths, budget_of: str) -> float:
        """Return what an image costs at these widths: exact, by building the program."""
        assignment = Assignment(name="budget", network=self.network, layers=model.layer_widths(widths))
        return sum(self._layers(assignment, budget_of).values())

    def rest(self, model: SwitchableNetwork, budget_of: str) -> float:
        """Return what the pinned layers and the poolings cost."""
        free = dict(free_layers(model))
        layers = self._layers(_uniform(self.network, model, model.width_set.highest), budget_of)
        return sum(cost for name, cost in layers.items() if name not in free)

    def _layers(self, assignment: Assignment, budget_of: str) -> dict[str, float]:
        program = build(self.network, fit_machine(self.network, [assignment], self.machine), [assignment])
        part = program.assignments[assignment.name]
        if budget_of == CYCLES:
            return {one.name: float(one.cycles) for one in image_timing(program.machine, part).layers}
        rows = {
            name: fields["tiles"] * fields["tile_rows"] * fields["planes_read"] * bool(fields["has_weights"])
            for name, fields in zip(assignment.layers, part.tiles, strict=True)
        }
        return {name: float(count * program.machine.weight_port_bits) for name, count in rows.items()}


def _uniform(network: Network, model: SwitchableNetwork, bits: int) -> Assignment:
    widths = model.resolve(lambda name: bits, lambda tensor: bits)
    return Assignment(name=f"W{bits}A{bits}", network=network, layers=model.layer_widths(widths))


def allocate_widths(
    model: SwitchableNetwork, sensitivities: Mapping[str, float], budget_of: str, budget: float
) -> Widths:
    """Return the widths of a trained model within a budget, weights and activations sharing each layer's width.

    Parameters
    ----------
    sensitivities : mapping of str to float
    budget_of : str
        ``average-width``: mean bits of a weight, pinned layers left out. ``cycles``, ``weight-traffic``: of one image
        on a machine of 32 x 16, pinned layers included.
    budget : float
        At most this.

    Raises
    ------
    ValueError
        If nothing is within the budget, or it is of something else.
    """
    losses = weight_losses(model, sensitivities)
    if budget_of == AVERAGE_WIDTH:
        return widths_of(model, allocate(losses, width_costs(model), budget))
    if budget_of not in BUDGETS:
        raise ValueError(f"the budget must be of {', '.join(BUDGETS)}, not {budget_of!r}")
    hardware = HardwareCosts.of(model)
    costs, rest = hardware.table(model, budget_of), hardware.rest(model, budget_of)
    # A layer's cycles depend a little on its neighbours' widths, which the table cannot say: allow less until the
    # exact cycles are within the budget.
    allowed = budget - rest
    while True:
        widths = widths_of(model, allocate(losses, costs, allowed))
        over = hardware.total(model, widths, budget_of) - budget
        if over <= 0:
            return widths
        allowed -= max(over, 1.0)


def leave_assignment(model: SwitchableNetwork, name: str, widths: Widths) -> None:
    """Keep widths in a model under a name, so that checkpoints and network files carry them; and set them."""
    model.learned[name] = widths
    set_width(model, widths)
