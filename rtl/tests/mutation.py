"""Components with one thing wrong on purpose, to see that a test notices."""

from __future__ import annotations

import inspect
import sys


def mutant(component: type, right: str, wrong: str) -> type:
    """Return ``component`` from its module with the source text ``right``, which occurs once, replaced by ``wrong``."""
    source = inspect.getsource(sys.modules[component.__module__])
    assert source.count(right) == 1, f"{right!r} occurs {source.count(right)} times in {component.__module__}"
    namespace = {"__name__": f"{component.__module__}_mutant"}
    exec(compile(source.replace(right, wrong), f"{component.__module__} mutant", "exec"), namespace)
    return namespace[component.__name__]
