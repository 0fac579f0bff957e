"""From Verilog to a bitstream with the tools themselves, on a design small enough for a test."""

import json
import stat
import sys

import pytest

from hwsim.machine import Machine
from hwsim.precision import CATALOG
from rtl.board import bitstream, boards
from rtl.synthesis import SynthesisError

WIDTHS = CATALOG["8-6-4-2"]
MACHINE = Machine.sized(WIDTHS, WIDTHS, 4, 8)

ECHO = """
module bitswitch_board(input clock, button, uart_rx,
  output reg uart_tx, light_alive, output light_answered, light_broken, esp32_boot);
  assign {light_answered, light_broken, esp32_boot} = 3'b001;
  always @(posedge clock) begin uart_tx <= uart_rx; light_alive <= light_alive ^ button; end
endmodule
"""

PREAMBLE = bytes.fromhex("FFFFBDB3")
"""What a bitstream of an ECP5 begins with, after its comments."""


def test_a_bitstream_with_the_pins_of_the_board(tmp_path, monkeypatch):
    monkeypatch.setattr(bitstream, "top_verilog", lambda *arguments: ECHO)
    said = []
    made = bitstream.build(MACHINE, boards.board("ulx3s-25f"), tmp_path, say=said.append)
    data = made.path.read_bytes()
    assert made.path.name == "bitswitch_ulx3s-25f.bit" and PREAMBLE in data[:200]
    assert b"Part: LFE5U-25F-6CABGA381" in data[:200]
    described = json.loads(made.path.with_suffix(".json").read_text())
    assert described["cells"]["ff"]["used"] == 2 and described["clock_hz"] == 25_000_000
    assert described["baud"] == 1_000_000 and described["fmax_mhz"] > 25
    assert [line.split()[0].rstrip(":") for line in said[1::2]] == ["Verilog", "yosys", "nextpnr", "ecppack"]
    log = (tmp_path / "nextpnr.log").read_text()
    # A pin that is not constrained, or constrained and not there, is an error of nextpnr.
    assert "constraining clock net 'clock' to 25.00 MHz" in log
    assert not list(tmp_path.glob("*unfinished")) and (tmp_path / "ecppack.log").exists()


def tool(folder, name, text, code=0):
    """Write a program that says ``text`` and exits with ``code``."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\nprint({text!r})\nopen('routed.config', 'w')\nraise SystemExit({code})\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


USED = "Info: \t          TRELLIS_COMB: {}/ 24288 {}%\nInfo: \t                DP16KD: 3/    56     5%"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            USED.format(30000, 123) + "\nERROR: no",
            "the machine does not fit ulx3s-25f: it takes 30,000 TRELLIS_COMB of 24,288; see",
        ),
        ("ERROR: Unable to find legal placement", "the machine does not fit ulx3s-25f: the placer found no room; see"),
        (
            "Warning: Max frequency for clock 'c': 19.50 MHz (FAIL at 25.00 MHz)\nERROR: timing",
            "the machine reaches 19.5 MHz, ulx3s-25f has a clock of 25 MHz; see",
        ),
        ("ERROR: something else", "nextpnr failed with code 1"),
    ],
)
def test_what_nextpnr_refuses(tmp_path, monkeypatch, log, said):
    monkeypatch.setattr(bitstream, "top_verilog", lambda *arguments: ECHO)
    monkeypatch.setattr(bitstream.synthesis, "synthesize", lambda *arguments, **options: tmp_path / "netlist.json")
    monkeypatch.setenv("NEXTPNR_ECP5", tool(tmp_path, "nextpnr", log, code=1))
    before = tmp_path / "bitswitch_ulx3s-25f.bit"
    before.write_bytes(b"the one before")
    with pytest.raises(SynthesisError, match=said):
        bitstream.build(MACHINE, boards.board("ulx3s-25f"), tmp_path)
    assert before.read_bytes() == b"the one before"


def test_a_missing_tool_is_told_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("ECPPACK", "/no/such/ecppack")
    with pytest.raises(SynthesisError, match="/no/such/ecppack is missing: install the rtl extra"):
        bitstream.build(MACHINE, boards.board("ulx3s-25f"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_machine_with_too_many_multipliers():
    machine = Machine.sized(WIDTHS, WIDTHS, 32, 16, datapath="dsp")
    with pytest.raises(ValueError, match="multipliers, the largest ecp5 has 156"):
        bitstream.top_verilog(machine, boards.board("ulx3s-85f"), 1_000_000)
