"""Many independent calls: on the cores of this machine or on a Dask cluster, their results kept as they come.

A sweep that was stopped goes on where it was: what is in its folder is not computed again.
"""

from __future__ import annotations

import ast
import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeAlias

from hwsim.whole_file import written_whole

CHUNK = 8
"""Calls that a worker is given at a time, unless told: they share what the function carries with it."""

RETRIES = 5
"""Times that a chunk is begun again on other workers of a cluster, when the one that has it dies."""

ANSWER_SECONDS = 10
"""A scheduler must answer within this time."""

Progress: TypeAlias = Callable[[str, int], None]
"""Called with a text and the number of calls done."""

_Pairs: TypeAlias = list[tuple[str, Any]]


def key_of(*parts: object) -> str:
    """Return a name for what a result depends on: plain values, written as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def sources_digest(module: str, folder: Path = Path(__file__).parent) -> str:
    """Return the SHA-256 of a module of this package and of all that it is made from.

    Results of another version of any of them are computed anew.
    """
    found: dict[str, str] = {}
    wanted = [module]
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = (folder / f"{name}.py").read_text()
            wanted += _imported(found[name])
    return hashlib.sha256(json.dumps(sorted(found.items())).encode()).hexdigest()


def _imported(source: str) -> list[str]:
    """Return the modules of this package that a source imports, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "hwsim":
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hwsim."):
            found.append(node.module.split(".")[1])
    return found


def run(
    function: Callable[[Any], Any],
    items: Mapping[str, Any],
    folder: Path,
    *,
    processes: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
    chunk: int = CHUNK,
) -> dict[str, Any]:
    """Return ``{key: function(item)}`` in the order of ``items``.

    Parameters
    ----------
    function : callable
        What it takes and returns must go to other processes; what it returns must be JSON.
    items : mapping of str to object
        Key -> argument. Keys are file names.
    folder : Path
        One file for each result.
    processes : int
        Of this machine; 1 calls in this very process.
    scheduler : str or None
        Address of a Dask scheduler, such as ``tcp://10.0.0.1:8786``, whose workers are used instead. They need this
        package; one of them may die.
    chunk : int
        Calls that a worker is given at a time.

    Raises
    ------
    ValueError
        If a scheduler does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {key: kept for key in items if (kept := _read(folder / f"{key}.json")) is not None}
    missing = [(key, item) for key, item in items.items() if key not in found]
    if progress is not None and found:
        progress(f"{len(found)} known", len(found))
    chunks = [missing[start : start + chunk] for start in range(0, len(missing), chunk)]
    if not chunks:
        made: Iterator[_Pairs] = iter(())
    elif scheduler is not None:
        made = _on_cluster(function, chunks, scheduler)
    elif processes > 1:
        made = _on_cores(function, chunks, processes)
    else:
        made = (call_all(function, chunk) for chunk in chunks)
    for pairs in made:
        for key, result in pairs:
            _write(folder / f"{key}.json", result)
            found[key] = result
        if progress is not None:
            progress(f"{len(found)} of {len(items)}", len(found))
    return {key: found[key] for key in items}


def call_all(function: Callable[[Any], Any], pairs: _Pairs) -> _Pairs:
    """Return (key, result) of (key, argument) pairs."""
    return [(key, function(item)) for key, item in pairs]


def _on_cores(function: Callable[[Any], Any], chunks: Sequence[_Pairs], processes: int) -> Iterator[_Pairs]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(chunks)), mp_context=context) as pool:
        for done in as_completed([pool.submit(call_all, function, chunk) for chunk in chunks]):
            yield done.result()


def _on_cluster(function: Callable[[Any], Any], chunks: Sequence[_Pairs], scheduler: str) -> Iterator[_Pairs]:
    from distributed import Client
    from distributed import as_completed as completed

    try:
        client = Client(scheduler, timeout=ANSWER_SECONDS)
    except (OSError, TimeoutError) as error:
        raise ValueError(f"no Dask scheduler answers at {scheduler}") from error
    with client:
        futures = [client.submit(call_all, function, chunk, pure=False, retries=RETRIES) for chunk in chunks]
        for future in completed(futures):
            yield future.result()
            future.release()


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def _write(path: Path, result: Any) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(result))
