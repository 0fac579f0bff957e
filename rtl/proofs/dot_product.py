"""Proof that group sums, joined and accumulated pass by pass, make the integer dot product.

The column is proved to join its group sums, and the accumulate step to equal ``spec.accumulate``, on bits. That the
two together multiply is a statement about integers: identities of polynomials, whatever the number of passes, and the
weight that the planes of every single weight add up to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hwsim import spec
from rtl.leaves.array_column import LANE_BITS
from rtl.proofs.solver import Verdict

LANES = 4
SLOTS = (8, 4, 2, 1)


def joined(parts: list, group_bits: int, slot: int):
    """Return the sum of the groups' sums as ``ArrayColumn`` joins them: group k weighs 2**(g * (k mod (slot / g)))."""
    return sum(part * (1 << (group_bits * (k % (slot // group_bits)))) for k, part in enumerate(parts))


@dataclass(frozen=True)
class Rules:
    """What the machine does, to be replaced by something wrong in a mutant."""

    accumulate: Callable = spec.accumulate
    joined: Callable = joined
    plane_bit: Callable = spec.plane_bit
    plane_subtracts: Callable = spec.plane_subtracts


def identities(rules: Rules, group_bits: int, slot: int):
    """Yield (name, left, right): what the accumulator is after one more pass, and what it should be."""
    from z3 import Int

    per_slot = slot // group_bits
    groups = LANE_BITS // group_bits
    part = [[Int(f"part_{lane}_{k}") for k in range(groups)] for lane in range(LANES)]
    activations, bits, taken = {}, {}, {}
    for lane in range(LANES):
        for index in range(groups // per_slot):
            own = part[lane][index * per_slot : (index + 1) * per_slot]
            activations[lane, index] = sum(value * (1 << (group_bits * k)) for k, value in enumerate(own))
            bits[lane, index] = Int(f"bit_{lane}_{index}")
            taken[lane, index] = Int(f"taken_{lane}_{index}")
    sums = [sum(bits[lane, k // per_slot] * part[lane][k] for lane in range(LANES)) for k in range(groups)]
    plane_sum = rules.joined(sums, group_bits, slot)
    before = sum(taken[at] * activations[at] for at in activations)
    for subtracts in (False, True):
        sign = -1 if subtracts else 1
        first = sum(sign * bits[at] * activations[at] for at in activations)
        later = sum((2 * taken[at] + sign * bits[at]) * activations[at] for at in activations)
        yield f"first pass, subtracts {subtracts}", rules.accumulate(0, plane_sum, False, subtracts), first
        yield f"later pass, subtracts {subtracts}", rules.accumulate(before, plane_sum, True, subtracts), later


def failures(rules: Rules = Rules()) -> list[str]:
    """Return what does not hold."""
    from z3 import IntVal, simplify

    failed = []
    for group_bits in SLOTS:
        for slot in SLOTS:
            if slot >= group_bits:
                for name, left, right in identities(rules, group_bits, slot):
                    if not simplify(left - right, som=True).eq(IntVal(0)):
                        failed.append(f"{name}, groups of {group_bits} bits, slots of {slot}")
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
        "dot_product.of_joined_passes",
        f"joined group sums of {LANES} lanes, accumulated pass by pass, make the integer dot product of weights and "
        "activations: every weight and weight width 1 .. 8, every activation, slot and group width",
        mutants=(
            Rules(accumulate=lambda accumulator, plane_sum, doubles, subtracts: accumulator + plane_sum),
            Rules(joined=lambda parts, group_bits, slot: joined(parts, group_bits, max(slot // 2, group_bits))),
            Rules(plane_subtracts=lambda bits, position: position == 0),
        ),
    ),
)
