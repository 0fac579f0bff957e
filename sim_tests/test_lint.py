"""The Verilog passes ``verilator --lint-only -Wall`` with the waivers that are shipped, and they do not waive all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hwsim.machine import Machine
from hwsim.precision import CATALOG, WidthSet
from sim_tests import accelerator, verilator_tool
from sim_tests.design import Design

pytestmark = pytest.mark.verilator

WAIVERS = Path(verilator_tool.__file__).with_name("lint_waivers.vlt")
RULES_MAX = 8


def lint(design: Design, folder: Path) -> str:
    path = folder / f"{design.name}.v"
    path.write_text(design.verilog)
    return verilator_tool.lint([WAIVERS, path], design.name)


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
    for damage, rule in (
        ("wire [2:0] damaged = load__payload;", "WIDTHTRUNC"),
        ("wire damaged; wire twice = damaged;", "UNDRIVEN"),
        ("reg damaged; always @* if (run__valid) damaged = load__valid;", "LATCH"),
    ):
        text = design.verilog[: start.end()] + damage + design.verilog[start.end() :]
        assert f"%Warning-{rule}" in lint(Design(design.name, text, design.ports), tmp_path), damage


def test_the_waivers_are_few_and_explained():
    lines = WAIVERS.read_text().splitlines()
    waived = [at for at, line in enumerate(lines) if line.startswith("lint_off")]
    assert 0 < len(waived) <= RULES_MAX
    assert all(lines[at - 1].startswith(("//", "lint_off")) for at in waived)
