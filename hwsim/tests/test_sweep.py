"""Sweeps: in this process, in others, on a real Dask cluster that loses a worker; stopped and resumed."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hwsim import sweep

ITEMS = {f"item-{number}": number for number in range(40)}
SQUARES = {key: number * number for key, number in ITEMS.items()}
ROOT = Path(__file__).resolve().parents[2]


def square(number: int) -> int:
    return number * number


def noted(folder: Path, number: int) -> int:
    """Square a number slowly, and leave a note of each call and of the process that made it."""
    time.sleep(0.02)
    with open(folder / f"{number}", "a") as note:
        note.write(f"{os.getpid()}\n")
    return number * number


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_items(processes: int, tmp_path: Path) -> None:
    told: list[int] = []
    found = sweep.run(square, ITEMS, tmp_path, processes=processes, progress=lambda text, done: told.append(done))
    assert found == SQUARES and list(found) == list(ITEMS)
    assert told == [8, 16, 24, 32, 40]


def test_a_stopped_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    calls: list[int] = []

    def stopping(limit: int, number: int) -> int:
        if len(calls) == limit:
            raise KeyboardInterrupt
        calls.append(number)
        return number * number

    with pytest.raises(KeyboardInterrupt):
        sweep.run(functools.partial(stopping, 20), ITEMS, tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 16  # two whole chunks
    calls.clear()
    assert sweep.run(functools.partial(stopping, 100), ITEMS, tmp_path) == SQUARES
    assert calls == list(range(16, 40))
    assert sweep.run(functools.partial(stopping, 0), ITEMS, tmp_path) == SQUARES


def test_the_key_tells_what_a_result_depends_on() -> None:
    assert sweep.key_of({"a": 1, "b": 2}) == sweep.key_of({"b": 2, "a": 1}) != sweep.key_of({"a": 1, "b": 3})
    assert sweep.sources_digest("spec") != sweep.sources_digest("timing")


def test_a_change_of_any_source_behind_a_module_is_another_digest(tmp_path: Path) -> None:
    for name, text in {
        "top": "from hwsim import middle",
        "middle": "def later():\n    from hwsim.bottom import x\nimport json",
        "bottom": "from hwsim.top import y\nx = 1",
        "other": "from hwsim import top",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    digest = sweep.sources_digest("top", tmp_path)
    assert digest == sweep.sources_digest("top", tmp_path) == sweep.sources_digest("bottom", tmp_path)
    (tmp_path / "other.py").write_text("changed = 1")
    assert digest == sweep.sources_digest("top", tmp_path)
    (tmp_path / "bottom.py").write_text("x = 2")
    assert digest != sweep.sources_digest("top", tmp_path)


def start(*command: str, log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "10"}
    with open(log, "wb") as output:
        program = [sys.executable, "-W", "ignore", "-m", "distributed.cli." + command[0], *command[1:]]
        return subprocess.Popen(program, env=environment, stdout=output, stderr=subprocess.STDOUT)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_worker_loses_no_result(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    address = f"tcp://127.0.0.1:{free_port()}"
    notes = tmp_path / "notes"
    notes.mkdir()
    common = ("--no-dashboard",)
    scheduler = start("dask_scheduler", "--host", address, *common, log=tmp_path / "scheduler.log")
    one_thread = ("--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path), *common)
    workers = [start("dask_worker", address, *one_thread, log=tmp_path / f"worker{index}.log") for index in range(2)]
    killed: list[int] = []

    def kill_one(text: str, done: int) -> None:
        seen = {int(line) for note in notes.iterdir() for line in note.read_text().split()}
        if not killed and len(seen) == 2:
            workers[0].kill()
            killed.append(done)

    items: dict[str, Any] = {f"item-{number}": number for number in range(200)}
    try:
        found = sweep.run(
            functools.partial(noted, notes), items, tmp_path / "results", scheduler=address, progress=kill_one
        )
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()
    assert killed and killed[0] < len(items), "the worker was to die while there was work"
    assert found == {key: number * number for key, number in items.items()}
    assert {json.loads(path.read_text()) for path in (tmp_path / "results").glob("*.json")} == set(found.values())


@pytest.mark.filterwarnings("ignore")
def test_a_scheduler_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    address = f"tcp://127.0.0.1:{free_port()}"
    monkeypatch.setattr(sweep, "ANSWER_SECONDS", 1)
    with pytest.raises(ValueError, match=f"no Dask scheduler answers at {address}"):
        sweep.run(square, ITEMS, tmp_path, scheduler=address)
