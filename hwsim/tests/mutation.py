"""Mutants: a module of ours with one line of its text changed, to see that the tests notice."""

import importlib
import inspect
import types


def mutant(module_name, *changes):
    """Return module ``module_name`` run afresh with each (old, new) text change made; each old text must occur once."""
    module = importlib.import_module(module_name)
    source = inspect.getsource(module)
    for old, new in changes:
        assert source.count(old) == 1, f"{old!r} occurs {source.count(old)} times in {module_name}"
        source = source.replace(old, new)
    changed = types.ModuleType(module_name)
    changed.__file__ = module.__file__
    exec(compile(source, f"<mutant of {module_name}>", "exec"), changed.__dict__)
    return changed


INTERPRETED = ("import numba\n", "from hwsim.tests.mutation import uncompiled as numba\n")
"""Change of ``hwsim.kernels`` that leaves its kernels plain Python: slow, but changed in no time."""


class uncompiled:
    """Stands for the module ``numba``."""

    @staticmethod
    def njit(function, **options):
        return function


def interpreted_fused(*changes):
    """Return a mutant of ``hwsim.fused`` whose kernels are plain Python, with the portable tile."""
    return mutant(
        "hwsim.fused",
        ("from hwsim.compilation import borrowing, compiled\n", "borrowing = compiled = lambda function: function\n"),
        ("_multiply_tile = tiles.multiply_tile\n", "_multiply_tile = tiles.portable_tile\n"),
        ("_move_vector = tiles.move_vector\n", "_move_vector = tiles.portable_move\n"),
        *changes,
    )
