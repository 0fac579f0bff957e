"""All proofs, by the unit they are about."""

from __future__ import annotations

from rtl.proofs import (
    accumulate_step,
    array_column,
    bus,
    requantizer,
    result_buffer,
    rotate,
    weight_loader,
    weight_switch,
)
from rtl.proofs.proof import Proof

MODULES = (weight_switch, weight_loader, requantizer, rotate, result_buffer, accumulate_step, array_column, bus)


def all_proofs() -> tuple[Proof, ...]:
    """Return every proof, in the order in which they are run."""
    return tuple(proof for module in MODULES for proof in module.PROOFS)
