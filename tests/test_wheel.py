"""The wheel holds the packages and nothing else, and works outside the tree."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CLAIMED = {"hwsim", "rtl", "quant", "sim_tests", "bitswitch"}


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel), cwd=target)
    return target


def test_it_claims_only_its_own_names(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == CLAIMED
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_it_ships_every_module_and_no_test(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        str(path.relative_to(ROOT))
        for package in sorted(CLAIMED)
        for path in (ROOT / package).rglob("*.py")
        if "tests" not in path.relative_to(ROOT).parts[1:] and not path.name.startswith(("test_", "conftest"))
    }
    shipped = {name for name in names if name.endswith(".py")}
    assert shipped == expected
    assert any(name.startswith("sim_tests/tb_") for name in shipped)


def test_it_imports_outside_the_tree(installed: Path, tmp_path: Path) -> None:
    modules = sorted(
        ".".join(path.relative_to(installed).with_suffix("").parts)
        for package in sorted(CLAIMED)
        for path in (installed / package).rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py") and not path.name.startswith("tb_")
    )
    program = (
        f"import importlib, sys; sys.path.insert(0, {str(installed)!r})\n"
        f"for name in {modules!r}:\n"
        f"    assert importlib.import_module(name).__file__.startswith({str(installed)!r}), name\n"
        "print(len(sys.modules))"
    )
    assert int(run(sys.executable, "-c", program, cwd=tmp_path)) > len(modules)


def test_the_command_line_is_installed(installed: Path, tmp_path: Path) -> None:
    script = (installed / "bin" / "bitswitch").read_text()
    assert "from bitswitch import main" in script
    program = (
        f"import sys; sys.path.insert(0, {str(installed)!r}); import bitswitch; sys.exit(bitswitch.main(['--help']))"
    )
    assert "train" in run(sys.executable, "-c", program, cwd=tmp_path)
