"""The flow on the smallest array for every device, through the real tools, and machines that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsim.machine import Machine
from hwsim.precision import WidthSet
from rtl import flow, synthesis
from rtl.devices import DEVICES

TWO = WidthSet((2,))
SMALL = Machine.sized(TWO, TWO, 4, 4)


@pytest.mark.parametrize("name", ["generic", "ice40-up5k", "ecp5-25k", "nexus", "xilinx7"])
def test_every_device_builds_the_smallest_array(name: str, tmp_path: Path) -> None:
    device, told = DEVICES[name], []
    built = flow.build(SMALL, device, tmp_path, part="array", say=told.append)
    luts, registers = built.used("lut"), built.used("ff")
    # 16 weights of 4 groups, in two copies each, and at least a register for each activation and sum bit.
    assert built.fits and registers is not None and registers > 2 * 16 * 4 and luts is not None and luts > 16
    stages = ["verilog", "synthesis"] + (["place_and_route"] if device.placer else [])
    assert list(built.seconds) == stages and len(told) == 2 * len(stages)
    assert (tmp_path / "yosys.log").exists() and (tmp_path / "nextpnr_1.log").exists() == bool(device.placer)
    assert (built.fmax_mhz is not None) == bool(device.placer)
    if device.placer:
        assert 20 < built.fmax_mhz < 1000  # type: ignore[operator]
        assert all(one.used <= one.available for one in built.utilization if one.available is not None)
    if device.scan_pins:
        assert built.harness_ffs > built.harness_luts > 0 and registers > built.harness_ffs
    values = built.to_json()
    assert values["lut"] == luts and values["fits"] is (True if device.placer else None)


def test_memories_without_a_device_are_bits(tmp_path: Path) -> None:
    text = """
    module store(input clk, input we, input [7:0] a, input [11:0] d, output reg [11:0] q);
      reg [11:0] words [0:255];
      always @(posedge clk) begin if (we) words[a] <= d; q <= words[a]; end
    endmodule
    """
    generic = DEVICES["generic"]
    netlist = synthesis.synthesize(text, "store", tmp_path, device=generic)
    assert synthesis.netlist_memory_bits(netlist, "store") == 256 * 12
    assert synthesis.netlist_counts(netlist, "store", generic)["ff"] <= 12


def test_what_cannot_fit_is_known_before_synthesis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis, "synthesize", lambda *_, **__: pytest.fail("the work was begun"))
    big = Machine.sized(TWO, TWO, 16, 16, datapath="dsp", requantizers=2)
    built = flow.build(big, DEVICES["ecp5-25k"], tmp_path)
    products = built.used("dsp")
    assert products is not None and products > 256 and not built.fits and built.fmax_mhz is None
    assert f"does not fit ecp5-25k: {products} multipliers of 28 ({products - 28} too many)" in built.why_not
    bits = sum(big.memory_bits.values())
    small = flow.build(big, DEVICES["ice40-up5k"], tmp_path)
    assert small.used("memory_bit") == bits > 128160
    assert f"{bits:,} memory bits of 128,160 ({bits - 128160:,} too many)" in small.why_not
    array = flow.build(big, DEVICES["ecp5-25k"], tmp_path, part="array")
    assert array.used("dsp") == 256 and not array.fits


def test_the_largest_machine_that_fits_is_found_by_halving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = Machine.sized(TWO, TWO, 64, 64, weight_words=512)
    machines = flow.smaller_machines(big)
    assert [(one.lanes, one.columns) for one in machines] == list(flow.SIZES[:-1])
    assert {one.weight_words for one in machines} == {512}
    assert all(one.requantizers <= big.requantizers for one in machines)
    built = []

    def fake(limit: int):  # type: ignore[no-untyped-def]
        def build(machine, device, folder, **how):  # type: ignore[no-untyped-def]
            assert how["route"] is False
            built.append(machine)
            too_large = machine.lanes * machine.columns > limit
            return flow.Report(
                device=device, part="array", machine=machine, utilization=(), why_not="too large" if too_large else ""
            )

        return build

    for limit, expected in ((10, None), (16, (4, 4)), (128, (16, 8)), (512, (32, 16)), (4096, (64, 32))):
        built.clear()
        monkeypatch.setattr(flow, "build", fake(limit))
        found, tried = flow.largest_that_fits(machines, DEVICES["nexus"], tmp_path, say=lambda line: None)
        assert (None if found is None else (found.lanes, found.columns)) == expected
        assert len(tried) == len(built) <= 4


def test_there_is_no_other_part(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="part must be one of accelerator, array, not 'drain'"):
        flow.build(SMALL, DEVICES["generic"], tmp_path, part="drain")
