"""The cost benchmark on a tiny module of one's own: rows, and no run repeated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import array_cost
from rtl import synthesis

PEER = """
module tiny(input clk, input [3:0] a, input [3:0] w, output reg [11:0] sum);
  reg [3:0] a_held, w_held;
  always @(posedge clk) begin
    a_held <= a;
    w_held <= w;
    sum <= sum + a_held * w_held;
  end
endmodule
"""
TOML = """
[[peer]]
name = "a peer"
files = ["tiny.v"]
top = "tiny"
modes = [{ weight_bits = 4, activation_bits = 4, macs_per_cycle = 1 }]
"""


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str) -> list[dict[str, object]]:
    table = folder / "cost.json"
    arguments = ["array_cost.py", "--peers", str(folder / "peers.toml"), "--only", "a peer", "--json", str(table)]
    monkeypatch.setattr("sys.argv", [*arguments, "--build", str(folder / "build"), *options])
    array_cost.main()
    rows: list[dict[str, object]] = json.loads(table.read_text())["rows"]
    return rows


def test_a_peer_is_placed_once_for_each_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.v").write_text(PEER)
    (tmp_path / "peers.toml").write_text(TOML)
    (row,) = run(monkeypatch, tmp_path)
    assert (row["design"], row["weight_bits"], row["activation_bits"]) == ("a peer", 4, 4)
    # 8 input registers and 12 of the sum; the product of 4 x 4 bits takes a LUT for each bit or more.
    assert row["ff"] == 20 and 12 <= row["comb"] < 100 and row["dsp"] == row["block_ram"] == 0  # type: ignore[operator]
    assert row["comb_per_mac_per_cycle"] == row["comb"] and row["seeds"] == [1]
    assert row["cells_per_mac_per_cycle"] == max(row["comb"], row["ff"])  # type: ignore[type-var]
    assert 100 < row["fmax_mhz"] < 1000 and row["limited_by"]  # type: ignore[operator]

    (two,) = run(monkeypatch, tmp_path, "--seeds", "1", "2")
    assert two["seeds"] == [1, 2] and two["runs"]["1"] == row["runs"]["1"]  # type: ignore[index]
    assert two["fmax_mhz"] == min(two["runs"][seed]["fmax_mhz"] for seed in ("1", "2"))  # type: ignore[index]

    monkeypatch.setattr(synthesis, "synthesize", None)
    assert run(monkeypatch, tmp_path, "--seeds", "2") == [two]


def test_the_parts_of_a_netlist_add_up(tmp_path: Path) -> None:
    text = "module part(input clk, input a, output reg y); always @(posedge clk) y <= a; endmodule\n"
    text += "module top(input clk, input [1:0] a, output [1:0] y);\n"
    text += "part one(clk, a[0], y[0]); part two(clk, a[1] & a[0], y[1]); endmodule\n"
    netlist = synthesis.synthesize(text, "top", tmp_path)
    parts = synthesis.cells_by_part(netlist, "top")
    assert sum(cells["TRELLIS_FF"] for cells in parts.values()) == 2
    assert sum(cells["LUT4"] for cells in parts.values()) == 1
