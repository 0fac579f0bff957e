"""The Verilog passes ``verilator --lint-only -Wall`` with the waivers written beside it, and these do not waive all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from hwsim.machine import Machine
from hwsim.precision import CATALOG
from rtl import packaging, verilog
from rtl.targets import ECP5
from sim_tests import accelerator, verilator_tool
from sim_tests.design import Design, checked

pytestmark = pytest.mark.verilator

RULES_MAX = 8


def lint(design: Design, folder: Path) -> str:
    waivers, source = folder / f"{design.name}.vlt", folder / f"{design.name}.v"
    waivers.write_text(packaging.waivers(design.name))
    source.write_text(design.verilog)
    return verilator_tool.lint([waivers, source], design.name)


def machines() -> dict[str, Machine]:
    """Return small machines of every width set, half of them with units of one lane."""
    made = {}
    for index, (name, widths) in enumerate(CATALOG.items()):
        options = {"requantizers": 1, "weight_port_bits": 4} if index % 2 else {}
        kind = Machine if index % 2 else Machine.sized
        made[name] = kind(weight_widths=widths, activation_widths=widths, lanes=4, columns=4, **options)
    return made


@pytest.mark.parametrize("name", CATALOG)
def test_a_small_machine_of_every_width_set_is_clean(name, tmp_path):
    assert lint(accelerator.design_of(machines()[name]), tmp_path) == ""


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


def test_what_is_written_for_the_cells_of_a_target_is_clean(tmp_path):
    verilog.write(machines()["8-4"], tmp_path, bus="axi", target=ECP5)
    core = yaml.safe_load((tmp_path / f"{verilog.AXI_NAME}.core").read_text())
    filesets = core["targets"]["lint"]["filesets"]
    files = [tmp_path / file for fileset in filesets for file in core["filesets"][fileset]["files"]]
    assert verilator_tool.lint(files, verilog.AXI_NAME) == ""
    assert "%Warning-PINMISSING" in verilator_tool.lint(files[1:], verilog.AXI_NAME)


def test_a_signal_without_bits_is_refused():
    """``[-1:0]`` is two bits in Verilog; no design that is simulated or linted has one."""
    text = accelerator.design_of(machines()["8"]).verilog
    with pytest.raises(ValueError, match=r"^x must have no signal without bits, as wire \[-1:0\] nothing;$"):
        checked("x", text.replace("endmodule", "  wire [-1:0] nothing;\nendmodule", 1))


def test_the_waivers_are_few_and_explained():
    assert 0 < len(packaging.LINT_WAIVERS) <= RULES_MAX
    assert all(reason.endswith(".") for _, _, reason in packaging.LINT_WAIVERS)
