"""Build Verilog with Verilator once per configuration, and run cocotb testbenches on it as separate processes.

A testbench module (``tb_*``) runs inside the simulator. It gets its job as a file (``job()``) and gives its results
back as a file (``finish()``), so that the caller needs neither cocotb nor any shared state. What the Verilog wrapper
recorded (``wrapper.Recorder``) comes back with the results.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.whole_file import written_whole
from sim_tests import verilator_tool

CACHE = Path("build") / "sim"
"""Where builds are kept, below the current folder."""

JOB_VARIABLE = "BITSWITCH_JOB"
BUILD_OPTIONS = (
    "-O3",
    "--timing",
    "--no-public-flat-rw",
    "--x-assign",
    "fast",
    "--x-initial",
    "fast",
    "--noassert",
    "-Wno-fatal",
    "-Wno-WIDTH",
    "--output-split",
    "0",
    "-CFLAGS",
    "-std=c++20",
)
"""With only the wrapper's own signals public (cocotb's runner would make all of them so) and a clock made in Verilog,
an array of 32 lanes x 16 columns runs at 1,300,000 cycles a second; with all signals public at 290,000; with cocotb's
clock at 190,000 (in C) and 64,000 (in Python). Optimizing more than ``-O1`` costs more time than it saves.
All C++ in one file compiles in a third of the time (two thirds for that array): most of it goes into headers."""

LOG_TAIL_LINES = 40

BUILD_KEPT_DAYS = 30
RUN_KEPT_DAYS = 1
"""Builds not used and runs left behind (they failed, or wrote waves) for so long are removed."""


class SimulationError(RuntimeError):
    """A build or a run failed; the message ends with the tail of its log."""


@dataclass(frozen=True)
class Message:
    """Values (anything JSON can hold) and arrays that cross the border of a simulator process."""

    values: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write a whole file."""
        if "values" in self.arrays:
            raise ValueError("an array must not be called 'values'")
        for name, array in self.arrays.items():
            if array.dtype == object:
                raise TypeError(f"array {name} must have a number type, not object")
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, values=np.array(json.dumps(dict(self.values))), **self.arrays)

    @classmethod
    def load(cls, path: Path) -> Message:
        """Read what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name != "values"}
            return cls(json.loads(str(file["values"])), arrays)


@dataclass(frozen=True)
class Build:
    """A simulator that was built: its folder, its top module, and whether it can write waves."""

    folder: Path
    top: str
    waves: bool


@dataclass(frozen=True)
class Run:
    """What a testbench gave back: its values and arrays, and the files (bytes) that the wrapper recorded."""

    values: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    recorded: Mapping[str, bytes]


def waves_wanted() -> bool:
    """Return whether the environment variable ``WAVES`` asks for a waveform file."""
    return os.environ.get("WAVES", "") not in ("", "0")


QUICK_MAKE_VARIABLES = ("OPT_FAST=-O0",)
"""For small designs that run only for a moment: 4 x 8 lanes and columns build in 5 s of processor time, not 7 s."""


TOGGLE_OPTIONS = ("--coverage-toggle",)
TOGGLES = "coverage"
"""Name under which a run's record of toggles, in Verilator's form, stands among the files recorded."""


def build(
    sources: Mapping[str, str], top: str, *, cache: Path = CACHE, quick: bool = False, toggles: bool = False
) -> Build:
    """Build a simulator, or return the one that was built from the same text before.

    Parameters
    ----------
    sources : mapping of str to str
        File name (``.v``, ``.sv`` or ``.vlt``) -> text.
    top : str
        Name of the top module; it makes its own clock (see ``wrapper``).
    cache : Path
        Folder in which builds are kept, one for each content hash.
    quick : bool
        Compile fast rather than run fast: right for a small design that runs for less than a million cycles.
    toggles : bool
        Count the toggles of what is marked for it, see ``sim_tests.toggles``.

    Raises
    ------
    ToolMissing
        If Verilator or what it needs is not installed.
    SimulationError
        If the build fails.
    """
    verilator_tool.root()
    waves = waves_wanted()
    versions = [importlib.metadata.version(name) for name in ("verilator", "cocotb")]
    make_variables = (*verilator_tool.MAKE_VARIABLES, *(QUICK_MAKE_VARIABLES if quick else ()))
    options = (*BUILD_OPTIONS, *(TOGGLE_OPTIONS if toggles else ()))
    identity = json.dumps([dict(sources), top, waves, versions, options, make_variables])
    cache = cache.absolute()
    folder = cache / f"{top}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(folder.name + ".lock")):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            _remove_unused(cache, "*/complete", BUILD_KEPT_DAYS)
            _build(sources, top, folder, waves, cache, options, make_variables)
        (folder / "complete").touch()
    return Build(folder, top, waves)


def _build(
    sources: Mapping[str, str],
    top: str,
    folder: Path,
    waves: bool,
    cache: Path,
    options: Sequence[str],
    make_variables: Sequence[str],
) -> None:
    from cocotb_tools.runner import get_runner

    paths = []
    for name, text in sources.items():
        path = folder / name
        path.write_text(text)
        paths.append(path)
    work = folder / "work"
    log = folder / "build.log"
    failure = None
    extra = {"BITSWITCH_OBJECT_CACHE": str(cache / "runtime"), "MAKEFLAGS": verilator_tool.make_flags(make_variables)}
    with _runner_environment(extra):
        runner = get_runner("verilator")
        runner.log.setLevel(logging.ERROR)
        try:
            runner.build(
                sources=paths,
                hdl_toplevel=top,
                build_dir=work,
                build_args=list(options),
                timescale=("1ns", "1ps"),
                waves=waves,
                log_file=log,
            )
        except (RuntimeError, SystemExit) as error:
            failure = error
    if failure is not None:
        raise SimulationError(f"building {top} with Verilator failed ({failure}); the end of {log}:\n{_tail(log)}")
    for path in work.iterdir():
        if path.name != top and path.is_file():
            path.unlink()


def run(
    simulator: Build,
    test_module: str,
    job: Message,
    *,
    files: Mapping[str, bytes] | None = None,
    keep: Path | None = None,
    seed: int = 1,
) -> Run:
    """Run every cocotb test of a module in a simulator process of its own.

    Parameters
    ----------
    simulator : Build
    test_module : str
        Importable name of the testbench, for example ``sim_tests.tb_accelerator``.
    job : Message
        What ``harness.job()`` returns inside.
    files : mapping of str to bytes, optional
        Further files of the run's folder, such as stimulus to play.
    keep : Path, optional
        Folder to run in and leave behind; by default a temporary one. With ``WAVES=1`` it is always kept.
    seed : int
        Seed of cocotb's own random numbers.

    Raises
    ------
    SimulationError
        If a test fails, the simulator stops early, or the testbench gives no results.
    """
    from cocotb_tools.runner import get_runner

    runs = simulator.folder.parent / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    _remove_unused(runs, "*/job.npz", RUN_KEPT_DAYS)
    temporary = keep is None
    folder = Path(tempfile.mkdtemp(prefix=f"{simulator.top}-", dir=runs)) if keep is None else keep.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for stale in ("result.npz", "results.xml", f"{TOGGLES}.dat"):
        (folder / stale).unlink(missing_ok=True)
    job.save(folder / "job.npz")
    for name, data in (files or {}).items():
        (folder / name).write_bytes(data)
    log = folder / "run.log"
    failure: BaseException | None = None
    with _runner_environment({JOB_VARIABLE: str(folder), "PYTEST_CURRENT_TEST": ""}):
        runner = get_runner("verilator")
        runner.log.setLevel(logging.CRITICAL)
        try:
            runner.test(
                test_module=test_module,
                hdl_toplevel=simulator.top,
                hdl_toplevel_lang="verilog",
                build_dir=simulator.folder / "work",
                test_dir=folder,
                results_xml=str(folder / "results.xml"),
                log_file=log,
                seed=seed,
                waves=simulator.waves,
                timescale=("1ns", "1ps"),
                extra_env={"COCOTB_LOG_LEVEL": os.environ.get("COCOTB_LOG_LEVEL", "WARNING")},
            )
        except (RuntimeError, SystemExit) as error:
            failure = error
    told = _failed_tests(folder / "results.xml")
    if failure is not None or told:
        reason = "; ".join(told) or f"the simulator stopped ({failure})"
        raise SimulationError(f"{test_module} on {simulator.top} failed: {reason}; the end of {log}:\n{_tail(log)}")
    if not (folder / "result.npz").exists():
        raise SimulationError(f"{test_module} on {simulator.top} gave no results; the end of {log}:\n{_tail(log)}")
    result = Message.load(folder / "result.npz")
    recorded = {path.stem: path.read_bytes() for path in (*folder.glob("*.record"), *folder.glob(f"{TOGGLES}.dat"))}
    if simulator.waves:
        print(f"waves: {folder / 'dump.vcd'}", file=sys.stderr)
    elif temporary:
        shutil.rmtree(folder)
    return Run(result.values, result.arrays, recorded)


def job() -> Message:
    """Return, inside the simulator, the job that ``run`` was given."""
    return Message.load(Path(os.environ[JOB_VARIABLE]) / "job.npz")


def finish(values: Mapping[str, Any] | None = None, arrays: Mapping[str, np.ndarray] | None = None) -> None:
    """Hand results back, inside the simulator, once per run."""
    Message(values or {}, arrays or {}).save(Path(os.environ[JOB_VARIABLE]) / "result.npz")


@contextlib.contextmanager
def _runner_environment(extra: Mapping[str, str]) -> Iterator[None]:
    """Set what cocotb's runner reads from this process: tool variables, and a module path free of relative names."""
    here = str(Path(__file__).resolve().parent.parent)
    before = list(sys.path)
    sys.path[:] = [here, *(os.path.abspath(path) for path in before if os.path.abspath(path) != here)]
    try:
        with verilator_tool.activated(extra):
            yield
    finally:
        sys.path[:] = before


def _remove_unused(folder: Path, pattern: str, days: int) -> None:
    """Remove the folders below ``folder`` whose file matching ``pattern`` was not touched for so many days."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > days * 86400:
                shutil.rmtree(path.parent, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _failed_tests(results: Path) -> list[str]:
    if not results.exists():
        return ["the simulator wrote no test results"]
    cases = list(ElementTree.parse(results).getroot().iter("testcase"))
    if not cases:
        return ["the module has no tests"]
    told = []
    for case in cases:
        for problem in (*case.findall("failure"), *case.findall("error")):
            told.append(f"{case.get('name')}: {problem.get('error_msg') or problem.get('message') or 'failed'}")
    return told


def _tail(log: Path) -> str:
    if not log.exists():
        return "(no log)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
