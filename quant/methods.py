"""The training methods, by name. Each is one file; all train any prepared model and export to the same network file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hwsim.precision import WidthSet
from quant import hasb, hot_swap, lsq, truncation_ready
from quant.any_precision import RecursiveStep
from quant.bit_allocation import AVERAGE_WIDTH, costs_of, require_reachable
from quant.block_replacement import FloatPartner
from quant.double_rounding import JointStep
from quant.hasb import MixedStep
from quant.sdq import StochasticStep
from quant.steps import TrainingStep
from quant.switchable import SwitchableNetwork

DOUBLE_ROUNDING = "double-rounding"


def _any_widths(width_set: WidthSet) -> None:
    return None


def _several_widths(name: str) -> Callable[[WidthSet], None]:
    def check(width_set: WidthSet) -> None:
        if len(width_set) < 2:
            raise ValueError(f"{name} chooses between widths: widths must be at least two, not {width_set}")

    return check


def _as_prepared(model: SwitchableNetwork) -> None:
    return None


def _any_budget(model: SwitchableNetwork, budget_of: str, budget: float) -> None:
    return None


def _reachable_budget(model: SwitchableNetwork, budget_of: str, budget: float) -> None:
    require_reachable(model, costs_of(model, budget_of), budget)


def _reachable_average_width(model: SwitchableNetwork, budget_of: str, budget: float) -> None:
    if budget_of != AVERAGE_WIDTH:
        raise ValueError(f"sdq searches for an average-width, not for {budget_of}")
    _reachable_budget(model, budget_of, budget)


def _nothing_more(start: Start) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Start:
    """What training starts from: a model right after ``prepare``, training images, and the draws of the method.

    Parameters
    ----------
    model : SwitchableNetwork
    partner : FloatPartner
        The float network that is a teacher, or whose loss tells how sensitive layers are.
    images : uint8 tensor of shape (n, channels, height, width)
    labels : int64 tensor of shape (n,)
    generator : torch.Generator
        Of training; its state is kept between epochs.
    budget_of : str
        A name in ``quant.bit_allocation.BUDGETS``.
    budget : float
    """

    model: SwitchableNetwork
    partner: FloatPartner
    images: Tensor
    labels: Tensor
    generator: torch.Generator
    budget_of: str
    budget: float


def _hasb(start: Start) -> dict[str, Any]:
    probes = torch.Generator().manual_seed(0)
    count = hasb.TRACE_IMAGES
    traces = hasb.hessian_traces(start.partner, start.images[:count], start.labels[:count], probes)
    return {"traces": traces, "generator": start.generator, "budget_of": start.budget_of, "budget": start.budget}


def _sdq(start: Start) -> dict[str, Any]:
    return {"generator": start.generator, "average_bits": start.budget, "partner": start.partner}


@dataclass(frozen=True, kw_only=True)
class Method:
    """A training method.

    Parameters
    ----------
    about : str
        One phrase.
    has_partner : bool
        Whether ``begin`` takes the float network from :class:`Start`.
    step : callable
        Makes the training step from the fields of ``quant.steps.TrainingStep``.
    uses_alrs : bool
        Whether the step also takes ``alrs`` and ``alrs_decay``.
    own_teacher : str
        What teaches in the method's own distillation, which self-distillation does not go with; empty if nothing does.
    check_widths : callable of WidthSet
        Raises ``ValueError`` if the method cannot do a width set.
    adjust : callable of SwitchableNetwork
        Changes a model that was just prepared.
    check_budget : callable of (SwitchableNetwork, str, float)
        Raises ``ValueError`` if the method cannot keep a prepared model to a budget: what it is of, and how much.
    begin : callable of Start
        Looks at a model that is still the float network, and returns more arguments of ``step``.
    """

    about: str
    step: Callable[..., TrainingStep]
    has_partner: bool = False
    uses_alrs: bool = False
    own_teacher: str = ""
    check_widths: Callable[[WidthSet], None] = _any_widths
    adjust: Callable[[SwitchableNetwork], None] = _as_prepared
    check_budget: Callable[[SwitchableNetwork, str, float], None] = _any_budget
    begin: Callable[[Start], dict[str, Any]] = _nothing_more

    def make_step(self, *, alrs: str, alrs_decay: float, **common: Any) -> TrainingStep:
        """Return the training step; ``common`` are the fields of ``quant.steps.TrainingStep``."""
        if self.uses_alrs:
            common |= {"alrs": alrs, "alrs_decay": alrs_decay}
        return self.step(**common)


METHODS: dict[str, Method] = {
    DOUBLE_ROUNDING: Method(about="joint training, rounding switch, ALRS", step=JointStep, uses_alrs=True),
    "truncation-ready": Method(
        about="as double-rounding, floor switch", step=JointStep, uses_alrs=True, adjust=truncation_ready.floor_switch
    ),
    "any-precision": Method(about="accumulated gradients, recursive distillation", step=RecursiveStep),
    "lsq": Method(
        about="a dedicated network for one width",
        step=JointStep,
        uses_alrs=True,
        check_widths=lsq.check_widths,
        adjust=lsq.initialise,
    ),
    "hasb": Method(
        about="double-rounding with layers of mixed widths, then an integer program by Hessian traces",
        step=MixedStep,
        uses_alrs=True,
        has_partner=True,
        check_widths=_several_widths("hasb"),
        check_budget=_reachable_budget,
        begin=_hasb,
    ),
    "sdq": Method(
        about="learned widths by stochastic quantization, then bin regularization and distillation",
        step=StochasticStep,
        uses_alrs=True,
        has_partner=True,
        own_teacher="the float network",
        check_widths=_several_widths("sdq"),
        check_budget=_reachable_average_width,
        begin=_sdq,
    ),
    "hot-swap": Method(
        about="weights of each width from a wavelet reconstruction; one network file a width",
        step=JointStep,
        uses_alrs=True,
        adjust=hot_swap.wavelet_weights,
    ),
}
"""Named methods; a new one is one entry here."""


def method(name: str) -> Method:
    """Return a method by name.

    Raises
    ------
    ValueError
        If there is none of this name.
    """
    if name not in METHODS:
        raise ValueError(f"the method must be one of {', '.join(METHODS)}, not {name!r}")
    return METHODS[name]
