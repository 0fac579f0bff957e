"""Boards that a bitstream can be made for: their FPGA, clock and pins, from the package amaranth-boards."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from rtl.board.uart_receiver import CYCLES_PER_BIT_MAX, CYCLES_PER_BIT_MIN

NAMES = {
    f"ulx3s-{size}f": ("amaranth_boards.ulx3s", f"ULX3S_{size.upper()}F_Platform") for size in ("12", "25", "45", "85")
}
"""Name on the command line -> module and class that describe the board."""

DEVICES = {"LFE5U-12F": "12k", "LFE5U-25F": "25k", "LFE5U-45F": "45k", "LFE5U-85F": "85k"}
PACKAGES = {"BG381": "CABGA381"}
"""Name in the description -> nextpnr's."""

RESOURCES = {
    "clock": ("clk25", 0, None),
    "button": ("button_fire", 0, None),
    "uart_rx": ("uart", 0, "rx"),
    "uart_tx": ("uart", 0, "tx"),
    "light_alive": ("led", 0, None),
    "light_answered": ("led", 1, None),
    "light_broken": ("led", 2, None),
    "esp32_boot": ("esp32", 0, "gpio0"),
}
"""Port of ``BoardTop`` -> resource, its number and the part of it."""


@dataclass(frozen=True)
class Pin:
    """Where a port of one bit is.

    Parameters
    ----------
    port : str
    site : str
        Ball of the package.
    attributes : mapping of str to str
        Of the input or output buffer.
    """

    port: str
    site: str
    attributes: Mapping[str, str]


@dataclass(frozen=True)
class Board:
    """What nextpnr must know of a board.

    Parameters
    ----------
    name : str
    device, package, speed : str
        As nextpnr calls them.
    clock_hz : int
        Of the oscillator at port ``clock``.
    pins : tuple of Pin
    """

    name: str
    device: str
    package: str
    speed: str
    clock_hz: int
    pins: tuple[Pin, ...]

    def constraints(self) -> str:
        """Return the constraints in Lattice's preference language (LPF)."""
        lines = ["BLOCK ASYNCPATHS;", "BLOCK RESETPATHS;"]
        for pin in self.pins:
            lines.append(f'LOCATE COMP "{pin.port}" SITE "{pin.site}";')
            attributes = " ".join(f"{name}={value}" for name, value in pin.attributes.items())
            lines.append(f'IOBUF PORT "{pin.port}" {attributes};')
        lines.append(f'FREQUENCY PORT "clock" {self.clock_hz} HZ;')
        return "\n".join([*lines, ""])

    def cycles_per_bit(self, baud: int) -> int:
        """Return the clock cycles of a bit.

        Raises
        ------
        ValueError
            If the clock cannot make this rate within 1.5 %.
        """
        slowest, fastest = -(-self.clock_hz // CYCLES_PER_BIT_MAX), self.clock_hz // CYCLES_PER_BIT_MIN
        if not slowest <= baud <= fastest:
            raise ValueError(f"baud must be {slowest} .. {fastest}, not {baud}")
        cycles = round(self.clock_hz / baud)
        error = self.clock_hz / cycles / baud - 1
        if abs(error) > 0.015:
            raise ValueError(
                f"baud must be within 1.5 % of {self.clock_hz} Hz divided by a whole number, not {baud}, which is "
                f"{100 * abs(error):.1f} % off"
            )
        return cycles


def board(name: str) -> Board:
    """Return a board.

    Raises
    ------
    ValueError
        If there is no such board.
    ModuleNotFoundError
        If the package amaranth-boards is not installed.
    """
    if name not in NAMES:
        raise ValueError(f"board must be one of {', '.join(NAMES)}, not {name!r}")
    module, described = NAMES[name]
    platform = getattr(importlib.import_module(module), described)
    resources = {(resource.name, resource.number): resource for resource in platform.resources}
    pins = tuple(_pin(port, resources[key, number], part) for port, (key, number, part) in RESOURCES.items())
    clock = resources[platform.default_clk, 0]
    if RESOURCES["clock"][0] != platform.default_clk:
        raise ValueError(f"the clock of {name} must be {RESOURCES['clock'][0]}, not {platform.default_clk}")
    return Board(
        name=name,
        device=DEVICES[platform.device],
        package=PACKAGES[platform.package],
        speed=platform.speed,
        clock_hz=round(clock.clock.frequency),
        pins=pins,
    )


def _pin(port: str, resource, part: str | None) -> Pin:  # type: ignore[no-untyped-def]
    attributes = dict(resource.attrs)
    ios = resource.ios
    if part is not None:
        (chosen,) = [io for io in ios if getattr(io, "name", None) == part]
        ios = chosen.ios
        attributes |= dict(chosen.attrs)
    (site,) = ios[0].names
    if ios[0].invert:
        raise ValueError(f"the pin of {port} must not be inverted")
    return Pin(port, site, {name: str(value) for name, value in attributes.items()})
