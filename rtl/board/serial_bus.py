"""``rtl.driver.Bus`` over a serial line, for the driver of any board with the host link.

    driver = AcceleratorDriver(SerialBus(SerialPort("/dev/ttyUSB0", baud)))

See ``rtl.board.link_protocol``. A request that is not answered is sent again, so broken bytes cost time only.
"""

from __future__ import annotations

import importlib
import secrets
import struct
import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtl.board import link_protocol
from rtl.board.link_protocol import Operation, Status
from rtl.driver import BusError

ATTEMPTS = 8
"""How often a request is sent before the link is given up."""

TIMEOUT_S = 0.25
"""For an answer, beyond the time that its bytes take: longer than the patience of the link and the delays of USB."""

STALL_TIMEOUT_S = 60.0
"""For the machine to take some of a program or an image."""

BITS_PER_BYTE = 10

ANSWER_DATA_BYTES: dict[int, int] = {Operation.READ: 4, Operation.RESULT: 4 * link_protocol.ANSWER_WORDS_MAX}
"""At most, of the operations that have any."""


class LinkError(BusError):
    """The board does not answer."""


class Transport(Protocol):
    """Bytes to and from a board."""

    @property
    def baud(self) -> int:
        """Bits a second."""

    def write(self, data: bytes) -> None:
        """Begin to send bytes; may return before they are sent."""

    def read(self, timeout_s: float) -> bytes:
        """Return what has come since, at least one byte, or nothing after the timeout."""

    def discard(self) -> None:
        """Drop what has come and was not read."""

    def now_s(self) -> float:
        """Return the time, for timeouts."""


class SerialPort:
    """Serial port of the operating system, by pyserial.

    Parameters
    ----------
    name : str
        Such as ``/dev/ttyUSB0``, or ``loop://`` and other URLs of pyserial.
    baud : int

    Raises
    ------
    ModuleNotFoundError
        If pyserial is not installed.
    OSError
        If the port cannot be opened.
    """

    def __init__(self, name: str, baud: int) -> None:
        try:
            serial = importlib.import_module("serial")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "a serial port needs the Python package pyserial: pip install 'bitswitch[board]'", name="serial"
            ) from error
        self._port: Any = serial.serial_for_url(name, baudrate=baud, timeout=0)
        self.baud = baud

    def write(self, data: bytes) -> None:
        """See ``Transport``."""
        self._port.write(data)

    def read(self, timeout_s: float) -> bytes:
        """See ``Transport``."""
        self._port.timeout = timeout_s
        first = self._port.read(1)
        return bytes(first + self._port.read(self._port.in_waiting)) if first else b""

    def discard(self) -> None:
        """See ``Transport``."""
        self._port.reset_input_buffer()

    def now_s(self) -> float:
        """See ``Transport``."""
        return time.monotonic()

    def close(self) -> None:
        """Give the port back."""
        self._port.close()


@dataclass(frozen=True)
class Answer:
    """What the link answered to one request.

    Parameters
    ----------
    status : int
        Bits of ``Status``.
    broken_frames : int
        Frames that the board dropped since reset, modulo 256.
    count : int
        Bytes taken.
    data : bytes
    """

    status: int
    broken_frames: int
    count: int
    data: bytes

    def has(self, bit: Status) -> bool:
        """Return whether a bit of the status is set."""
        return bool(self.status >> bit & 1)


