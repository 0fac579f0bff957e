"""The command line: its help, and what it says to wrong usage and bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import bitswitch
from bitswitch import command_line

VERBS = ("train", "export", "verify", "verilog", "synth", "bitstream", "simulate", "estimate", "demo")


def run(*arguments: str) -> int:
    """Return the exit status of a call, whether it returns or exits."""
    try:
        return bitswitch.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


def test_help_is_the_map_of_the_chain(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    lines = capsys.readouterr().out.splitlines()
    told = [line.split()[0] for line in lines if line.startswith("  ") and line.split()[0] in VERBS]
    assert told == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(verb, "--help") == 0
    assert "--json FILE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "the following arguments are required: VERB"),
        (("fly",), "argument VERB: invalid choice: 'fly'"),
        (("verilog", "--bits", "8,9"), "argument --bits: a width must be 1 .. 8 bits, not 9"),
        (("verilog", "--bits", "8,0"), "argument --bits: a width must be 1 .. 8 bits, not 0"),
        (
            ("verilog", "--weight-bits", "8,8"),
            "argument --weight-bits: a width set must name each width once, not 8 2 times",
        ),
        (
            ("verilog", "--activation-bits", ""),
            "argument --activation-bits: widths must be written like 8,6,4,2, not ''",
        ),
        (("train", "--widths", "eight"), "argument --widths/--bits: widths must be written like 8,6,4,2, not 'eight'"),
        (("train", "--folds", "1"), "argument --folds: must be at least 2, not 1"),
        (("demo", "--images", "many"), "argument --images: must be an integer, not 'many'"),
        (("verify", "--json"), "argument --json: expected one argument"),
        (("estimate", "--clock-mhz", "0"), "argument --clock-mhz: must be above 0, not 0"),
        (("estimate", "--clock-mhz", "fast"), "argument --clock-mhz: must be a number, not 'fast'"),
        (("verify", "a", "b"), "unrecognized arguments: b"),
    ],
)
def test_wrong_usage_is_one_sentence(
    arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert sentence in told.err


@pytest.mark.parametrize("verb", ["export", "verify", "simulate", "estimate"])
def test_a_missing_file_is_one_sentence(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none.safetensors"
    report = tmp_path / "report.json"
    assert run(verb, str(missing), "--json", str(report)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"bitswitch {verb}: ") and told.err.count("\n") == 1
    assert str(missing) in told.err
    assert not report.exists()


def test_a_missing_package_names_its_extra() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import bitswitch; sys.exit(bitswitch.main(['train', '--out', '/nonexistent']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert (
        done.stderr
        == "bitswitch train: needs the Python package torch: install it with pip install 'bitswitch[quant]'\n"
    )


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: object) -> None:
        raise KeyError("bug")

    monkeypatch.setattr(command_line, "run_estimate", broken)
    with pytest.raises(KeyError, match="bug"):
        bitswitch.main(["estimate"])


@pytest.mark.parametrize("place", ["", "file/report.json"])
def test_json_that_cannot_be_written_is_refused_before_the_work(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(command_line, "run_demo", lambda options: pytest.fail("the work was begun"))
    assert run("demo", "--json", str(tmp_path / place)) == 2
    assert "--json must name a file that can be written" in capsys.readouterr().err
