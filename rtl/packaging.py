"""Files beside the Verilog that other tools take: an instance to copy, a FuseSoC core, waivers for Verilator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hwsim import spec

LINT_WAIVERS: Sequence[tuple[str, str | None, str]] = (
    ("CASEINCOMPLETE", None, "The generator writes a default before the case."),
    ("DECLFILENAME", None, "One file holds all modules."),
    ("PROCASSINIT", None, "Registers have initial values beside their reset, as FPGAs do."),
    ("SYMRSVDWORD", None, "An instance is called switch."),
    ("UNUSEDSIGNAL", None, "Intermediate results keep bits that nothing reads."),
    ("WIDTHEXPAND", None, "Operands are extended by the language's rules, which the generator relies on."),
    ("WIDTHTRUNC", "Logical operator LOGNOT expects 1 bit*", "The generator writes ! of a vector for = 0."),
    (
        "WIDTHTRUNC",
        "Operator ASSIGNW expects * bits on the Assign RHS, but Assign RHS's SHIFTR*",
        "A shift right is as wide as what it shifts.",
    ),
)
"""(rule of ``verilator -Wall`` that generated Verilog breaks, messages it is waived for or None for all, why that is
harmless)."""

CELL_WAIVERS: Sequence[tuple[str, str, str]] = (
    ("PINMISSING", ".v", "Ports of a cell that are not needed are left open."),
    ("DECLFILENAME", "_cells.v", "One file holds the models of all cells."),
    ("UNUSEDPARAM", "_cells.v", "Models have all parameters of a cell that are set, also those without an effect."),
    ("UNUSEDSIGNAL", "_cells.v", "Models have all ports of a cell that are connected, also those without an effect."),
    ("WIDTHTRUNC", "_cells.v", "The address of a block RAM has bits for its narrowest words."),
)
"""(rule, end of the file's name, why that is harmless), for Verilog that instantiates cells of an FPGA."""


def instance(name: str, ports: Sequence[Mapping[str, Any]]) -> str:
    """Return Verilog that instantiates a module, to be copied and connected.

    Parameters
    ----------
    name : str
    ports : sequence of mapping
        ``name``, ``direction`` and ``bits`` of every port, clock and reset included.
    """
    lines = []
    for index, port in enumerate(ports):
        comma = "," if index < len(ports) - 1 else ""
        connected = "" if port["name"].startswith("trace_") else port["name"]
        width = f" [{port['bits'] - 1}:0]" if port["bits"] > 1 else ""
        lines.append(f"  .{port['name']}({connected}){comma} // {port['direction']}{width}")
    return "\n".join([f"{name} {name}_instance (", *lines, ");", ""])


def fusesoc_core(name: str, *, has_cells: bool = False) -> str:
    """Return a FuseSoC core file (CAPI 2) for ``<name>.v``, with a target that lints it.

    Its version is that of the arithmetic, so cores of the same major version compute the same integers.

    Parameters
    ----------
    name : str
    has_cells : bool
        Whether it instantiates cells, whose models for simulators are in ``<name>_cells.v``.
    """
    cells = (
        f"""
  cells:
    files:
      - {name}_cells.v
    file_type: verilogSource"""
        if has_cells
        else ""
    )
    linted = "[waivers, cells, rtl]" if has_cells else "[waivers, rtl]"
    return f"""\
CAPI=2:

name: bitswitch:bitswitch:{name}:{spec.SPEC_VERSION}.0.0
description: Neural network accelerator whose bit-widths are switched at run time

filesets:
  rtl:
    files:
      - {name}.v
    file_type: verilogSource{cells}
  waivers:
    files:
      - {name}.vlt
    file_type: vlt

targets:
  default: &default
    filesets: [rtl]
    toplevel: {name}
  lint:
    <<: *default
    filesets: {linted}
    flow: lint
    flow_options:
      tool: verilator
      verilator_options: [-Wall]
"""


def waivers(name: str, *, has_cells: bool = False) -> str:
    """Return a Verilator configuration that waives ``LINT_WAIVERS`` for ``<name>.v``.

    Parameters
    ----------
    name : str
    has_cells : bool
        Whether it instantiates cells, modelled in ``<name>_cells.v``: also waive ``CELL_WAIVERS``.
    """
    lines = ["`verilator_config"]
    for rule, message, reason in LINT_WAIVERS:
        match = "" if message is None else f' -match "{message}"'
        lines += [f"// {reason}", f'lint_off -rule {rule} -file "*{name}.v"{match}']
    for rule, suffix, reason in CELL_WAIVERS if has_cells else ():
        lines += [f"// {reason}", f'lint_off -rule {rule} -file "*{name}{suffix}"']
    return "\n".join([*lines, ""])
