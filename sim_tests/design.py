"""From an Amaranth component to Verilog and its ports, ready for the wrapper."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sim_tests.wrapper import Port, ports_of

if TYPE_CHECKING:
    from amaranth.hdl import Signal

    from rtl.targets import Target


@dataclass(frozen=True)
class Design:
    """Verilog of one module and its ports.

    Parameters
    ----------
    name : str
        Module name.
    verilog : str
    ports : tuple of Port
        All but clock and reset.
    """

    name: str
    verilog: str
    ports: tuple[Port, ...]

    @property
    def has_clock(self) -> bool:
        """Whether the module has the port ``clk``."""
        return self._has_port("clk")

    @property
    def has_reset(self) -> bool:
        """Whether the module has the port ``rst``."""
        return self._has_port("rst")

    def _has_port(self, name: str) -> bool:
        module = re.search(rf"^module \\?{re.escape(self.name)}\s*\((.*?)\);", self.verilog, re.S | re.M)
        if module is None:
            raise ValueError(f"the Verilog must have a module {self.name}")
        return name in re.findall(r"\w+", module.group(1))

    def port(self, name: str) -> Port:
        """Return a port by name, or raise ``ValueError``."""
        for port in self.ports:
            if port.name == name:
                return port
        raise ValueError(f"{self.name} has no port {name!r}")

    def mutated(self, old: str, new: str, count: int = 1) -> Design:
        """Return the design with ``old`` replaced by ``new`` in its Verilog, to show that a test notices.

        Raises
        ------
        ValueError
            If the text is not there exactly ``count`` times.
        """
        if self.verilog.count(old) != count:
            raise ValueError(f"{old!r} must be in the Verilog {count} times, not {self.verilog.count(old)}")
        return replace(self, verilog=self.verilog.replace(old, new))


def from_component(  # type: ignore[no-untyped-def]
    component, name: str, extra_inputs: Sequence[Signal] = (), target: Target | None = None
) -> Design:
    """Return the Verilog and the ports of an Amaranth component.

    Parameters
    ----------
    component : amaranth.lib.wiring.Component
    name : str
        Module name.
    extra_inputs : sequence of Signal
        Undriven signals used inside that become input ports too.
    target : rtl.targets.Target, optional
        What it is elaborated for; portable logic if not given.
    """
    from amaranth.hdl import Value

    from rtl.conversion import to_verilog

    values = [Value.cast(value) for _, _, value in component.signature.flatten(component)]
    text = to_verilog(component, name, target=target, ports=[*values, *extra_inputs])
    extra = [Port(signal.name, "input", len(signal)) for signal in extra_inputs]
    return Design(name, with_memory_loops(checked(name, text)), (*ports_of(component), *extra))


def checked(name: str, verilog: str) -> str:
    """Return Verilog as it is, or raise ``ValueError`` if a signal has no bits, which makes it two."""
    found = re.search(r"^.*\[-1:0\].*$", verilog, re.M)
    if found is not None:
        raise ValueError(f"{name} must have no signal without bits, as {found.group(0).strip()}")
    return verilog


def with_memory_loops(verilog: str) -> str:
    """Return Verilog in which a run of ``memory[0] = 0; memory[1] = 0; ...`` is a loop: it compiles much faster."""

    def loop(run: re.Match[str]) -> str:
        lines = run.group(0).splitlines()
        indent, memory, value = ENTRY.match(lines[0]).group(1, 2, 4)  # type: ignore[union-attr]
        addresses = [int(ENTRY.match(line).group(3)) for line in lines]  # type: ignore[union-attr]
        if addresses != list(range(len(lines))) or len({ENTRY.match(line).group(2) for line in lines}) != 1:  # type: ignore[union-attr]
            return run.group(0)
        return f"{indent}for (integer at = 0; at < {len(lines)}; at = at + 1) {memory}[at] = {value};\n"

    return re.sub(r"(?:^ +\w+\[\d+\] = \d+'[hd]0+;\n){2,}", loop, verilog, flags=re.M)


ENTRY = re.compile(r"( +)(\w+)\[(\d+)\] = (\d+'[hd]0+);")
"""One line of a memory's initial block, for a word that starts as zero."""


def side_by_side(designs: Sequence[Design], name: str = "side_by_side") -> Design:
    """Return one design in which all of ``designs`` get the same inputs; outputs of the i-th are called ``x_i``.

    So a right design and its mutants are built and run as one.

    Raises
    ------
    ValueError
        If the ports differ, or two designs share a module's name.
    """
    first = designs[0]
    names = [design.name for design in designs]
    if len(set(names)) != len(names):
        raise ValueError(f"designs side by side must have different names, not {names}")
    for design in designs:
        if design.ports != first.ports:
            raise ValueError(f"designs side by side must have the same ports, but those of {design.name} differ")
    inputs = [port for port in first.ports if port.direction == "input"]
    outputs = [port for port in first.ports if port.direction == "output"]
    ports = [*inputs]
    header, instances = ["input clk", "input rst"], []
    header += [f"input [{port.bits - 1}:0] {port.name}" for port in inputs]
    for index, design in enumerate(designs):
        connected = ["clk"] * design.has_clock + ["rst"] * design.has_reset + [port.name for port in inputs]
        connections = [f".{port}({port})" for port in connected]
        for port in outputs:
            own = replace(port, name=f"{port.name}_{index}")
            ports.append(own)
            header.append(f"output [{own.bits - 1}:0] {own.name}")
            connections.append(f".{port.name}({own.name})")
        instances.append(f"  {design.name} dut_{index}({', '.join(connections)});")
    top = "\n".join([f"module {name}({', '.join(header)});", *instances, "endmodule", ""])
    return Design(name, "\n".join([*(design.verilog for design in designs), top]), tuple(ports))
