"""Run networks on the AXI form of the accelerator, from any computer that reaches its bus.

The driver is plain blocking Python and knows nothing of the bus but ``Bus``: implement that with a memory map and DMA,
PCIe, or a simulator, as the testbench does.

    driver = AcceleratorDriver(bus)
    driver.load(LoadableProgram.from_program(program))
    driver.select("W4A4")
    logits = driver.run(images)
    driver.counters().cycles
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hwsim import spec
from rtl.bus import register_map
from rtl.loadable import LoadableProgram

IMAGES_AHEAD = register_map.IMAGES_WAITING_MAX
"""Images under way at once: enough to hide receiving and laying out, and what the hardware holds."""

OUTSTANDING_MAX = register_map.COMMAND_QUEUE_DEPTH


class BusError(RuntimeError):
    """The accelerator answered SLVERR, or sent a result of a wrong length."""


class Bus(Protocol):
    """How the driver reaches the accelerator. Every method but ``send_image`` returns when the thing is done."""

    def read(self, address: int) -> int:
        """Return the 32-bit word at a byte address, or raise ``BusError`` at SLVERR."""

    def write(self, address: int, value: int) -> None:
        """Write a 32-bit word to a byte address, or raise ``BusError`` at SLVERR."""

    def send_program(self, words: NDArray[np.uint32]) -> None:
        """Send words to the stream ``load``."""

    def send_image(self, pixels: bytes) -> None:
        """Begin to send bytes to the stream ``image``, TLAST with the last; may return before they are taken."""

    def receive_result(self) -> NDArray[np.int32]:
        """Return the next words of the stream ``result``, up to the one with TLAST."""

    def wait_interrupt(self) -> None:
        """Return when the interrupt line is high."""

    def abort(self) -> None:
        """Forget images not sent yet and words of results received; the accelerator is held in reset meanwhile."""


@dataclass(frozen=True)
class Counters:
    """The accelerator's counters.

    Parameters
    ----------
    cycles : int
        Cycles of the last image, stalls not included.
    stall_cycles : int
        Cycles that commands waited for images or for result space, since reset.
    images_done : int
        Images computed since reset.
    weight_planes_read : int
        Words read from the weight memory since reset.
    """

    cycles: int
    stall_cycles: int
    images_done: int
    weight_planes_read: int


class AcceleratorDriver:
    """One accelerator behind a bus.

    Parameters
    ----------
    bus : Bus

    Raises
    ------
    ValueError
        If there is no bitswitch accelerator, or one of another version.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        identification = self.read("identification")["value"]
        if identification != register_map.IDENTIFICATION:
            raise ValueError(
                f"the identification must be 0x{register_map.IDENTIFICATION:08X}, not 0x{identification:08X}"
            )
        expected = {"spec_version": spec.SPEC_VERSION, "register_map_version": register_map.REGISTER_MAP_VERSION}
        for name, version in self.read("version").items():
            if version != expected[name]:
                raise ValueError(f"the accelerator's {name} must be {expected[name]}, not {version}")
        self._program: LoadableProgram | None = None
        self._slot: int | None = None
        self._outstanding = 0

    def read(self, name: str) -> dict[str, int]:
        """Return the fields of a register."""
        register = register_map.register(name)
        return register.unpack(self._bus.read(register.address))

    def write(self, name: str, **fields: int) -> None:
        """Write a register; fields not named are written 0."""
        register = register_map.register(name)
        self._bus.write(register.address, register.pack(**fields))

    def reset(self) -> None:
        """Drop all images, runs and results that are under way, and the counters; the program stays loaded."""
        self.write("reset", machine=1)
        self._bus.abort()
        self.write("reset", machine=0)
        self._outstanding = 0

    def load(self, program: LoadableProgram) -> None:
        """Reset the accelerator and load a program; select an assignment next.

        Raises
        ------
        ValueError
            If the program was made for a machine that differs from this one.
        """
        for name, fields in program.configuration.items():
            for field, value in self.read(name).items():
                if value != fields[field]:
                    what = name if field == "value" else f"{name}.{field}"
                    raise ValueError(f"the program was made for a machine with {what} {fields[field]}, not {value}")
        self.reset()
        self._bus.send_program(program.words)
        self._program, self._slot = program, None

    def select(self, assignment: str) -> None:
        """Select the assignment at which the images started from now on are computed.

        Raises
        ------
        ValueError
            If no program is loaded, or it has no such assignment.
        """
        slots = self._loaded().slots
        if assignment not in slots:
            raise ValueError(f"the program has no assignment {assignment!r}; it has {', '.join(slots)}")
        self._slot = slots[assignment]

    def start(self, image: NDArray[np.uint8]) -> None:
        """Send an image, uint8 (c, h, w), and queue its run at the selected assignment.

        Raises
        ------
        TypeError, ValueError
            If the image is wrong, no assignment is selected, or as many runs are under way as the queue takes.
        """
        shape = self._loaded().image_shape
        if self._slot is None:
            raise ValueError("an assignment must be selected before an image is started")
        if image.dtype != np.uint8:
            raise TypeError(f"an image must be uint8, not {image.dtype}")
        if image.shape != shape:
            raise ValueError(f"an image must have the shape {shape}, not {image.shape}")
        if self._outstanding == OUTSTANDING_MAX:
            raise ValueError(f"at most {OUTSTANDING_MAX} images may be under way: take a result first")
        self._bus.send_image(image.transpose(1, 2, 0).tobytes())
        self.write("run", slot=self._slot)
        self._outstanding += 1

    def result(self) -> NDArray[np.int32]:
        """Return the logits, int32 (classes,), of the oldest image that was started.

        Raises
        ------
        ValueError
            If no image is under way.
        BusError
            If the result has another length.
        """
        if not self._outstanding:
            raise ValueError("an image must be started before its result is taken")
        logits = self._bus.receive_result()
        self._outstanding -= 1
        classes = self._loaded().classes
        if len(logits) != classes:
            raise BusError(f"a result must have {classes} words, not {len(logits)}")
        return logits

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Return the logits, int32 (n, classes), of images, uint8 (n, c, h, w), at the selected assignment.

        The next images are sent while one is computed.
        """
        logits = []
        started = 0
        while len(logits) < len(images):
            while started < min(len(images), len(logits) + IMAGES_AHEAD):
                self.start(images[started])
                started += 1
            logits.append(self.result())
        return np.array(logits, dtype=np.int32).reshape(len(images), -1)

    def counters(self) -> Counters:
        """Return the counters."""
        names = ("cycles", "stall_cycles", "images_done", "weight_planes_read")
        return Counters(**{name: self.read(name)["value"] for name in names})

    def enable_interrupts(self, *, image_done: bool = False, image_size_error: bool = False) -> None:
        """Choose what raises the interrupt line."""
        self.write("interrupt_enable", image_done=image_done, image_size_error=image_size_error)

    def wait(self) -> dict[str, bool]:
        """Wait until an enabled interrupt comes, clear all that have come, and return which have."""
        self._bus.wait_interrupt()
        came = self.read("interrupt_status")
        self.write("interrupt_status", **came)
        return {name: bool(value) for name, value in came.items()}

    def _loaded(self) -> LoadableProgram:
        if self._program is None:
            raise ValueError("a program must be loaded first")
        return self._program
