"""A proof: a claim about one unit, how it is stated, and the wrong units that it must refute."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rtl.proofs.bench import Bench
from rtl.proofs.solver import Verdict, solve

CARRY_CELLS = "+/ecp5/cells_sim.v"
"""Models of ECP5 cells that come with Yosys."""


@dataclass(frozen=True)
class Mutant:
    """A unit with one thing wrong: source text that occurs once in its module, and what to put in its place.

    Parameters
    ----------
    right, wrong : str
    component : type, optional
        Whose module is changed: a class that the proof's own component uses. That component itself if not given.
    """

    right: str
    wrong: str
    component: type | None = None


@dataclass(frozen=True)
class Proof:
    """A claim that holds in every reachable state.

    Parameters
    ----------
    name : str
        Unit and claim, as ``weight_switch.equals_spec``.
    claim : str
        What is proved, and of which instance.
    component : type
        The unit, as its module has it.
    state : callable
        Takes the component, or a mutant of it, and returns the bench that states the claim.
    depth : int
        k of the induction: the claim holds in the first ``depth`` cycles, and if in ``depth`` cycles, in the next.
    mutants : tuple of Mutant
        Each has a counterexample of at most ``mutant_depth`` cycles.
    mutant_depth : int, optional
        ``depth`` if not given.
    bounded : bool
        The claim is only proved for the first ``depth`` cycles.
    cells : str or Path
        Models of a family's cells: as Yosys finds them, or a file of Verilog.
    arrays : bool
        Memories are arrays to the solver, not registers: for large ones.
    """

    name: str
    claim: str
    component: type
    state: Callable[[type], Bench]
    depth: int
    mutants: tuple[Mutant, ...]
    mutant_depth: int | None = None
    bounded: bool = False
    cells: str | Path = ""
    arrays: bool = False

    def rtlil(self, mutant: Mutant | None = None) -> str:
        """Return the claim about the unit, or about a mutant of it, in the language of Yosys."""
        return self.state(self.component if mutant is None else mutated(self.component, mutant)).rtlil()

    @property
    def reach(self) -> str:
        """How far the proof reaches, in words."""
        return f"the first {self.depth} cycles" if self.bounded else f"unbounded, k = {self.depth}"

    def prove(self, folder: Path) -> Verdict:
        """Return the verdict on the claim."""
        mode = "bmc" if self.bounded else "prove"
        return self._solve(self.rtlil(), folder / self.name, mode, self.depth)

    def refute(self, index: int, folder: Path) -> Verdict:
        """Return the verdict on one of the mutants."""
        place = folder / f"{self.name}.mutant_{index}"
        return self._solve(self.rtlil(self.mutants[index]), place, "bmc", self.mutant_depth or self.depth)

    def _solve(self, text: str, folder: Path, mode: str, depth: int) -> Verdict:
        return solve(text, folder, mode=mode, depth=depth, cells=self.cells, arrays=self.arrays)


def mutated(component: type, mutant: Mutant) -> type:
    """Return ``component`` with ``mutant`` in it.

    Raises
    ------
    ValueError
        If the text to be replaced does not occur exactly once.
    """
    changed = mutant.component or component
    source = inspect.getsource(sys.modules[changed.__module__])
    if source.count(mutant.right) != 1:
        raise ValueError(
            f"a mutant's text must occur once in {changed.__module__}: "
            f"{mutant.right!r} occurs {source.count(mutant.right)} times"
        )
    namespace = run_source(changed, source.replace(mutant.right, mutant.wrong))
    if changed is component:
        return namespace[component.__name__]
    unchanged = run_source(component, inspect.getsource(sys.modules[component.__module__]))
    unchanged[changed.__name__] = namespace[changed.__name__]
    return unchanged[component.__name__]


def run_source(component: type, source: str) -> dict[str, object]:
    """Return the names that ``source`` defines, run in the place of the component's module."""
    name = f"{component.__module__}_mutant"
    namespace: dict[str, object] = {"__name__": name}
    module = type(sys)(name)
    module.__dict__.update(namespace)
    sys.modules[name] = module
    exec(compile(source, name, "exec"), module.__dict__)
    return module.__dict__
