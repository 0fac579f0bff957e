"""The scan harness: every port bit is on the chain, in order, simulated in Verilog text read back by its structure."""

from __future__ import annotations

import re

from rtl.scan_harness import TOP, harness, harness_cells

PORTS = [
    {"name": "rst", "direction": "input", "bits": 1},
    {"name": "a", "direction": "input", "bits": 7},
    {"name": "x", "direction": "output", "bits": 3},
    {"name": "b", "direction": "input", "bits": 2},
    {"name": "y", "direction": "output", "bits": 1},
]


def slices(text: str, bus: str) -> list[tuple[str, int, int]]:
    found = re.findall(rf"\.(\w+)\({bus}\[(\d+):(\d+)\]\)", text)
    return [(name, int(high), int(low)) for name, high, low in found]


def test_every_bit_of_every_port_has_a_place_of_its_own() -> None:
    text = harness("design_top", PORTS)
    assert slices(text, "inputs") == [("rst", 0, 0), ("a", 7, 1), ("b", 9, 8)]
    assert slices(text, "outputs") == [("x", 2, 0), ("y", 3, 3)]
    assert "reg [9:0] inputs" in text and "wire [3:0] outputs" in text and "reg [3:0] captured" in text
    assert f"module {TOP}(input clk, " in text and "design_top design(.clk(clk)" in text
    assert harness_cells(PORTS) == (4, 14)


def test_an_oscillator_takes_the_place_of_the_clock_pin() -> None:
    text = harness("design_top", PORTS, "OSC osc(.OUT(clk));")
    assert "input clk" not in text and "wire clk; OSC osc(.OUT(clk));" in text
