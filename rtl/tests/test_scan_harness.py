"""The scan harness: every port bit has a place of its own on the chain, also in the gates that yosys makes of it."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl import synthesis
from rtl.conversion import to_verilog
from rtl.devices import DEVICES
from rtl.scan_harness import TOP, harness, harness_cells
from rtl.tests.mutation import mutant
from rtl.verilog import ports

PORTS = [
    {"name": "rst", "direction": "input", "bits": 1},
    {"name": "a", "direction": "input", "bits": 7},
    {"name": "x", "direction": "output", "bits": 3},
    {"name": "b", "direction": "input", "bits": 2},
    {"name": "y", "direction": "output", "bits": 1},
]

IN_BITS, OUT_BITS = 10, 11

GATES = dataclasses.replace(
    DEVICES["generic"],
    synthesis="synth -flatten -top {top}; dfflegalize -cell $_DFF_P_ 01; techmap; abc -lut 4; opt_clean",
)


class Parities(wiring.Component):
    """Every output bit is the parity of some inputs of one cycle before, no two of the same; all 0 after a reset."""

    def __init__(self) -> None:
        super().__init__({"a": In(7), "x": Out(3), "b": In(2), "y": Out(8)})
        # A triangle with ones on its diagonal: other inputs give other outputs.
        self.masks = [1 << index | index * 37 & (1 << index) - 1 for index in range(9)] + [0b101010101, 0b000011110]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        inputs = Cat(self.a, self.b)
        m.d.sync += Cat(self.x, self.y).eq(Cat((inputs & mask).xor() for mask in self.masks))
        return m

    def outputs(self, inputs: int) -> int:
        """Return x and y, x low, for a and b, a low."""
        return sum((inputs & mask).bit_count() % 2 << bit for bit, mask in enumerate(self.masks))


class Gates:
    """A flat netlist of tables and registers, clock by clock; registers begin with whatever they like."""

    def __init__(self, netlist: Path, chance: random.Random) -> None:
        module = json.loads(netlist.read_text())["modules"][TOP]
        self.ports = {name: port["bits"] for name, port in module["ports"].items()}
        cells = [cell for cell in module["cells"].values() if cell["type"] != "$scopeinfo"]
        assert {cell["type"] for cell in cells} <= {"$lut", "$_DFF_P_"}
        pins = [cell["connections"] for cell in cells if cell["type"] == "$_DFF_P_"]
        self.registers = [(pin["D"][0], pin["Q"][0]) for pin in pins]
        self.tables = {
            cell["connections"]["Y"][0]: (cell["connections"]["A"], int(cell["parameters"]["LUT"], 2))
            for cell in cells
            if cell["type"] == "$lut"
        }
        self.state = {output: chance.getrandbits(1) for _, output in self.registers}

    def clock(self, **inputs: int) -> int:
        """Return ``scan_out`` as it is before the edge, and let the registers take what they are given."""
        known: dict[int | str, int] = {"0": 0, "1": 1, "x": 0, **self.state}
        known |= {self.ports[name][0]: value for name, value in inputs.items()}

        def value(net: int | str) -> int:
            if net not in known:
                wires, table = self.tables[net]  # type: ignore[index]
                known[net] = table >> sum(value(wire) << place for place, wire in enumerate(wires)) & 1
            return known[net]

        out = value(self.ports["scan_out"][0])
        self.state = {output: value(source) for source, output in self.registers}
        return out


def slices(text: str, bus: str) -> list[tuple[str, int, int]]:
    found = re.findall(rf"\.(\w+)\({bus}\[(\d+):(\d+)\]\)", text)
    return [(name, int(high), int(low)) for name, high, low in found]


def test_every_bit_of_every_port_has_a_place_of_its_own() -> None:
    text = harness("design_top", PORTS)
    assert slices(text, "inputs") == [("rst", 0, 0), ("a", 7, 1), ("b", 9, 8)]
    assert slices(text, "outputs") == [("x", 2, 0), ("y", 3, 3)]
    assert "reg [9:0] inputs" in text and "wire [3:0] outputs" in text and "reg [3:0] captured" in text
    assert f"module {TOP}(input clk, " in text and "design_top design(.clk(clk)" in text
    assert harness_cells(PORTS) == (4, 14)


def test_an_oscillator_takes_the_place_of_the_clock_pin() -> None:
    text = harness("design_top", PORTS, "OSC osc(.OUT(clk));")
    assert "input clk" not in text and "wire clk; OSC osc(.OUT(clk));" in text


def check_in_gates(make: Callable[..., str], folder: Path) -> None:
    """Scan inputs in and outputs out: no input bit and no output bit may be another one's, or nobody's."""
    chance = random.Random(5)
    design = Parities()
    described = [{"name": "rst", "direction": "input", "bits": 1}, *ports(design)]
    text = to_verilog(design, "parities") + make("parities", described)
    gates = Gates(synthesis.synthesize(text, TOP, folder, device=GATES), chance)
    # The reset alone, each input alone, and any.
    words = [0, 1, 0b11, *(1 << bit for bit in range(1, IN_BITS)), *(chance.getrandbits(9) << 1 for _ in range(20))]
    words += [word | 1 for word in words[-3:]]
    for word in words:
        for bit in reversed(range(IN_BITS)):
            gates.clock(scan_in=word >> bit & 1, capture=0)
        gates.clock(scan_in=0, capture=0)  # The design's own register.
        gates.clock(scan_in=0, capture=1)
        seen = 0
        for _ in range(OUT_BITS):
            seen = seen << 1 | gates.clock(scan_in=0, capture=0)
        assert seen == (0 if word & 1 else design.outputs(word >> 1)), f"inputs {word:b}"
    marks = [chance.getrandbits(1) for _ in range(60)]
    length = IN_BITS + OUT_BITS
    out = [gates.clock(scan_in=mark, capture=0) for mark in marks]
    assert out[length:] == marks[:-length], "the chain of outputs is not behind that of inputs"


def test_every_port_bit_is_reached_in_gates(tmp_path: Path) -> None:
    check_in_gates(harness, tmp_path)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("low = position[way]", 'low = max(0, position[way] - (way == "input"))'),
        ("for port in ports:\n", "for port in reversed(ports):\n"),
        ("{{captured, inputs[{bits['input'] - 1}]}}", "{{captured, inputs[0]}}"),
        ("capture ? outputs", "capture ? ~outputs"),
    ],
)
def test_a_broken_chain_is_noticed(right: str, wrong: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"inputs [01]+|the chain of outputs"):
        check_in_gates(mutant(harness, right, wrong), tmp_path)
