# amaranth: UnusedElaboratable=no
"""Boards: pins as their makers say, and the clock's division to a baud rate."""

import sys

import pytest

from hwsim.machine import Machine
from hwsim.precision import CATALOG
from rtl.board import boards
from rtl.board.top import BoardTop

WIDTHS = CATALOG["8-6-4-2"]


def test_the_pins_of_the_ulx3s():
    # From the schematic of the ULX3S: 25 MHz at G2, ftdi_txd at M1, ftdi_rxd at L4, FIRE 1 at R1.
    board = boards.board("ulx3s-85f")
    sites = {pin.port: pin.site for pin in board.pins}
    assert (sites["clock"], sites["uart_rx"], sites["uart_tx"], sites["button"]) == ("G2", "M1", "L4", "R1")
    assert (board.device, board.package, board.speed, board.clock_hz) == ("85k", "CABGA381", "6", 25_000_000)
    assert all(pin.attributes["IO_TYPE"] == "LVCMOS33" for pin in board.pins)
    assert {pin.port: pin.attributes.get("PULLMODE") for pin in board.pins}["button"] == "DOWN"


@pytest.mark.parametrize("name", boards.NAMES)
def test_every_port_has_a_pin_of_its_own(name):
    board = boards.board(name)
    ports = list(BoardTop(Machine.sized(WIDTHS, WIDTHS, 4, 8), 4, 16).signature.members)
    assert [pin.port for pin in board.pins] == ports
    assert len({pin.site for pin in board.pins}) == len(ports)
    text = board.constraints()
    assert all(f'LOCATE COMP "{pin.port}" SITE "{pin.site}";' in text for pin in board.pins)
    assert 'FREQUENCY PORT "clock" 25000000 HZ;' in text


@pytest.mark.parametrize(
    ("baud", "cycles"), [(1_000_000, 25), (115_200, 217), (3_125_000, 8), (6_250_000, 4), (382, 65445)]
)
def test_cycles_of_a_bit(baud, cycles):
    assert boards.board("ulx3s-85f").cycles_per_bit(baud) == cycles


@pytest.mark.parametrize(
    ("baud", "said"),
    [
        (0, "382 .. 6250000, not 0"),
        (381, "382 .. 6250000, not 381"),
        (7_200_000, "not 7200000"),
        (4_500_000, "7.4 % off"),
    ],
)
def test_baud_rates_that_the_clock_cannot_make(baud, said):
    with pytest.raises(ValueError, match=said):
        boards.board("ulx3s-85f").cycles_per_bit(baud)


def test_an_unknown_board():
    with pytest.raises(ValueError, match=r"board must be one of ulx3s-12f, .*, not 'arty'"):
        boards.board("arty")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "amaranth_boards.ulx3s", None)
    with pytest.raises(ModuleNotFoundError, match="amaranth_boards"):
        boards.board("ulx3s-85f")
