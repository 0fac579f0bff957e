"""The AXI form of the accelerator in a simulator, for cocotb testbenches that make its clock."""

from __future__ import annotations

from pathlib import Path

from hwsim.machine import Machine
from sim_tests import harness
from sim_tests.design import Design, from_component

TOP = "testbench"
NAME = "bitswitch_axi"
CLOCK_PERIOD_NS = 10

CHANNELS = {
    "s_axi_b": ("s_axi_bvalid", "s_axi_bready", ("s_axi_bresp",)),
    "s_axi_r": ("s_axi_rvalid", "s_axi_rready", ("s_axi_rdata", "s_axi_rresp")),
    "m_axis_result": ("m_axis_result_tvalid", "m_axis_result_tready", ("m_axis_result_tdata", "m_axis_result_tlast")),
}
"""Channels that the design drives -> valid, ready and payload; the testbench sees ``<channel>__violations``."""


def design_of(machine: Machine) -> Design:
    """Return the Verilog of the AXI form and its ports."""
    from rtl.bus.axi_top import AxiTop

    return from_component(AxiTop(machine), NAME)


def wrapper_text(design: Design) -> str:
    """Return the Verilog of module ``testbench``: the design's ports as its own, and the rule of AXI checked.

    ``<channel>__violations`` counts the cycles in which valid fell, or the payload changed, before it was taken; the
    testbench writes ``checking`` to 0 while it resets the machine.
    """
    header = []
    for port in design.ports:
        access = "public_flat_rw" if port.direction == "input" else "public_flat_rd"
        header.append(f"  {port.direction} [{port.bits - 1}:0] {port.name} /* verilator {access} */")
    lines = [
        "`timescale 1ns/1ps",
        f"module {TOP}(",
        "  input checking /* verilator public_flat_rw */,",
        ",\n".join(header),
        ");",
        f"  {design.name} dut({', '.join(f'.{port.name}({port.name})' for port in design.ports)});",
    ]
    for name, (valid, ready, payload) in CHANNELS.items():
        bits = sum(design.port(part).bits for part in payload)
        together = "{" + ", ".join(payload) + "}"
        lines += [
            f"  reg [31:0] {name}__violations /* verilator public_flat_rd */ = 0;",
            f"  reg {name}__waiting = 0;",
            f"  reg [{bits - 1}:0] {name}__held = 0;",
            "  always @(posedge aclk) begin",
            f"    {name}__waiting <= checking && {valid} && !{ready};",
            f"    {name}__held <= {together};",
            f"    if (checking && {name}__waiting && !({valid} && {name}__held == {together}))",
            f"      {name}__violations <= {name}__violations + 1;",
            "  end",
        ]
    return "\n".join([*lines, "endmodule", ""])


def build(design: Design, cache: Path = harness.CACHE, *, quick: bool = False) -> harness.Build:
    """Return the simulator of an AXI form; ``quick`` as for ``harness.build``."""
    sources = {"design.v": design.verilog, "testbench.v": wrapper_text(design)}
    return harness.build(sources, TOP, cache=cache, quick=quick)
