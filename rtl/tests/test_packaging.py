"""The files beside the Verilog."""

import json
import re

import pytest

from hwsim import spec
from hwsim.machine import Machine
from hwsim.precision import CATALOG
from rtl import packaging, verilog
from rtl.targets import ECP5

WIDTHS = CATALOG["8-4"]
MACHINE = Machine.sized(WIDTHS, WIDTHS, 4, 4)


@pytest.fixture(scope="module", params=verilog.BUSES)
def written(request, tmp_path_factory):
    """Return the bus, the name and the texts of the files by their suffix."""
    folder = tmp_path_factory.mktemp(request.param)
    source, description = verilog.write(MACHINE, folder, bus=request.param)
    name = verilog.default_name(request.param)
    assert (source.name, description.name) == (f"{name}.v", f"{name}.json")
    return request.param, name, {path.name.removeprefix(name): path.read_text() for path in folder.iterdir()}


def test_which_files_are_written(written):
    bus, _, texts = written
    expected = {".v", ".json", ".core", ".vlt", "_instance.vh"}
    assert set(texts) == expected | ({"_registers.md", "_registers.h"} if bus == "axi" else set())


def test_the_instance_connects_every_port_of_the_module(written):
    _, name, texts = written
    header = re.search(rf"^module {name}\((.*?)\);", texts[".v"], re.S | re.M)
    assert header is not None
    connected = re.findall(r"^  \.(\w+)\((\w*)\),? // (input|output)", texts["_instance.vh"], re.M)
    assert sorted(port for port, _, _ in connected) == sorted(re.findall(r"\w+", header.group(1)))
    assert all(wire == ("" if port.startswith("trace_") else port) for port, wire, _ in connected)
    directions = re.findall(r"^  (input|output) (?:\[\d+:0\] )?(\w+) ?;", texts[".v"].split("endmodule")[0], re.M)
    assert {port: direction for direction, port in directions} == {port: way for port, _, way in connected}
    assert texts["_instance.vh"].count("),") == len(connected) - 1


def test_the_description_names_clock_and_reset(written):
    bus, name, texts = written
    description = json.loads(texts[".json"])
    names = (description["clock"]["name"], description["reset"]["name"], description["reset"]["active_high"])
    assert names == (("aclk", "aresetn", False) if bus == "axi" else ("clk", "rst", True))
    assert description["bus"] == bus and description["name"] == name
    ports = [port["name"] for port in description["ports"]]
    assert len(set(ports)) == len(ports) and not {"aclk", "aresetn", "clk", "rst"} & set(ports)


def test_axi_ports_have_the_names_that_tools_infer():
    ports = {port["name"]: port for port in verilog.describe(MACHINE, bus="axi")["ports"]}
    signals = "awaddr awvalid awready wdata wstrb wvalid wready bresp bvalid bready araddr arvalid arready rdata rresp "
    signals += "rvalid rready"
    expected = {f"s_axi_{signal}" for signal in signals.split()} | {"interrupt"}
    for stream, extra in (("s_axis_load", ()), ("s_axis_image", ("tkeep", "tlast")), ("m_axis_result", ("tlast",))):
        expected |= {f"{stream}_{signal}" for signal in ("tdata", "tvalid", "tready", *extra)}
    assert set(ports) == expected
    outputs = {name for name, port in ports.items() if port["direction"] == "output"}
    assert {name.removeprefix("s_axi_") for name in outputs if name.startswith("s_axi_")} == {
        *("awready", "wready", "bresp", "bvalid", "arready", "rdata", "rresp", "rvalid")
    }
    assert outputs - {name for name in outputs if name.startswith("s_axi_")} == {
        *("interrupt", "s_axis_load_tready", "s_axis_image_tready"),
        *("m_axis_result_tdata", "m_axis_result_tvalid", "m_axis_result_tlast"),
    }


def test_the_core_names_its_files_and_module(written):
    _, name, texts = written
    core = texts[".core"]
    assert core.startswith("CAPI=2:\n")
    assert f"name: bitswitch:bitswitch:{name}:{spec.SPEC_VERSION}.0.0\n" in core
    assert [line.strip("- ") for line in core.splitlines() if line.startswith("      - ")] == [
        f"{name}.v",
        f"{name}.vlt",
    ]
    assert f"    toplevel: {name}\n" in core


@pytest.mark.parametrize("bus", verilog.BUSES)
def test_cells_of_a_target_come_with_their_models(bus, tmp_path):
    source, description = verilog.write(MACHINE, tmp_path, bus=bus, target=ECP5)
    name = verilog.default_name(bus)
    models = (tmp_path / f"{name}_cells.v").read_text()
    used = set(re.findall(r"^  (DP16KD|CCU2C|MULT18X18D)\b", source.read_text(), re.M))
    assert used == {"DP16KD", "CCU2C", "MULT18X18D"}
    assert all(f"module {cell} " in models or f"module {cell}(" in models for cell in used)
    assert json.loads(description.read_text())["target"] == "ecp5"
    assert f"- {name}_cells.v" in (tmp_path / f"{name}.core").read_text()


def test_waivers_are_for_this_file_and_have_reasons(written):
    _, name, texts = written
    lines = texts[".vlt"].splitlines()
    assert lines[0] == "`verilator_config"
    waived = re.findall(
        rf'^// (.+\.)\nlint_off -rule (\w+) -file "\*{name}\.v"(?: -match "(.+)")?$', texts[".vlt"], re.M
    )
    assert [(rule, message or None, reason) for reason, rule, message in waived] == list(packaging.LINT_WAIVERS)


def test_an_unknown_bus_is_refused(tmp_path):
    with pytest.raises(ValueError, match="bus must be one of streams, axi, not 'wishbone'"):
        verilog.write(MACHINE, tmp_path, bus="wishbone")
    assert not list(tmp_path.iterdir())
