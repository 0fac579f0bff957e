"""The whole board in a simulator, which sees nothing but its pins; the UART at the other end is a model in Verilog."""

from __future__ import annotations

from pathlib import Path

from sim_tests import harness
from sim_tests.design import Design

TOP = "testbench"
CLOCK_PERIOD_NS = 40


def wrapper_text(design: Design, cycles_per_bit: int) -> str:
    """Return the Verilog of module ``testbench``: the board's clock, and a UART that knows no clock but its own.

    The testbench writes ``send_data`` and ``send_stop``, the level of the stop bit, then toggles ``send``; ``sent``
    follows when the byte is over. ``stretch_ppm`` makes the bits sent longer or shorter. ``received_count`` counts the
    bytes that came, each in ``received_data``; ``received_errors`` those of them without a stop bit.
    """
    inputs = [port for port in design.ports if port.direction == "input" and port.name not in ("clock", "uart_rx")]
    outputs = [port for port in design.ports if port.direction == "output" and port.name != "uart_tx"]
    connected = [".clock(clock)", ".uart_rx(to_board)", ".uart_tx(from_board)"]
    connected += [f".{port.name}({port.name})" for port in (*inputs, *outputs)]
    bit_ns = cycles_per_bit * CLOCK_PERIOD_NS
    lines = [
        "`timescale 1ns/1ps",
        f"module {TOP};",
        *(f"  reg [{port.bits - 1}:0] {port.name} /* verilator public_flat_rw */ = 0;" for port in inputs),
        *(f"  wire [{port.bits - 1}:0] {port.name} /* verilator public_flat_rd */;" for port in outputs),
        "  reg clock = 0;",
        f"  always #{CLOCK_PERIOD_NS / 2} clock = !clock;",
        "  reg to_board = 1;",
        "  wire from_board;",
        f"  {design.name} dut({', '.join(connected)});",
        "  reg send /* verilator public_flat_rw */ = 0;",
        "  reg send_stop /* verilator public_flat_rw */ = 1;",
        "  reg [7:0] send_data /* verilator public_flat_rw */ = 0;",
        "  reg signed [31:0] stretch_ppm /* verilator public_flat_rw */ = 0;",
        "  reg sent /* verilator public_flat_rd */ = 0;",
        "  real bit_ns;",
        "  integer i, j;",
        "  always begin",
        "    wait (send != sent);",
        f"    bit_ns = {bit_ns} * (1.0 + stretch_ppm / 1000000.0);",
        "    to_board = 0;",
        "    #(bit_ns);",
        "    for (i = 0; i < 8; i = i + 1) begin to_board = send_data[i]; #(bit_ns); end",
        "    to_board = send_stop;",
        "    #(bit_ns);",
        "    to_board = 1;",
        "    if (!send_stop) #(bit_ns);",
        "    sent = send;",
        "  end",
        "  reg [7:0] coming;",
        "  reg [7:0] received_data /* verilator public_flat_rd */ = 0;",
        "  reg [31:0] received_count /* verilator public_flat_rd */ = 0;",
        "  reg [31:0] received_errors /* verilator public_flat_rd */ = 0;",
        "  always begin",
        "    @(negedge from_board);",
        f"    #({bit_ns} * 1.5);",
        f"    for (j = 0; j < 8; j = j + 1) begin coming[j] = from_board; #({bit_ns}); end",
        "    if (!from_board) received_errors = received_errors + 1;",
        "    received_data = coming;",
        "    received_count = received_count + 1;",
        "  end",
        "endmodule",
        "",
    ]
    return "\n".join(lines)


def build(design: Design, cycles_per_bit: int, cache: Path = harness.CACHE) -> harness.Build:
    """Return the simulator of a board whose ports are those of ``rtl.board.top.BoardTop``."""
    sources = {"design.v": design.verilog, "testbench.v": wrapper_text(design, cycles_per_bit)}
    return harness.build(sources, TOP, cache=cache, quick=True)
