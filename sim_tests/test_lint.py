"""The Verilog passes ``verilator --lint-only -Wall`` with the waivers written beside it, and these do not waive all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hwsim.machine import Machine
from hwsim.precision import CATALOG, WidthSet
from rtl import packaging
from sim_tests import accelerator, verilator_tool
from sim_tests.design import Design

pytestmark = pytest.mark.verilator

RULES_MAX = 8


def lint(design: Design, folder: Path) -> str:
    waivers, verilog = folder / f"{design.name}.vlt", folder / f"{design.name}.v"
    waivers.write_text(packaging.waivers(design.name))
    verilog.write_text(design.verilog)
    return verilator_tool.lint([waivers, verilog], design.name)


def tiny(widths: WidthSet) -> Design:
    return accelerator.design_of(
        Machine(weight_widths=widths, activation_widths=widths, lanes=4, columns=4, requantizers=1, weight_port_bits=4)
    )


@pytest.mark.parametrize("name", [name for name in CATALOG if name != "8-6-4-2"])
def test_a_small_machine_of_every_width_set_is_clean(name, tmp_path):
    assert lint(tiny(CATALOG[name]), tmp_path) == ""


def test_the_standard_machine_is_clean_and_damage_is_told(tmp_path):
    widths = CATALOG["8-6-4-2"]
    design = accelerator.design_of(Machine(weight_widths=widths, activation_widths=widths))
    assert lint(design, tmp_path) == ""
    start = re.search(rf"^module {design.name}\(.*?\);", design.verilog, re.S | re.M)
    assert start is not None
    damage = (
        "wire undriven, twice = undriven; reg latch; always @* if (run__valid) latch = load__valid;"
        "wire [2:0] narrow = load__payload;"
    )
    text = design.verilog[: start.end()] + damage + design.verilog[start.end() :]
    told = lint(Design(design.name, text, design.ports), tmp_path)
    assert all(f"%Warning-{rule}" in told for rule in ("UNDRIVEN", "LATCH", "WIDTHTRUNC"))


def test_no_signal_has_no_bits():
    """``[-1:0]`` is two bits in Verilog."""
    for widths in CATALOG.values():
        assert "[-1:0]" not in tiny(widths).verilog
        assert "[-1:0]" not in accelerator.design_of(Machine.sized(widths, widths, 4, 4)).verilog


def test_the_waivers_are_few_and_explained():
    assert 0 < len(packaging.LINT_WAIVERS) <= RULES_MAX
    assert all(reason.endswith(".") for _, _, reason in packaging.LINT_WAIVERS)
