"""The host's end of the link against a model of the board's in Python, on a line that loses and breaks bytes."""

import random
import struct
import sys

import numpy as np
import pytest

from rtl.board import link_protocol, serial_bus
from rtl.board.link_protocol import ARGUMENT_BYTES, Deframer, Operation, Status, frame
from rtl.board.serial_bus import LinkError, SerialBus, SerialPort
from rtl.driver import BusError

STREAMS = (Operation.LOAD, Operation.IMAGE, Operation.IMAGE_END)


class Board:
    """A transport with a board behind it, that executes requests as ``rtl.board.link_protocol`` says.

    Registers 0x00 .. 0xFC exist. ``taken_max`` is what LOAD and IMAGE take at once.
    """

    baud = 1_000_000

    def __init__(self, error_rate=0.0, seed=0, taken_max=10_000, results=(), last_sequence=None):
        self.error_rate, self.rng, self.taken_max = error_rate, random.Random(seed), taken_max
        self.results = list(results)
        self.registers, self.streams, self.interrupts = {}, [], 0
        self.executed, self.broken, self.clock_s = [], 0, 0.0
        self.last = last_sequence, bytes(link_protocol.ANSWER_HEADER_BYTES - 1)
        self.deframer, self.line = Deframer(), bytearray()

    def now_s(self):
        return self.clock_s

    def discard(self):
        self.line.clear()

    def read(self, timeout_s):
        if not self.line:
            self.clock_s += timeout_s
        self.clock_s += 1e-4
        data = bytes(self.line)
        self.line.clear()
        return data

    def write(self, data):
        for body in self.deframer.feed(self.disturbed(data)):
            sequence, operation = body[:2]
            if sequence != self.last[0]:
                self.last = sequence, self.execute(operation, body[2:])
            self.line += self.disturbed(frame(bytes([sequence]) + self.last[1]))

    def disturbed(self, data):
        out = bytearray()
        for byte in data:
            kind = self.rng.choice(("flip", "lose", "add")) if self.rng.random() < self.error_rate else None
            out += bytes([byte ^ 4]) if kind == "flip" else b"" if kind == "lose" else bytes([byte])
            out += b"\xc0" if kind == "add" else b""
        return bytes(out)

    def execute(self, operation, arguments):
        self.executed.append((operation, arguments))
        status, count, data = 0, 0, b""
        self.interrupts += 1
        if operation not in {*ARGUMENT_BYTES, *STREAMS} or len(arguments) != ARGUMENT_BYTES.get(
            operation, len(arguments)
        ):
            status |= 1 << Status.REFUSED
        elif operation in (Operation.READ, Operation.WRITE):
            (address,) = struct.unpack_from("<H", arguments)
            if address > 0xFC:
                status |= 1 << Status.SLVERR
            elif operation == Operation.READ:
                data = struct.pack("<I", self.registers.get(address, 0))
            else:
                (self.registers[address],) = struct.unpack_from("<I", arguments, 2)
        elif operation in STREAMS:
            count = min(len(arguments), self.taken_max)
            is_end = operation == Operation.IMAGE_END and count == len(arguments)
            self.streams.append((operation == Operation.LOAD, arguments[:count], is_end))
        elif operation == Operation.RESULT and self.results:
            words, is_end = self.results.pop(0)
            data, status = np.array(words, dtype="<i4").tobytes(), is_end << Status.RESULT_END
        status |= (self.interrupts > 5) << Status.INTERRUPT
        return struct.pack("<BBH", status, self.broken, count) + data


