"""From a machine to the bitstream of a board: Verilog, yosys, nextpnr with the board's pins and clock, ecppack."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwsim.machine import Machine
from hwsim.whole_file import write_json
from rtl import synthesis
from rtl.accelerator import check_multipliers
from rtl.board.boards import Board
from rtl.board.top import NAME, BoardTop
from rtl.conversion import to_verilog
from rtl.synthesis import SynthesisError
from rtl.targets import ECP5

DEFAULT_BAUD = 1_000_000
PATIENCE_S = 0.01
"""How long the host link waits for the machine before it answers that it has not taken all."""

CELLS = {"comb": "TRELLIS_COMB", "ff": "TRELLIS_FF", "dsp": "MULT18X18D", "block_ram": "DP16KD"}


@dataclass(frozen=True, kw_only=True)
class Bitstream:
    """A bitstream that was made.

    Parameters
    ----------
    path : Path
    board : Board
    machine : Machine
    baud : int
        Bits a second of the serial line.
    cells : mapping of str to (int, int)
        ``comb``, ``ff``, ``dsp`` and ``block_ram``: taken, and what the board has.
    fmax_mhz : float
        Of the slowest path; the board's clock is no faster.
    seconds : mapping of str to float
        What each stage took.
    """

    path: Path
    board: Board
    machine: Machine
    baud: int
    cells: Mapping[str, tuple[int, int]]
    fmax_mhz: float
    seconds: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "bitstream": str(self.path),
            "board": self.board.name,
            "clock_hz": self.board.clock_hz,
            "baud": self.baud,
            "machine": self.machine.to_json(),
            "cells": {name: {"used": used, "available": available} for name, (used, available) in self.cells.items()},
            "fmax_mhz": self.fmax_mhz,
            "seconds": dict(self.seconds),
        }


def top_verilog(machine: Machine, board: Board, baud: int) -> str:
    """Return the Verilog of everything on the board's FPGA.

    Raises
    ------
    ValueError
        If the machine takes more multipliers than there are, or the clock cannot make the baud rate.
    """
    check_multipliers(machine, ECP5)
    top = BoardTop(machine, board.cycles_per_bit(baud), round(PATIENCE_S * board.clock_hz))
    return to_verilog(top, NAME, target=ECP5)


def build(
    machine: Machine,
    board: Board,
    folder: Path,
    *,
    baud: int = DEFAULT_BAUD,
    seed: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> Bitstream:
    """Make ``bitswitch_<board>.bit`` and, beside it, a ``.json`` that describes it; the tools' logs stay in ``folder``.

    Parameters
    ----------
    machine : Machine
    board : Board
    folder : Path
    baud : int
    seed : int
        Of the placer.
    say : callable of str
        Is told of every stage.

    Raises
    ------
    ValueError
        If the machine takes more multipliers than there are, or the clock cannot make the baud rate.
    SynthesisError
        If a tool is missing or fails, the design does not fit, or it is slower than the board's clock.
    """
    board.cycles_per_bit(baud)
    placer, packer = synthesis.tool("nextpnr-ecp5"), synthesis.tool("ecppack")
    seconds: dict[str, float] = {}

    def stage(name: str, run: Callable[[], Any]) -> Any:
        say(f"{name} ...")
        start = time.perf_counter()
        result = run()
        seconds[name] = round(time.perf_counter() - start, 1)
        say(f"{name}: {seconds[name]} s")
        return result

    text = stage("Verilog", lambda: top_verilog(machine, board, baud))
    netlist = stage("yosys", lambda: synthesis.synthesize(text, NAME, folder, dsp=True))
    (folder / "board.lpf").write_text(board.constraints())
    place = [*placer, f"--{board.device}", "--package", board.package, "--speed", board.speed, "--seed", str(seed)]
    place += ["--json", netlist.name, "--lpf", "board.lpf", "--textcfg", "routed.config"]
    log = folder / "nextpnr.log"
    try:
        stage("nextpnr", lambda: synthesis._call(place, folder, log.name))
    except SynthesisError as error:
        raise SynthesisError(_why_not(log, board) or str(error)) from error
    cells, clocks = read_log(log.read_text())
    if not clocks:
        raise SynthesisError(f"nextpnr found no clock; its output is in {log}")
    pack = [*packer, "--compress", "--input", "routed.config", "--bit", "bitstream.unfinished"]
    stage("ecppack", lambda: synthesis._call(pack, folder, "ecppack.log"))
    made = Bitstream(
        path=folder / f"bitswitch_{board.name}.bit",
        board=board,
        machine=machine,
        baud=baud,
        cells={name: cells[cell] for name, cell in CELLS.items()},
        fmax_mhz=clocks[-1],
        seconds=seconds,
    )
    write_json(made.path.with_suffix(".json"), made.to_json())
    os.replace(folder / "bitstream.unfinished", made.path)
    return made


def read_log(text: str) -> tuple[dict[str, tuple[int, int]], list[float]]:
    """Return the cells taken and available, and the clocks in MHz, of a nextpnr log."""
    rows = re.findall(r"^Info:\s+(\w+): +(\d+)/ *(\d+) +\d+%", text, re.M)
    clocks = re.findall(r"Max frequency for clock '[^']*': ([\d.]+) MHz", text)
    return {name: (int(used), int(available)) for name, used, available in rows}, [float(clock) for clock in clocks]


def _why_not(log: Path, board: Board) -> str | None:
    """Return the sentence for a design that is too large or too slow, or None."""
    text = log.read_text() if log.exists() else ""
    cells, clocks = read_log(text)
    beyond = [f"{used:,} {cell} of {available:,}" for cell, (used, available) in cells.items() if used > available]
    if beyond:
        return f"the machine does not fit {board.name}: it takes {', '.join(beyond)}; see {log}"
    if re.search(r"ERROR: .*(no BELs remaining|Unable to (find|place)|utili[sz]ation limit)", text):
        return f"the machine does not fit {board.name}: the placer found no room; see {log}"
    if clocks and clocks[-1] * 1e6 < board.clock_hz:
        return (
            f"the machine reaches {clocks[-1]} MHz, {board.name} has a clock of {board.clock_hz / 1e6:g} MHz; see {log}"
        )
    return None
