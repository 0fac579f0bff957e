"""Proof that plane sums, accumulated as ``spec`` has it, make the integer dot product. No hardware is in it.

That the hardware accumulates plane sums of its inputs with ``spec.accumulate`` is proved in
``rtl.proofs.serial_array``. What remains is about ``spec`` alone: identities of polynomials in unbounded integers for
every kind of pass, and, width by width, the weight that the planes of every single weight add up to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hwsim import spec
from rtl.proofs.solver import Verdict

TERMS = 4
"""Activations of a word; the identities are the same term by term."""


@dataclass(frozen=True)
class Rules:
    """What the specification says, to be replaced by something wrong in a mutant."""

    accumulate: Callable = spec.accumulate
    plane_bit: Callable = spec.plane_bit
    plane_subtracts: Callable = spec.plane_subtracts


def identities(rules: Rules):
    """Yield (name, left, right): what the accumulator is after one more pass, and what it should be.

    ``taken`` is what the planes so far make of each weight; ``rest`` what the other words of the tile have added.
    """
    from z3 import Int, Ints

    activations, bits, taken = (Ints(" ".join(f"{name}_{at}" for at in range(TERMS))) for name in "abt")
    rest = Int("rest")
    plane_sum = sum(bit * activation for bit, activation in zip(bits, activations, strict=True))

    def dot_product(weights):
        return sum(weight * activation for weight, activation in zip(weights, activations, strict=True))

    before = rest + dot_product(taken)
    for subtracts in (False, True):
        sign = -1 if subtracts else 1
        for name, old, doubles, weights, others in (
            ("first plane", 0, False, [sign * bit for bit in bits], 0),
            (
                "first word of a plane",
                before,
                True,
                [2 * t + sign * bit for t, bit in zip(taken, bits, strict=True)],
                2 * rest,
            ),
            (
                "other word of a plane",
                before,
                False,
                [t + sign * bit for t, bit in zip(taken, bits, strict=True)],
                rest,
            ),
        ):
            right = others + dot_product(weights)
            yield f"{name}, subtracts {subtracts}", rules.accumulate(old, plane_sum, doubles, subtracts), right


def failures(rules: Rules = Rules()) -> list[str]:
    """Return what does not hold."""
    from z3 import IntVal, simplify

    failed = []
    for name, left, right in identities(rules):
        if not simplify(left - right, som=True).eq(IntVal(0)):
            failed.append(name)
    for bits in range(1, spec.MAX_BITS + 1):
        weights = (-1, 1) if bits == 1 else range(spec.signed_low(bits), spec.signed_high(bits) + 1)
        for weight in weights:
            taken = 0
            for position in range(spec.planes_applied(bits)):
                bit = rules.plane_bit(weight, bits, position)
                subtracts = rules.plane_subtracts(bits, position)
                taken = spec.accumulate(taken, bit, position != 0, subtracts)
            if taken != weight:
                failed.append(f"the planes of weight {weight} of {bits} bits make {taken}")
    return failed


@dataclass(frozen=True)
class Identity:
    """A claim about integers, proved without unrolling anything; the same members as ``Proof`` where they are used."""

    name: str
    claim: str
    mutants: tuple[Rules, ...]

    @property
    def reach(self) -> str:
        """How far the proof reaches, in words."""
        return "all integers"

    def prove(self, folder: Path) -> Verdict:
        """Return the verdict on the claim; nothing is written."""
        return self._verdict(Rules())

    def refute(self, index: int, folder: Path) -> Verdict:
        """Return the verdict on one of the mutants."""
        return self._verdict(self.mutants[index])

    @staticmethod
    def _verdict(rules: Rules) -> Verdict:
        failed = failures(rules)
        return Verdict("FAIL" if failed else "PASS", "".join(f"failed: {what}\n" for what in failed))


PROOFS = (
    Identity(
        "dot_product.of_plane_sums",
        "in the specification, plane sums accumulated pass by pass make the integer dot product of weights and "
        "activations: every weight of 1 .. 8 bits, any activations and number of words",
        mutants=(
            Rules(accumulate=lambda accumulator, plane_sum, doubles, subtracts: accumulator + plane_sum),
            Rules(
                accumulate=lambda accumulator, plane_sum, doubles, subtracts: spec.accumulate(
                    accumulator, plane_sum, True, subtracts
                )
            ),
            Rules(plane_subtracts=lambda bits, position: position == 0),
        ),
    ),
)
