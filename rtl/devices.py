"""The FPGAs that a machine can be built for: what they have, and what yosys and nextpnr are told for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rtl.targets import ECP5, PORTABLE, Target


@dataclass(frozen=True, kw_only=True)
class Device:
    """One FPGA, or a family for which cells are only counted.

    Parameters
    ----------
    name : str
        As on the command line.
    title : str
        What to call it, with what its figures are.
    synthesis : str
        yosys commands, with ``{top}``; they leave a flat netlist.
    leaves : Target
        What the leaves of the design are made of.
    placer : str
        ``nextpnr-NAME``; empty where there is synthesis only.
    placer_options : tuple of str
    target_mhz : int
        The clock that nextpnr works towards; what it reaches is reported.
    netlist_cells : mapping of str to (mapping of str to int)
        Resource -> regular expression of a cell's type -> how many of the resource such a cell takes; what nextpnr
        does not count.
    placed_cells : mapping of str to str
        Resource -> what nextpnr calls it.
    available : mapping of str to int
        What the device has of the resources that are known before synthesis, where the leaves instantiate cells.
    memory_bits : int
        Bits of all its block RAMs, distributed RAMs and registers, so that no design with larger memories is
        synthesized in vain; 0 where that is not looked at.
    scan_pins : mapping of str to str
        Pins of the scan harness, for a device that cannot do without pins: port -> site, empty for any.
    oscillator : str
        Instance that drives ``clk`` in the scan harness instead of a pin.
    """

    name: str
    title: str
    synthesis: str
    leaves: Target = PORTABLE
    placer: str = ""
    placer_options: tuple[str, ...] = ()
    target_mhz: int = 0
    netlist_cells: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    placed_cells: Mapping[str, str] = field(default_factory=dict)
    available: Mapping[str, int] = field(default_factory=dict)
    memory_bits: int = 0
    scan_pins: Mapping[str, str] = field(default_factory=dict)
    oscillator: str = ""


def _ecp5(size: str, part: str, dsp: int, block_ram: int) -> Device:
    return Device(
        name=f"ecp5-{size}",
        title=f"Lattice ECP5 {part}, speed grade 6, placed and routed without pins",
        synthesis="synth_ecp5 -top {top}",
        leaves=ECP5,
        placer="nextpnr-ecp5",
        placer_options=(f"--{size}", "--speed", "6", "--package", "CABGA381", "--out-of-context"),
        target_mhz=150,
        placed_cells={"lut": "TRELLIS_COMB", "ff": "TRELLIS_FF", "dsp": "MULT18X18D", "block_ram": "DP16KD"},
        available={"dsp": dsp, "block_ram": block_ram},
    )


# Memory cells stay as they are: they count as bits, not as registers.
_GENERIC = "synth -flatten -top {top} -run begin:fine; opt -fast -full; techmap; opt -fast; abc -lut 4; opt_clean"

_XILINX7_LUTS = {
    "LUT[1-6]|INV|SRL16E|SRLC32E": 1,
    "RAM32X1D|RAM64X1D": 2,
    "RAM32M|RAM64M|RAM128X1D": 4,
}

DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        Device(
            name="generic",
            title="no FPGA: 4-input tables and registers after synthesis, memories as bits",
            synthesis=_GENERIC,
            netlist_cells={"lut": {r"\$lut": 1}, "ff": {r"\$_S?DFF(C?E)?_[NP01]+_": 1}},
        ),
        Device(
            name="ice40-up5k",
            title="Lattice iCE40 UP5K, placed and routed in a scan harness",
            synthesis="synth_ice40 -device u -dsp -top {top}",
            placer="nextpnr-ice40",
            placer_options=("--up5k", "--package", "sg48", "--pcf-allow-unconstrained"),
            target_mhz=50,
            netlist_cells={"lut": {"SB_LUT4": 1}, "ff": {"SB_DFF.*": 1}},
            placed_cells={"logic_cell": "ICESTORM_LC", "dsp": "ICESTORM_DSP", "block_ram": "ICESTORM_RAM"},
            memory_bits=30 * 4096 + 5280,
            scan_pins={"clk": "", "scan_in": "", "capture": "", "scan_out": ""},
        ),
        _ecp5("25k", "LFE5U-25F", 28, 56),
        _ecp5("45k", "LFE5U-45F", 72, 108),
        _ecp5("85k", "LFE5U-85F", 156, 208),
        Device(
            name="nexus",
            title="Lattice CrossLink-NX LIFCL-40, speed grade 9, placed and routed in a scan harness",
            synthesis="synth_nexus -top {top}",
            placer="nextpnr-nexus",
            placer_options=("--device", "LIFCL-40-9BG400C"),
            target_mhz=200,
            placed_cells={"lut": "OXIDE_COMB", "ff": "OXIDE_FF", "dsp": "MULT18_CORE", "block_ram": "OXIDE_EBR"},
            memory_bits=84 * 18432 + 2 * 524288 + 4032 * 64 + 32256,
            scan_pins={"scan_in": "F13", "capture": "G13", "scan_out": "E17"},
            oscillator='OSCA #(.HF_CLK_DIV("1")) oscillator(.HFOUTEN(1\'b1), .HFCLKOUT(clk));',
        ),
        Device(
            name="xilinx7",
            title="AMD 7 series, cells after synthesis only: nothing placed, no clock; block RAMs of 18 Kbit",
            synthesis="synth_xilinx -family xc7 -flatten -noiopad -noclkbuf -top {top}",
            netlist_cells={
                "lut": _XILINX7_LUTS,
                "ff": {"FD[RSCP]E(_1)?": 1},
                "dsp": {"DSP48E1": 1},
                "block_ram": {"RAMB18E1": 1, "RAMB36E1": 2},
            },
        ),
    )
}
"""Devices by the names of the command line."""
