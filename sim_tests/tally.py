"""What the hardware did, compared and counted: codes, layer by layer cycles, weight words, over several simulations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hwsim import engine, verification
from hwsim.timing import image_timing
from sim_tests.simulate import COMMAND_CYCLES, SimulationResult

Forward = Callable[[str, Mapping[str, Any], np.ndarray], Mapping[tuple[str, str], np.ndarray]]
"""(assignment, requantizers, images) -> every stored tensor, of another implementation."""


class Tally:
    """Everything that was compared at one assignment.

    Parameters
    ----------
    name : str
        Of the assignment.
    forward : callable or None
        Another implementation that the hardware must equal too.
    """

    def __init__(self, name: str, forward: Forward | None = None) -> None:
        self.name = name
        self.forward = forward
        self.predicted: list[int] = []
        self._against_integer_model: list[verification.Comparison] = []
        self._against_forward: list[verification.Comparison] = []
        self._image_cycles: set[int] = set()
        self._weight_words: list[int] = []
        self._counts_compared = 0
        self._counts_differing = 0
        self._first_count: str | None = None
        self._stall_cycles = 0
        self._last: SimulationResult | None = None

    def add(self, result: SimulationResult, images: np.ndarray, first_image: int) -> None:
        """Compare the images of one simulation, numbered from ``first_image`` in the report."""
        self._last = result
        part = result.program.assignments[self.name]
        found = result.stored[self.name]
        expected = engine.run(result.program.network, part.assignment, part.requantizers, images)
        self._against_integer_model.append(verification.compare(self.name, expected, found, first_image))
        if self.forward is not None:
            other = self.forward(self.name, part.requantizers, images)
            self._against_forward.append(verification.compare(self.name, other, found, first_image))
        self.predicted += result.predictions[self.name].tolist()
        self._stall_cycles += int(result.stall_cycles[self.name].sum())
        self._weight_words += result.weight_planes_read[self.name].tolist()
        self._add_cycles(result, first_image)

    def _add_cycles(self, result: SimulationResult, first_image: int) -> None:
        timing = image_timing(result.program.machine, result.program.assignments[self.name])
        measured = result.cycles[self.name]
        total = np.zeros(result.images, np.int64)
        for layer in timing.layers:
            self._count(f"cycles of {layer.name}", measured[layer.name], layer.cycles, first_image)
            total += measured[layer.name]
        self._image_cycles.update(total.tolist())
        # Nothing else takes time: what the testbench counts is the machine's own cycles and its stalls.
        elapsed = result.elapsed_cycles[self.name] - result.stall_cycles[self.name] - COMMAND_CYCLES
        self._count("elapsed cycles without stalls", elapsed, timing.cycles, first_image)
        words = result.program.weight_planes_read(self.name)
        self._count("weight words read", result.weight_planes_read[self.name], words, first_image)

    def _count(self, what: str, measured: np.ndarray, predicted: int, first_image: int) -> None:
        differing = np.flatnonzero(measured != predicted)
        self._counts_compared += len(measured)
        self._counts_differing += len(differing)
        if len(differing) and self._first_count is None:
            image = int(differing[0])
            self._first_count = f"{what}, image {first_image + image}: {measured[image]} instead of {predicted}"

    def row(self) -> dict[str, Any]:
        """Return what was counted, as plain values.

        Raises
        ------
        ValueError
            If nothing was added.
        """
        if self._last is None:
            raise ValueError(f"{self.name}: nothing was compared")
        program = self._last.program
        part = program.assignments[self.name]
        integer_model = verification.combine(self.name, self._against_integer_model)
        # A difference from the other implementation is told first: a changed file changes the integer model with it.
        total = verification.combine(self.name, (*self._against_forward, integer_model))
        return {
            "assignment": self.name,
            "images": len(self.predicted),
            "codes_compared": total.codes_compared,
            "mismatches": total.mismatches,
            "mismatches_against_integer_model": integer_model.mismatches,
            "first_mismatch": None if total.first is None else total.first.to_json(),
            "cycles_per_image": max(self._image_cycles),
            "cycles_predicted": image_timing(program.machine, part).cycles,
            "stall_cycles": self._stall_cycles,
            "counts_compared": self._counts_compared,
            "counts_differing": self._counts_differing,
            "first_differing_count": self._first_count,
            "weight_memory_bits_read": max(self._weight_words) * program.machine.weight_word_bits,
            "layers_exact": part.layers_exact,
            "layers_displaced": part.layers_displaced,
        }
