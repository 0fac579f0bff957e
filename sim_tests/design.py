"""From an Amaranth component to Verilog and its ports, ready for the wrapper."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from sim_tests.wrapper import Port, ports_of


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


def from_component(component, name: str) -> Design:  # type: ignore[no-untyped-def]
    """Return the Verilog and the ports of an Amaranth component."""
    from amaranth.back import verilog

    text = verilog.convert(component, name=name, strip_internal_attrs=True)
    return Design(name, text, tuple(ports_of(component)))