def use(board, **options):
    """Do everything that the driver does; return what it saw."""
    bus = SerialBus(board, **options)
    bus.write(0x90, 0xC0DBDCDD)
    seen = [bus.read(0x90), bus.read(0x94)]
    words = np.arange(1500, dtype=np.uint32) * np.uint32(2654435761)
    bus.send_program(words)
    pixels = bytes(at % 256 for at in range(5000))
    bus.send_image(pixels)
    bus.wait_interrupt()
    seen.append(bus.receive_result().tolist())
    for access in (lambda: bus.read(0x100), lambda: bus.write(0x100, 1)):
        with pytest.raises(BusError, match="address 0x100: SLVERR"):
            access()
    loaded = b"".join(part for is_load, part, _ in board.streams if is_load)
    image = b"".join(part for is_load, part, _ in board.streams if not is_load)
    ends = [is_end for is_load, _, is_end in board.streams if not is_load]
    assert loaded == words.astype("<u4").tobytes() and image == pixels
    assert ends == [False] * (len(ends) - 1) + [True]
    return seen, bus


RESULTS = [((), False), ((1, -2), False), ((3,), True)]
SEEN = [0xC0DBDCDD, 0, [1, -2, 3]]


@pytest.mark.parametrize("taken_max", [10_000, 700, 4])
def test_everything_arrives_once(taken_max):
    board = Board(taken_max=taken_max, results=RESULTS)
    seen, bus = use(board)
    assert seen == SEEN and bus.repeated == 0


@pytest.mark.parametrize("seed", range(5))
def test_everything_arrives_once_on_a_bad_line(seed):
    board = Board(error_rate=0.003, seed=seed, results=RESULTS)
    seen, bus = use(board, part_bytes=64)
    assert seen == SEEN and bus.repeated > 0


def test_the_number_that_another_host_ended_with():
    """The first request may be taken for a repeated one, so it does nothing."""
    for last in range(link_protocol.SEQUENCES):
        board = Board(last_sequence=last)
        bus = SerialBus(board)
        bus.write(4, 7)
        assert bus.read(4) == 7


def test_nobody_answers():
    board = Board(error_rate=1.0)
    with pytest.raises(LinkError, match="the board does not answer: sent 8 times at 1000000 bits a second"):
        SerialBus(board)


def test_the_machine_takes_nothing():
    board = Board(taken_max=0)
    bus = SerialBus(board)
    answer = board.read

    def slowly(timeout_s):
        board.clock_s += 1.0
        return answer(timeout_s)

    board.read = slowly
    with pytest.raises(LinkError, match="the machine took 0 of 8 bytes and then none for 60 s"):
        bus.send_image(bytes(8))


def test_a_request_that_does_not_exist():
    with pytest.raises(LinkError, match="the board does not know the request 9 with 2 bytes"):
        SerialBus(Board()).request(9, b"ab")


@pytest.mark.parametrize("part_bytes", [0, 6, 2048])
def test_sizes_of_parts(part_bytes):
    with pytest.raises(ValueError, match=f"part_bytes must be a multiple of 4, 4 .. 2044, not {part_bytes}"):
        SerialBus(Board(), part_bytes=part_bytes)


def test_a_reset_forgets_the_words_of_a_result():
    board = Board(results=[((5,), False), ((6,), True)])
    bus = SerialBus(board)
    bus._words = [4]
    bus.abort()
    assert bus.receive_result().tolist() == [5, 6]


def test_the_serial_port_of_the_system():
    pytest.importorskip("serial")
    port = SerialPort("loop://", 1_000_000)
    port.write(b"abc")
    assert port.read(1.0) == b"abc" and port.read(0.01) == b""
    port.write(b"abc")
    port.discard()
    assert port.read(0.01) == b""
    assert port.now_s() <= port.now_s()
    port.close()


def test_without_pyserial(monkeypatch):
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"needs the Python package pyserial: pip install 'bitswitch\[board\]'"
    ):
        SerialPort("/dev/ttyUSB0", 1_000_000)


def test_a_port_that_is_not_there():
    pytest.importorskip("serial")
    with pytest.raises(OSError, match="no/such/port"):
        SerialPort("/no/such/port", 1_000_000)


def test_a_host_that_does_not_repeat_is_caught(monkeypatch):
    monkeypatch.setattr(serial_bus, "ATTEMPTS", 1)
    with pytest.raises(LinkError):
        use(Board(error_rate=0.003, results=RESULTS), part_bytes=64)
