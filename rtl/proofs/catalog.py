"""All proofs, by the unit they are about."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

from rtl.proofs import (
    accelerator,
    accumulate_step,
    activation_streamer,
    array_column,
    block_ram,
    board,
    bus,
    digit_datapath,
    dot_product,
    drain,
    dsp_leaves,
    image_loader,
    load_port,
    max_pool,
    memory,
    requantizer,
    result_buffer,
    rotate,
    sequencer,
    serial_array,
    weight_feeder,
    weight_loader,
    weight_switch,
)
from rtl.proofs.solver import Verdict

MODULES = (
    weight_switch,
    weight_feeder,
    weight_loader,
    array_column,
    accumulate_step,
    digit_datapath,
    dsp_leaves,
    serial_array,
    dot_product,
    drain,
    requantizer,
    memory,
    block_ram,
    rotate,
    sequencer,
    activation_streamer,
    result_buffer,
    board,
    bus,
    image_loader,
    load_port,
    max_pool,
    accelerator,
)


class Claim(Protocol):
    """What can be proved; see ``Proof``."""

    name: str
    claim: str
    mutants: tuple[object, ...]

    @property
    def reach(self) -> str:
        """How far the proof reaches, in words."""

    def prove(self, folder: Path) -> Verdict:
        """Return the verdict on the claim."""

    def refute(self, index: int, folder: Path) -> Verdict:
        """Return the verdict on one of the mutants."""


def all_proofs() -> tuple[Claim, ...]:
    """Return every proof, in the order in which they are run."""
    return tuple(proof for module in MODULES for proof in module.PROOFS)


CLAIM = -1
"""What stands for the claim itself where a mutant is chosen by its number."""


def solve_one(name: str, mutant: int, folder: Path) -> tuple[Verdict, float]:
    """Return the verdict on a proof's claim (``CLAIM``) or on one of its mutants, and the seconds that it took."""
    (proof,) = (proof for proof in all_proofs() if proof.name == name)
    started = time.monotonic()
    verdict = proof.prove(folder) if mutant == CLAIM else proof.refute(mutant, folder)
    return verdict, time.monotonic() - started
