"""`bitswitch bitstream`: what it refuses, and what it hands to the flow."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import bitswitch
from hwsim import network_file
from hwsim.precision import CATALOG
from hwsim.random_network import SMALL, random_network
from rtl.board import bitstream
from rtl.loadable import LoadableProgram


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--board", "arty"], "board must be one of ulx3s-12f, ulx3s-25f, ulx3s-45f, ulx3s-85f, not 'arty'"),
        (["--board", "ulx3s-85f", "--baud", "7000000"], "baud must be 382 .. 6250000, not 7000000"),
        (["--board", "ulx3s-85f", "--baud", "4500000"], "not 4500000, which is 7.4 % off"),
        (["--board", "ulx3s-85f", "--assignments", "W8A8"], "--assignments needs a --network"),
        (["--board", "ulx3s-85f", "--network", "no-such-file"], "no-such-file: no such network file"),
        (["--board", "ulx3s-85f", "--lanes", "3"], "lanes must be"),
    ],
)
def test_what_is_refused_in_a_sentence(arguments, said, capsys, tmp_path):
    assert bitswitch.main(["bitstream", *arguments, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1 and told.startswith("bitswitch bitstream: ")
    assert not (tmp_path / "out").exists()


def test_a_missing_tool(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("NEXTPNR_ECP5", "/no/such/nextpnr")
    assert bitswitch.main(["bitstream", "--board", "ulx3s-85f", "--out", str(tmp_path / "out")]) == 2
    assert "/no/such/nextpnr is missing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_package(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "amaranth_boards", None)
    monkeypatch.delitem(sys.modules, "amaranth_boards.ulx3s", raising=False)
    assert bitswitch.main(["bitstream", "--board", "ulx3s-85f"]) == 2
    assert "needs the Python package amaranth_boards: install it with pip install 'bitswitch[board]'" in (
        capsys.readouterr().err
    )


def test_a_network_sizes_the_memories_and_becomes_a_program(monkeypatch, capsys, tmp_path):
    network = random_network(3, CATALOG["8-6-4-2"], (2, 4, 4), SMALL, classes=3)
    network_file.save(network, tmp_path / "network.safetensors")
    asked = {}

    def build(machine, board, folder, **options):
        asked.update(options, machine=machine, board=board)
        folder.mkdir(parents=True)
        path = folder / "made.bit"
        path.write_bytes(b"bits")
        cells = dict.fromkeys(bitstream.CELLS, (1, 2))
        return bitstream.Bitstream(
            path=path, board=board, machine=machine, baud=options["baud"], cells=cells, fmax_mhz=40.0, seconds={}
        )

    monkeypatch.setattr(bitstream, "build", build)
    arguments = ["--board", "ulx3s-85f", "--network", str(tmp_path / "network.safetensors"), "--lanes", "4"]
    arguments += ["--columns", "8", "--assignments", "W8A8,W2A2", "--baud", "3125000", "--seed", "7"]
    out, report = tmp_path / "out", tmp_path / "report.json"
    assert bitswitch.main(["bitstream", *arguments, "--out", str(out), "--json", str(report)]) == 0
    assert (asked["baud"], asked["seed"], asked["board"].name) == (3_125_000, 7, "ulx3s-85f")
    assert (asked["machine"].lanes, asked["machine"].columns) == (4, 8)
    program = LoadableProgram.load(Path(json.loads(report.read_text())["program"]))
    assert list(program.slots) == ["W8A8", "W2A2"] and program.words.dtype == np.uint32
    assert program.configuration["array"]["lanes"] == 4
    assert "40.0 MHz, the board's clock is 25 MHz; 3,125,000 bits/s" in capsys.readouterr().out
