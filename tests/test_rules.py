"""The rules of the suite and of the set-up: nothing is skipped where every check must run; missing tools are named."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {
    "in a test": "import pytest\n\ndef test_it():\n    pytest.skip('no tool')\n",
    "by a mark": "import pytest\n\n@pytest.mark.skipif(True, reason='no tool')\ndef test_it():\n    pass\n",
    "as a module": "import pytest\n\npytest.importorskip('no_such_module', reason='no tool')\n",
}


@pytest.mark.parametrize(
    ("text", "ci", "passes"),
    [*((text, "true", False) for text in SKIPPED.values()), (SKIPPED["in a test"], "", True)],
    ids=[*SKIPPED, "elsewhere"],
)
def test_a_skip_is_an_error_only_where_every_check_must_run(text: str, ci: str, passes: bool, tmp_path: Path) -> None:
    (tmp_path / "test_skipped.py").write_text(text + "\n\ndef test_other():\n    pass\n")
    (tmp_path / "conftest.py").write_text((ROOT / "conftest.py").read_text())
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
    )
    assert ("no tool" in done.stdout) == (not passes)
    assert (done.returncode == 0) == passes, done.stdout


@pytest.mark.parametrize(
    ("missing", "told"),
    [("g++", "a C++ compiler (g++)"), ("perl", "perl"), ("python3", "Python 3.11 or later")],
)
def test_a_missing_tool_is_named_in_one_sentence(missing: str, told: str, tmp_path: Path) -> None:
    for tool in ("sh", "sed", "g++", "perl", "python3"):
        found = shutil.which(tool)
        assert found is not None
        if tool != missing:
            (tmp_path / tool).symlink_to(found)
    make = shutil.which("make")
    assert make is not None
    done = subprocess.run(
        [make, "tools", f"VENV={tmp_path / 'none'}"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith(f"bitswitch needs {told}, which is missing. On Debian or Ubuntu: sudo apt install ")
    assert second.startswith("make")


def test_the_readme_tells_the_line_that_the_set_up_tells() -> None:
    (line,) = re.findall(r"^APT := (.*)$", (ROOT / "Makefile").read_text(), re.M)
    readme = (ROOT / "README.md").read_text()
    assert f"\n{line}\n" in readme
    for target in ("demo", "test"):
        assert f"\nmake {target} " in readme


def test_everything_that_is_installed_is_pinned() -> None:
    text = (ROOT / "constraints.txt").read_text()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in text.splitlines() if "==" in line}
    wanted = re.findall(r'^  "([A-Za-z0-9-]+)[\[>=]', (ROOT / "pyproject.toml").read_text(), re.M)
    assert len(wanted) > 15
    assert {name.lower() for name in wanted} - {"bitswitch"} <= pinned
