# amaranth: UnusedElaboratable=no
"""Receiver and transmitter of the serial line, bit by bit."""

import pytest

from rtl.board.uart_receiver import UartReceiver
from rtl.board.uart_transmitter import UartTransmitter
from rtl.tests import simulate
from rtl.tests.mutation import mutant


def line_of(data, bit_cycles, stop=1, idle=0.0):
    """Return the (level, cycles) of one byte, cycles not rounded."""
    bits = [0, *(data >> at & 1 for at in range(8)), stop]
    return [(bit, bit_cycles) for bit in bits] + [(1, idle)]


def received(component, pieces):
    """Play (level, cycles) pieces; return the bytes that came, None for a framing error."""
    came = []

    async def process(context):
        context.set(component.line, 1)
        edge, cycle = 8.0, 0
        for level, cycles in [(1, 8.0), *pieces, (1, 40.0)]:
            edge += cycles
            context.set(component.line, level)
            while cycle < edge:
                if context.get(component.valid):
                    came.append(context.get(component.data))
                if context.get(component.framing_error):
                    came.append(None)
                await context.tick()
                cycle += 1

    simulate.run(component, process)
    return came


@pytest.mark.parametrize("cycles_per_bit", [4, 5, 25])
@pytest.mark.parametrize("stretch", [0.97, 1.0, 1.03])
def test_every_byte_is_received_with_clocks_that_differ(cycles_per_bit, stretch):
    if cycles_per_bit < 25 and stretch != 1.0:
        stretch = 1 + (stretch - 1) * 0.5
    values = [*range(256)] if cycles_per_bit < 25 else [0, 255, 0x55, 0xAA, 0xC0, 1, 128]
    pieces = [piece for value in values for piece in line_of(value, cycles_per_bit * stretch)]
    assert received(UartReceiver(cycles_per_bit), pieces) == values


BROKEN = [*line_of(0x5A, 8, stop=0, idle=20), *line_of(0x12, 8, idle=5), (0, 3), (1, 30), *line_of(0x34, 8)]
BREAK = [(0, 300), (1, 20), *line_of(0x99, 8)]


def test_what_is_no_byte():
    # A stop bit that is low; a start bit that is too short; a line that stays low.
    assert received(UartReceiver(8), BROKEN) == [None, 0x12, 0x34]
    assert received(UartReceiver(8), BREAK) == [None, 0x99]


@pytest.mark.parametrize(
    ("right", "wrong", "pieces", "expected"),
    [
        ("self.framing_error.eq(~line)", "self.framing_error.eq(0)", BROKEN, [None, 0x12, 0x34]),
        ("self.valid.eq(line)", "self.valid.eq(1)", BROKEN, [None, 0x12, 0x34]),
        ('m.next = "high"', 'm.next = "start"', BREAK, [None, 0x99]),
        ("self.cycles_per_bit // 2 - 1", "self.cycles_per_bit - 1", line_of(0x35, 7.76), [0x35]),
    ],
    ids=["no framing error", "valid without a stop bit", "does not wait for high", "samples at the edge"],
)
def test_a_wrong_receiver_is_caught(right, wrong, pieces, expected):
    assert received(UartReceiver(8), pieces) == expected
    assert received(mutant(UartReceiver, right, wrong)(8), pieces) != expected


def transmitted(component, data, gaps):
    """Return the level of the line in every cycle, and the cycles in which bytes were taken."""
    levels, taken = [], []

    async def process(context):
        rest = list(zip(data, gaps, strict=True))
        wait = rest[0][1]
        for cycle in range((len(data) * 10 + 4) * component.cycles_per_bit + sum(gaps)):
            context.set(component.i.valid, bool(rest) and wait == 0)
            context.set(component.i.payload, rest[0][0] if rest else 0)
            levels.append(context.get(component.line))
            if rest and wait == 0 and context.get(component.i.ready):
                taken.append(cycle)
                rest.pop(0)
                wait = rest[0][1] if rest else 0
            elif wait:
                wait -= 1
            await context.tick()

    simulate.run(component, process)
    return levels, taken


def decode(levels, cycles_per_bit):
    """Return the bytes on a line, which must be whole bits long."""
    values, at = [], 0
    while at < len(levels):
        if levels[at]:
            at += 1
            continue
        bits = []
        for bit in range(10):
            span = levels[at + bit * cycles_per_bit : at + (bit + 1) * cycles_per_bit]
            assert len(set(span)) == 1, "a bit must last as long as a bit"
            bits.append(span[0])
        assert bits[0] == 0 and bits[9] == 1
        values.append(sum(bit << at for at, bit in enumerate(bits[1:9])))
        at += 10 * cycles_per_bit
    return values


@pytest.mark.parametrize("cycles_per_bit", [4, 7])
def test_every_byte_is_transmitted(cycles_per_bit):
    data = [*range(256), 0xC0, 0xDB]
    gaps = [0] * 250 + [1, 2, 3, 100, 0, 0, 0, 5]
    levels, taken = transmitted(UartTransmitter(cycles_per_bit), data, gaps)
    assert levels[0] == 1 and decode(levels, cycles_per_bit) == data
    # Back to back: no cycle between two bytes.
    assert taken[249] - taken[0] == 249 * 10 * cycles_per_bit


def test_a_wrong_transmitter_is_caught():
    wrong = mutant(UartTransmitter, "(left == 1) & bit_end", "left == 1")
    with pytest.raises(AssertionError):
        assert decode(transmitted(wrong(5), [1, 2, 3], [0] * 3)[0], 5) == [1, 2, 3]


@pytest.mark.parametrize("cycles_per_bit", [3, (1 << 16) + 1])
def test_bits_must_be_long_enough(cycles_per_bit):
    for component in (UartReceiver, UartTransmitter):
        with pytest.raises(ValueError, match="cycles per bit"):
            component(cycles_per_bit)
