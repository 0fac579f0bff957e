"""The harness itself, on small designs: bits survive the way in and out, streams are policed, failures are told."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from sim_tests import harness, object_cache, packing, playback, verilator_tool, wrapper
from sim_tests.design import Design
from sim_tests.scoreboard import Scoreboard
from sim_tests.wrapper import Port

pytestmark = pytest.mark.verilator

WIRES = Design(
    "wires",
    """module wires(input clk, input rst, input [6:0] a, input signed [40:0] b, input [69:0] c,
        output [6:0] a_out, output signed [40:0] b_out, output reg [69:0] c_out);
      assign a_out = a; assign b_out = b;
      always @(posedge clk) c_out <= rst ? 70'b0 : c;
    endmodule""",
    (
        Port("a", "input", 7),
        Port("b", "input", 41, True),
        Port("c", "input", 70),
        Port("a_out", "output", 7),
        Port("b_out", "output", 41, True),
        Port("c_out", "output", 70),
    ),
)

STREAM = """
module relay(input clk, input rst, input [7:0] i__payload, input i__valid, output i__ready,
             output reg [7:0] o__payload, output reg o__valid, input o__ready);
  assign i__ready = o__ready | ~o__valid;
  always @(posedge clk) if (rst) o__valid <= 0; else if (i__ready) begin
    o__valid <= i__valid; o__payload <= i__payload + 8'd1;
  end
