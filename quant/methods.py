"""The training methods, by name. Each is one file; all train any prepared model and export to the same network file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hwsim.precision import WidthSet
from quant import lsq, truncation_ready
from quant.any_precision import RecursiveStep
from quant.double_rounding import JointStep
from quant.steps import TrainingStep
from quant.switchable import SwitchableNetwork

DOUBLE_ROUNDING = "double-rounding"


def _any_widths(width_set: WidthSet) -> None:
    return None


def _as_prepared(model: SwitchableNetwork) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Method:
    """A training method.

    Parameters
    ----------
    about : str
        One phrase.
    step : callable
        Makes the training step from the fields of ``quant.steps.TrainingStep``.
    uses_alrs : bool
        Whether the step also takes ``alrs`` and ``alrs_decay``.
    check_widths : callable of WidthSet
        Raises ``ValueError`` if the method cannot do a width set.
    adjust : callable of SwitchableNetwork
        Changes a model that was just prepared.
    """

    about: str
    step: Callable[..., TrainingStep]
    uses_alrs: bool = False
    check_widths: Callable[[WidthSet], None] = _any_widths
    adjust: Callable[[SwitchableNetwork], None] = _as_prepared

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
