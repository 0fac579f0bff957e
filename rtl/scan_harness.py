"""A scan chain around a design with more ports than an FPGA has pins, so that it can be placed and routed whole.

Every input is a register of one chain, and every output is captured into another, behind it: four pins, a register for
each input, a register and a table for each output. Only the clock is not on the chain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TOP = "scan_harness"


def harness(top: str, ports: Sequence[Mapping[str, Any]], oscillator: str = "") -> str:
    """Return Verilog of ``TOP``, with one instance of the module ``top``.

    Parameters
    ----------
    top : str
    ports : sequence of mapping
        Name, direction and bits of every port but ``clk``, as ``rtl.verilog.ports`` tells them.
    oscillator : str
        Instance that drives ``clk``, which is a pin otherwise.
    """
    bits = {way: sum(port["bits"] for port in ports if port["direction"] == way) for way in ("input", "output")}
    position = {"input": 0, "output": 0}
    connections = [".clk(clk)"]
    for port in ports:
        way = port["direction"]
        low = position[way]
        position[way] += port["bits"]
        connections.append(f".{port['name']}({way}s[{position[way] - 1}:{low}])")
    lines = [
        f"module {TOP}({'' if oscillator else 'input clk, '}input scan_in, input capture, output scan_out);",
        *([f"  wire clk; {oscillator}"] if oscillator else []),
        f"  reg [{bits['input'] - 1}:0] inputs;",
        f"  wire [{bits['output'] - 1}:0] outputs;",
        f"  reg [{bits['output'] - 1}:0] captured;",
        "  always @(posedge clk) begin",
        "    inputs <= {inputs, scan_in};",
        f"    captured <= capture ? outputs : {{captured, inputs[{bits['input'] - 1}]}};",
        "  end",
        f"  assign scan_out = captured[{bits['output'] - 1}];",
        f"  {top} design({', '.join(connections)});",
        "endmodule",
        "",
    ]
    return "\n".join(lines)


def harness_cells(ports: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Return the tables and the registers of the harness: one for each output, one for each port bit."""
    outputs = sum(port["bits"] for port in ports if port["direction"] == "output")
    return outputs, sum(port["bits"] for port in ports)
