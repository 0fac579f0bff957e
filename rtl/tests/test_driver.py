"""The driver and the file it loads, on a bus that only remembers."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from hwsim import spec
from hwsim.assignments import standard_assignments
from hwsim.machine import Machine
from hwsim.precision import CATALOG
from hwsim.program import build, fit_machine
from hwsim.random_network import SMALL, random_images, random_network
from rtl import driver, loadable
from rtl.bus import register_map
from rtl.driver import AcceleratorDriver, BusError
from rtl.loadable import LoadableProgram

WIDTHS = CATALOG["8-6-4-2"]
NETWORK = random_network(3, WIDTHS, (2, 4, 4), SMALL, classes=3)
ASSIGNMENTS = standard_assignments(NETWORK)[:2]
MACHINE = fit_machine(NETWORK, ASSIGNMENTS, Machine.sized(WIDTHS, WIDTHS, 8, 8))
PROGRAM = build(NETWORK, MACHINE, ASSIGNMENTS)
LOADABLE = LoadableProgram.from_program(PROGRAM)
IMAGES = random_images(NETWORK.image_shape, 8, seed=1)


class FakeBus:
    """Registers as they are after reset; a result is the slot, the sum of the pixels and the number of the image."""

    def __init__(self, machine=MACHINE, **registers):
        words = {name: register_map.register(name).pack(**v) for name, v in register_map.configuration(machine).items()}
        self.words = {register_map.register(name).address: word for name, word in (words | registers).items()}
        self.log, self.images, self.slots, self.started, self.ahead = [], [], [], 0, 0
        self.result_words = 3

    def read(self, address):
        return self.words.get(address, 0)

    def write(self, address, value):
        self.log.append((address, value))
        if address == register_map.register("run").address:
            self.slots.append(value)
            self.ahead = max(self.ahead, len(self.slots))

    def send_program(self, words):
        self.log.append(words)

    def send_image(self, pixels):
        self.images.append(pixels)

    def receive_result(self):
        pixels, slot = self.images.pop(0), self.slots.pop(0)
        self.started += 1
        return np.array([slot, sum(pixels), self.started - 1], dtype=np.int32)[: self.result_words]

    def wait_interrupt(self):
        self.words[register_map.register("interrupt_status").address] = 2

    def abort(self):
        self.log.append("abort")


def ready(**options):
    bus = FakeBus(**options)
    ours = AcceleratorDriver(bus)
    ours.load(LOADABLE)
    return bus, ours


def test_a_program_is_sent_after_a_reset():
    bus, _ = ready()
    reset = register_map.register("reset").address
    assert bus.log[:3] == [(reset, 1), "abort", (reset, 0)]
    assert np.array_equal(bus.log[3], PROGRAM.load_words())


def test_images_run_ahead_in_order_at_the_selected_assignment():
    bus, ours = ready()
    for name, part in PROGRAM.assignments.items():
        ours.select(name)
        logits = ours.run(IMAGES)
        assert logits.dtype == np.int32 and logits.shape == (8, 3)
        assert logits[:, 0].tolist() == [part.slot] * 8
        assert logits[:, 1].tolist() == IMAGES.reshape(8, -1).sum(axis=1).tolist()
    assert bus.ahead == driver.IMAGES_AHEAD
    assert logits[:, 2].tolist() == list(range(8, 16))


def test_pixels_are_sent_in_row_column_channel_order():
    bus, ours = ready()
    ours.select(ASSIGNMENTS[0].name)
    ours.start(IMAGES[0])
    assert bus.images[0] == bytes(IMAGES[0][c, y, x] for y in range(4) for x in range(4) for c in range(2))


def test_counters_and_interrupts_are_the_registers():
    bus, ours = ready()
    for index, name in enumerate(("cycles", "stall_cycles", "images_done", "weight_planes_read")):
        bus.words[register_map.register(name).address] = 100 + index
    assert ours.counters() == driver.Counters(100, 101, 102, 103)
    ours.enable_interrupts(image_size_error=True)
    assert bus.log[-1] == (register_map.register("interrupt_enable").address, 2)
    assert ours.wait() == {"image_done": False, "image_size_error": True}
    assert bus.log[-1] == (register_map.register("interrupt_status").address, 2)


def test_another_device_is_refused():
    with pytest.raises(ValueError, match=r"the identification must be 0x42535754, not 0x00000007"):
        AcceleratorDriver(FakeBus(identification=7))
    version = spec.SPEC_VERSION + 1
    with pytest.raises(ValueError, match=rf"spec_version must be {spec.SPEC_VERSION}, not {version}"):
        AcceleratorDriver(FakeBus(version=version | register_map.REGISTER_MAP_VERSION << 16))
    with pytest.raises(ValueError, match=r"register_map_version must be 2, not 9"):
        AcceleratorDriver(FakeBus(version=spec.SPEC_VERSION | 9 << 16))


def test_a_program_for_another_machine_is_refused():
    other = dataclasses.replace(MACHINE, table_words=MACHINE.table_words + 1)
    bus = FakeBus(other)
    with pytest.raises(
        ValueError, match=rf"made for a machine with table_words {MACHINE.table_words}, not {other.table_words}"
    ):
        AcceleratorDriver(bus).load(LOADABLE)
    assert bus.log == []
    other = dataclasses.replace(MACHINE, accumulator_bits=MACHINE.accumulator_bits + 1)
    with pytest.raises(ValueError, match=r"made for a machine with datapath.accumulator_bits 24, not 25"):
        AcceleratorDriver(FakeBus(other)).load(LOADABLE)
    other = dataclasses.replace(MACHINE, datapath="dsp")
    with pytest.raises(ValueError, match=r"made for a machine with variant.digits 0, not 1"):
        AcceleratorDriver(FakeBus(other)).load(LOADABLE)


def test_what_comes_in_a_wrong_order_is_refused():
    ours = AcceleratorDriver(FakeBus())
    with pytest.raises(ValueError, match="a program must be loaded first"):
        ours.select("W8A8")
    ours.load(LOADABLE)
    with pytest.raises(ValueError, match=r"no assignment 'W9A9'; it has "):
        ours.select("W9A9")
    with pytest.raises(ValueError, match="an assignment must be selected before an image is started"):
        ours.start(IMAGES[0])
    with pytest.raises(ValueError, match="an image must be started before its result is taken"):
        ours.result()
    ours.select(ASSIGNMENTS[0].name)
    with pytest.raises(TypeError, match="an image must be uint8, not float64"):
        ours.start(IMAGES[0].astype(float))
    with pytest.raises(ValueError, match=r"an image must have the shape \(2, 4, 4\), not \(4, 4, 2\)"):
        ours.start(IMAGES[0].transpose(1, 2, 0))
    for index in range(driver.OUTSTANDING_MAX):
        ours.start(IMAGES[index])
    with pytest.raises(ValueError, match="at most 4 images may be under way: take a result first"):
        ours.start(IMAGES[0])


def test_a_reset_forgets_runs_and_keeps_the_program():
    bus, ours = ready()
    ours.select(ASSIGNMENTS[0].name)
    for index in range(driver.OUTSTANDING_MAX):
        ours.start(IMAGES[index])
    bus.log.clear()
    ours.reset()
    assert bus.log[1] == "abort"
    ours.start(IMAGES[0])
    assert ours.result() is not None
    with pytest.raises(ValueError, match="an image must be started"):
        ours.result()


def test_a_result_of_a_wrong_length_is_refused():
    bus, ours = ready()
    bus.result_words = 2
    ours.select(ASSIGNMENTS[0].name)
    ours.start(IMAGES[0])
    with pytest.raises(BusError, match="a result must have 3 words, not 2"):
        ours.result()


def test_the_file_holds_what_the_driver_needs(tmp_path):
    path = tmp_path / "program.npz"
    LOADABLE.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["program.npz"]
    copy = LoadableProgram.load(path)
    assert np.array_equal(copy.words, LOADABLE.words) and copy.words.dtype == np.uint32
    for field in ("configuration", "slots", "image_shape", "classes", "image_bytes"):
        assert getattr(copy, field) == getattr(LOADABLE, field), field
    assert copy.image_bytes == IMAGES[0].size


def test_a_file_of_another_format_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "program.npz"
    monkeypatch.setattr(loadable, "FORMAT_VERSION", 7)
    LOADABLE.save(path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"format_version must be 1, not 7"):
        LoadableProgram.load(path)


def test_the_driver_needs_no_tools():
    absent = ("amaranth", "cocotb", "torch", "numba")
    program = f"import sys, rtl.driver; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