class SerialBus:
    """``rtl.driver.Bus`` over the host link. Everything has been done when a method returns, ``send_image`` too.

    Parameters
    ----------
    transport : Transport
    timeout_s : float
        For an answer, beyond the time that its bytes take.
    part_bytes : int
        Bytes of a program or an image sent at once, a multiple of 4; fewer lose less where bytes break often.

    Raises
    ------
    ValueError
        If the parts are too small or too large.
    LinkError
        Also from every method: if the board does not answer.
    """

    def __init__(
        self, transport: Transport, timeout_s: float = TIMEOUT_S, part_bytes: int = link_protocol.ARGUMENT_BYTES_MAX
    ) -> None:
        if part_bytes % 4 or not 4 <= part_bytes <= link_protocol.ARGUMENT_BYTES_MAX:
            raise ValueError(
                f"part_bytes must be a multiple of 4, 4 .. {link_protocol.ARGUMENT_BYTES_MAX}, not {part_bytes}"
            )
        self.repeated = 0
        self.answer: Answer | None = None
        self._transport = transport
        self._timeout_s = timeout_s
        self._part_bytes = part_bytes
        self._deframer = link_protocol.Deframer()
        self._words: list[int] = []
        # A board that last answered this number to another host answers it again, so a request that does nothing is
        # first.
        self._sequence = secrets.randbelow(link_protocol.SEQUENCES)
        transport.discard()
        self.request(Operation.STATUS)

    def read(self, address: int) -> int:
        """See ``rtl.driver.Bus``."""
        answer = self.request(Operation.READ, struct.pack("<H", address))
        if answer.has(Status.SLVERR):
            raise BusError(f"reading address 0x{address:x}: SLVERR")
        return int.from_bytes(answer.data, "little")

    def write(self, address: int, value: int) -> None:
        """See ``rtl.driver.Bus``."""
        if self.request(Operation.WRITE, struct.pack("<HI", address, value)).has(Status.SLVERR):
            raise BusError(f"writing address 0x{address:x}: SLVERR")

    def send_program(self, words: NDArray[np.uint32]) -> None:
        """See ``rtl.driver.Bus``."""
        self._send(Operation.LOAD, words.astype("<u4").tobytes())

    def send_image(self, pixels: bytes) -> None:
        """See ``rtl.driver.Bus``."""
        self._send(Operation.IMAGE, pixels, Operation.IMAGE_END)

    def receive_result(self) -> NDArray[np.int32]:
        """See ``rtl.driver.Bus``."""
        while True:
            answer = self.request(Operation.RESULT)
            self._words += np.frombuffer(answer.data, dtype="<i4").tolist()
            if answer.has(Status.RESULT_END):
                result = np.array(self._words, dtype=np.int32)
                self._words = []
                return result

    def wait_interrupt(self) -> None:
        """See ``rtl.driver.Bus``."""
        while not self.request(Operation.STATUS).has(Status.INTERRUPT):
            pass

    def abort(self) -> None:
        """See ``rtl.driver.Bus``."""
        self._words = []

    def request(self, operation: int, arguments: bytes = b"") -> Answer:
        """Send a request until it is answered, and return the answer.

        Raises
        ------
        LinkError
            If it is not answered, or the board does not know it.
        """
        self._sequence = (self._sequence + 1) % link_protocol.SEQUENCES
        frame = link_protocol.frame(bytes([self._sequence, operation]) + arguments)
        for attempt in range(ATTEMPTS):
            self.repeated += attempt > 0
            self._transport.write(frame)
            self.answer = self._answer(len(frame), operation)
            if self.answer is not None:
                if self.answer.has(Status.REFUSED):
                    raise LinkError(f"the board does not know the request {operation} with {len(arguments)} bytes")
                return self.answer
        raise LinkError(f"the board does not answer: sent {ATTEMPTS} times at {self._transport.baud} bits a second")

    def _answer(self, sent_bytes: int, operation: int) -> Answer | None:
        # Escaping doubles an answer at worst.
        body_bytes = link_protocol.ANSWER_HEADER_BYTES + ANSWER_DATA_BYTES.get(operation, 0) + link_protocol.CRC_BYTES
        longest = sent_bytes + 2 * body_bytes + 2
        end_s = self._transport.now_s() + self._timeout_s + longest * BITS_PER_BYTE / self._transport.baud
        while (left_s := end_s - self._transport.now_s()) > 0:
            for body in self._deframer.feed(self._transport.read(left_s)):
                if len(body) >= link_protocol.ANSWER_HEADER_BYTES and body[0] == self._sequence:
                    status, broken, count = struct.unpack_from("<BBH", body, 1)
                    return Answer(status, broken, count, body[link_protocol.ANSWER_HEADER_BYTES :])
        return None

    def _send(self, operation: Operation, data: bytes, end_operation: Operation | None = None) -> None:
        at, moved_s = 0, self._transport.now_s()
        while at < len(data):
            part = data[at : at + self._part_bytes]
            is_end = at + len(part) == len(data) and end_operation is not None
            count = self.request(end_operation if is_end else operation, part).count
            at, now_s = at + count, self._transport.now_s()
            if count:
                moved_s = now_s
            elif now_s - moved_s > STALL_TIMEOUT_S:
                raise LinkError(f"the machine took {at} of {len(data)} bytes and then none for {STALL_TIMEOUT_S:.0f} s")