endmodule
"""
RELAY = Design(
    "relay",
    STREAM,
    (
        Port("i__payload", "input", 8),
        Port("i__valid", "input", 1),
        Port("i__ready", "output", 1),
        Port("o__payload", "output", 8),
        Port("o__valid", "output", 1),
        Port("o__ready", "input", 1),
    ),
)


def test_played_and_recorded_bits_survive():
    rng = np.random.default_rng(1)
    rows = 300
    columns = {
        "a": rng.integers(0, 128, rows),
        "b": rng.integers(-(1 << 40), 1 << 40, rows),
        "c": rng.integers(0, 256, (rows, 9), dtype=np.uint8),
    }
    columns["c"][:, 8] &= 63
    columns["b"][:2] = (-(1 << 40), (1 << 40) - 1)
    recorded = playback.play(WIRES, columns, ("a_out", "b_out", "c_out"))
    board = Scoreboard("wires")
    board.compare(recorded["a_out"][:rows], columns["a"], "a")
    board.compare(recorded["b_out"][:rows], columns["b"], "b")
    chunks = np.pad(columns["c"], ((0, 0), (0, 3))).view("<u4")
    board.compare(recorded["c_out"][1 : rows + 1], chunks, "c")
    assert board.finish() == 5 * rows
    assert (np.diff(recorded["cycle"]) == 1).all()


def _relay(design: Design, **job: object) -> harness.Run:
    recorder = wrapper.Recorder("sent", "o__valid && o__ready", (design.port("o__payload"),))
    text = wrapper.write(design.name, design.ports, recorders=(recorder,))
    simulator = harness.build({"design.v": design.verilog, "testbench.v": text}, wrapper.TOP, quick=True)
    result = harness.run(simulator, "sim_tests.tb_relay", harness.Message({"seed": 3, "words": 500, **job}))
    recorded = recorder.decode(result.recorded["sent"])["o__payload"]
    Scoreboard("relay").compare(recorded, result.arrays["received"], "recorded")
    return result


@pytest.mark.parametrize("idle", [0.0, 0.6])
@pytest.mark.parametrize("stall", [0.0, 0.6])
def test_streams_move_every_word(idle, stall):
    result = _relay(RELAY, idle=idle, stall=stall)
    assert result.values["moved"] == {"i": 500, "o": 500}
    # Full rate without pauses, and clearly less with them.
    assert result.values["cycles"] < 510 if idle == stall == 0 else result.values["cycles"] > 700


def test_a_broken_stream_is_caught():
    broken = RELAY.mutated("if (i__ready) begin", "begin")
    with pytest.raises(harness.SimulationError, match=r"stream o broke its rule|words were received|AssertionError"):
        _relay(broken, idle=0.0, stall=0.6)


def test_a_wrong_word_is_caught():
    with pytest.raises(harness.SimulationError, match="differ"):
        _relay(RELAY.mutated("8'd1", "8'd2"), idle=0.0, stall=0.0)


def test_an_empty_run_does_not_pass():
    with pytest.raises(harness.SimulationError, match="nothing to compare"):
        _relay(RELAY, idle=0.0, stall=0.0, words=0)


def test_a_failing_build_shows_its_log():
    with pytest.raises(harness.SimulationError, match="no_such_signal"):
        harness.build({"bad.v": "module bad(output x); assign x = no_such_signal + y; endmodule"}, "bad")


def test_a_build_needs_no_program_called_python(tmp_path, monkeypatch):
    """Debian, for one, has only ``python3``; here there is one that fails."""
    wrong = tmp_path / "programs" / "python"
    wrong.parent.mkdir()
    wrong.write_text("#!/bin/sh\nexit 1\n")
    wrong.chmod(0o755)
    monkeypatch.setenv("PATH", str(wrong.parent), prepend=os.pathsep)
    harness.build({"nothing.v": "module nothing; endmodule"}, "nothing", cache=tmp_path / "builds", quick=True)


def test_what_is_not_used_is_removed(tmp_path):
    for name, age_days in (("old", 31), ("new", 29)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "complete").touch()
        then = time.time() - age_days * 86400
        os.utime(tmp_path / name / "complete", (then, then))
    harness._remove_unused(tmp_path, "*/complete", harness.BUILD_KEPT_DAYS)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_values_that_do_not_fit_are_refused():
    player = wrapper.Player("stimulus", (Port("a", "input", 7),))
    with pytest.raises(ValueError, match=r"port a: values must be 0 .. 127, not 0 .. 128"):
        player.encode({"a": np.array([0, 128])})
    with pytest.raises(ValueError, match=r"needs the columns \['a'\], not \['b'\]"):
        player.encode({"b": np.array([0])})


def test_a_missing_tool_is_one_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(verilator_tool.ToolMissing, match=r"^simulation needs a C\+\+ compiler and make and perl, not"):
        verilator_tool.root()


def test_scoreboard_rejects_nothing_and_differences():
    board = Scoreboard("codes")
    with pytest.raises(AssertionError, match="only 0 of at least 1"):
        board.finish()
    with pytest.raises(AssertionError, match="nothing to compare"):
        board.compare(np.array([]), np.array([]), "empty")
    board.compare(np.array([1, 2]), np.array([1, 3]), "pair", ("pixel",))
    with pytest.raises(AssertionError, match="1 of 2 values differ: pair at pixel 1: 2 instead of 3"):
        board.finish()


@pytest.mark.parametrize("words", [np.zeros(0, np.int64), np.zeros((0, 3), np.uint32)], ids=["narrow", "wide"])
def test_nothing_recorded_is_no_integers(words):
    """A network without a residual add writes no skip code."""
    assert packing.unpack(words, 8, 2).shape == (0, 2)


def test_objects_are_kept_only_where_they_are_the_same_for_every_design(tmp_path, monkeypatch):
    """Of the model itself none; of the main program for each form of the header that it includes of the model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VERILATOR_ROOT", str(tmp_path))
    (tmp_path / "include").mkdir()
    runtime, main, model = (
        tmp_path / "include" / "verilated.cpp",
        tmp_path / "verilator.cpp",
        tmp_path / "Vtop__ALL.cpp",
    )
    for source in (runtime, main, model):
        source.write_text("int x;")

    def kept(source, *options):
        return object_cache.identity(["c++", *options, "-c", "-o", "x.o", str(source)])

    assert kept(model) is kept(main) is None
    header = tmp_path / object_cache.MODEL_HEADER
    header.write_text("class Vtop;")
    seen = {kept(runtime), kept(runtime, "-O1"), kept(main), kept(main, "-O1")}
    header.write_text("class Vtop { int port; };")
    assert kept(runtime) in seen
    seen |= {kept(main), kept(main, "-O1")}
    runtime.write_text("int x, y;")
    assert len({*seen, kept(runtime)}) == 7 and None not in seen
    assert kept(model) is None
