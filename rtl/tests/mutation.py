"""Components with one thing wrong on purpose, to see that a test notices."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from amaranth.hdl import Mux, Signal, Value


def mutant(component: type, right: str, wrong: str) -> type:
    """Return ``component`` from its module with the source text ``right``, which occurs once, replaced by ``wrong``."""
    source = inspect.getsource(sys.modules[component.__module__])
    assert source.count(right) == 1, f"{right!r} occurs {source.count(right)} times in {component.__module__}"
    namespace = {"__name__": f"{component.__module__}_mutant"}
    exec(compile(source.replace(right, wrong), f"{component.__module__} mutant", "exec"), namespace)
    return namespace[component.__name__]


def chosen_mutants(module: ModuleType, mutations: Mapping[str, str], chosen: Signal) -> dict[str, Any]:
    """Return the names of a module all of whose mutations are built in: one build serves them all.

    Parameters
    ----------
    module : module
    mutations : mapping of str to str
        Right text, once in the source, to what replaces it: an expression with ``choose(number, right, wrong)``.
    chosen : Signal
        The number of the mutation that is in force; 0 is none.
    """
    source = inspect.getsource(module)
    for right, wrong in mutations.items():
        assert source.count(right) == 1, f"{right!r} occurs {source.count(right)} times"
        source = source.replace(right, wrong)

    def choose(number: int, right: Any, wrong: Any) -> Value:
        return Mux(chosen == number, wrong, right)

    namespace: dict[str, Any] = {"__name__": f"{module.__name__}_mutant", "choose": choose}
    exec(compile(source, f"{module.__name__} mutant", "exec"), namespace)
    return namespace
