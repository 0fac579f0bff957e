"""The files beside the Verilog."""

import json
import re

import pytest
import yaml

from hwsim import spec
from hwsim.machine import Machine
from hwsim.precision import CATALOG
from rtl import packaging, stream_documents, verilog
from rtl.result_buffer import RESULT
from rtl.targets import ECP5, PORTABLE

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
    assert set(texts) == expected | ({"_registers.md", "_registers.h"} if bus == "axi" else {"_ports.md"})


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


def check_core(folder, name, cells):
    """Check a FuseSoC core file by the rules of CAPI 2 (FuseSoC's ``capi2/json_schema.py``)."""
    first, text = (folder / f"{name}.core").read_text().split("\n", 1)
    assert first == "CAPI=2:"
    core = yaml.safe_load(text)
    assert set(core) == {"name", "description", "filesets", "targets"}
    assert re.fullmatch(r"\w+:\w+:\w+:\d+\.\d+\.\d+", core["name"])
    assert core["name"] == f"bitswitch:bitswitch:{name}:{spec.SPEC_VERSION}.0.0"

    filesets = {key: (value["files"], value["file_type"]) for key, value in core["filesets"].items()}
    assert all(set(value) == {"files", "file_type"} for value in core["filesets"].values())
    assert filesets == {
        "rtl": ([f"{name}.v"], "verilogSource"),
        "waivers": ([f"{name}.vlt"], "vlt"),
        **({"cells": ([f"{name}_cells.v"], "verilogSource")} if cells else {}),
    }
    for files, _ in filesets.values():
        assert all((folder / file).is_file() for file in files)

    # The generated module has no parameters, so that the core has none to name either.
    module = re.search(rf"^module {name}\b(.*?)^endmodule", (folder / f"{name}.v").read_text(), re.S | re.M)
    assert module is not None and not re.search(r"^ *parameter\b|^ *#\(", module[1], re.M)
    targets = core["targets"]
    assert targets["default"] == {"filesets": ["rtl"], "toplevel": name}
    assert targets["lint"] == {
        "filesets": ["waivers", *(["cells"] if cells else []), "rtl"],
        "toplevel": name,
        "flow": "lint",
        "flow_options": {"tool": "verilator", "verilator_options": ["-Wall"]},
    }
    assert set(targets) == {"default", "lint"}


@pytest.mark.parametrize("target", (PORTABLE, ECP5), ids=lambda target: target.name)
@pytest.mark.parametrize("bus", verilog.BUSES)
def test_the_core_is_what_fusesoc_takes_and_names_files_that_exist(bus, target, tmp_path):
    verilog.write(MACHINE, tmp_path, bus=bus, target=target)
    check_core(tmp_path, verilog.default_name(bus), cells=target != PORTABLE)


def test_the_ports_document_tells_every_port_and_its_width(tmp_path):
    source, _ = verilog.write(MACHINE, tmp_path)
    document = (tmp_path / f"{verilog.NAME}_ports.md").read_text()
    module = source.read_text().split(f"module {verilog.NAME}(", 1)[1].split("endmodule")[0]
    declared = re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+) ?;", module, re.M)
    assert {"clk", "rst", "load__valid", "result__payload", "trace_layer_slot"} <= {port for _, _, port in declared}
    rows = {row.split("`")[1]: row for row in document.splitlines() if row.startswith("| `")}
    for direction, high, port in declared:
        bits = int(high or 0) + 1
        stream, is_stream, wire = port.partition("__")
        if port in ("clk", "rst"):
            assert f"`{port}`" in document
        elif is_stream:
            assert f"`{port}` ({bits} bits)" in rows[stream] if wire == "payload" else f"`{port}`" in rows[stream]
            sent = f"| {direction} |" in rows[stream]
            assert sent == (wire != "ready")
        else:
            assert rows[port].startswith(f"| `{port}` | {direction} | {bits} | ")
            assert ("leave it open" in rows[port]) == port.startswith("trace_")
    assert len(rows) == len({port.partition("__")[0] for _, _, port in declared}) - 2


def test_the_ports_document_tells_clock_reset_and_the_result_words():
    document = stream_documents.markdown("name", verilog.describe(MACHINE)["ports"])
    clock, reset = (verilog.describe(MACHINE)[wire] for wire in ("clock", "reset"))
    assert (clock["edge"], reset["synchronous"], reset["active_high"]) == ("rising", True, True)
    assert f"One clock, `{clock['name']}`, rising edge." in document
    assert f"One reset, `{reset['name']}`, synchronous and active high" in document
    assert "bits 31:0 are the logit, signed; bit 32 is high with the last" in document
    assert RESULT.const({"value": -1, "last": 1}).as_bits() == (1 << 33) - 1
    assert RESULT.const({"value": 0, "last": 1}).as_bits() == 1 << 32


def test_a_port_that_nothing_is_written_about_is_an_error():
    with pytest.raises(KeyError, match="unknown"):
        stream_documents.markdown("name", [{"name": "unknown", "direction": "output", "bits": 1}])


@pytest.mark.parametrize("bus", verilog.BUSES)
def test_cells_of_a_target_come_with_their_models(bus, tmp_path):
    source, description = verilog.write(MACHINE, tmp_path, bus=bus, target=ECP5)
    name = verilog.default_name(bus)
    models = (tmp_path / f"{name}_cells.v").read_text()
    used = set(re.findall(r"^  (DP16KD|CCU2C|MULT18X18D)\b", source.read_text(), re.M))
    assert used == {"DP16KD", "CCU2C", "MULT18X18D"}
    assert all(f"module {cell} " in models or f"module {cell}(" in models for cell in used)
    assert json.loads(description.read_text())["target"] == "ecp5"


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
