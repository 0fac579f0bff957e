"""The AXI form of the accelerator in Verilator, driven by cocotbext-axi through the driver that users have."""

from __future__ import annotations

import numpy as np
import pytest

from hwsim import engine
from hwsim.assignments import uniform_assignments
from hwsim.machine import Machine
from hwsim.precision import CATALOG
from hwsim.program import build, fit_machine
from hwsim.random_network import AveragePool, Convolution, Residual, random_images, random_network
from hwsim.timing import image_timing
from rtl import packaging
from rtl.bus import register_map
from rtl.bus.register_map import REGISTERS, Access
from rtl.loadable import LoadableProgram
from sim_tests import axi, harness, simulate, verilator_tool

pytestmark = pytest.mark.verilator

WIDTHS = CATALOG["8-6-4-2"]
NETWORK = random_network(
    11, WIDTHS, (3, 7, 5), (Convolution(channels=8), Residual(channels=8), AveragePool()), classes=5
)
ASSIGNMENTS = [uniform_assignments(NETWORK)[index] for index in (0, -1)]
MACHINE = fit_machine(NETWORK, ASSIGNMENTS, Machine.sized(WIDTHS, WIDTHS, 8, 8))
PROGRAM = build(NETWORK, MACHINE, ASSIGNMENTS)
IMAGES = random_images(NETWORK.image_shape, 4, seed=1)


def expected(images: np.ndarray) -> np.ndarray:
    """Return the integer model's logits, int32 (assignments, images, classes)."""
    logits = []
    for part in PROGRAM.assignments.values():
        stored = engine.run(NETWORK, part.assignment, part.requantizers, images)
        logits.append(stored[NETWORK.layers[-1].name, "logits"][:, :, 0, 0])
    return np.stack(logits)


@pytest.fixture(scope="module")
def simulator() -> harness.Build:
    return axi.build(axi.design_of(MACHINE))


@pytest.fixture(scope="module")
def program_file(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("program") / "program.npz"
    LoadableProgram.from_program(PROGRAM).save(path)
    return path.read_bytes()


@pytest.fixture
def play(simulator, program_file):
    def run(scenario: str, pause: float = 0.0, seed: int = 1, images: np.ndarray = IMAGES, **values) -> harness.Run:
        job = harness.Message({"scenario": scenario, "pause": pause, "seed": seed, **values}, {"images": images})
        return harness.run(simulator, "sim_tests.tb_axi", job, files={"program.npz": program_file})

    return run


CYCLES = [image_timing(MACHINE, part).cycles for part in PROGRAM.assignments.values()]
PLANES = [PROGRAM.weight_planes_read(name) for name in PROGRAM.assignments]


@pytest.mark.parametrize(("pause", "seed"), [(0.0, 1), (0.4, 2)])
def test_every_image_at_every_assignment_with_its_counters(play, pause, seed):
    result = play("one_by_one", pause, seed)
    assert np.array_equal(result.arrays["logits"], expected(IMAGES).swapaxes(0, 1).reshape(-1, NETWORK.classes))
    runs = len(IMAGES) * len(CYCLES)
    assert [counters["cycles"] for counters in result.values["counters"]] == CYCLES * len(IMAGES)
    assert [counters["images_done"] for counters in result.values["counters"]] == list(range(1, runs + 1))
    planes = np.cumsum(PLANES * len(IMAGES)).tolist()
    assert [counters["weight_planes_read"] for counters in result.values["counters"]] == planes
    assert result.values["came"] == [{"image_done": True, "image_size_error": False}] * runs
    idle = {"busy": 0, "loaded": 1, "images_waiting": 0, "results_waiting": 0, "command_space": 4}
    assert result.values["status"] == idle


def test_throughput_is_not_latency(play):
    """Images sent ahead are computed one after another, with one cycle between them: the rest is hidden."""
    images = np.repeat(IMAGES, 2, axis=0)
    result = play("back_to_back", images=images)
    assert np.array_equal(result.arrays["logits"], expected(images))
    ends = np.array(result.values["result_cycles"]).reshape(len(CYCLES), len(images))
    for index, cycles in enumerate(CYCLES):
        assert np.diff(ends[index]).tolist() == [cycles + 1 + simulate.COMMAND_CYCLES] * (len(images) - 1)


@pytest.mark.parametrize(("pause", "seed"), [(0.2, 3), (0.6, 4)])
def test_many_images_with_pauses_on_every_channel(play, pause, seed):
    result = play("back_to_back", pause, seed)
    assert np.array_equal(result.arrays["logits"], expected(IMAGES))
    assert [counters["cycles"] for counters in result.values["counters"]] == CYCLES


@pytest.mark.parametrize(("pause", "seed"), [(0.0, 6), (0.5, 7)])
def test_bad_accesses_answer_slverr_and_do_nothing(play, pause, seed):
    values = play("bad_accesses", pause, seed, layer_slots=MACHINE.layer_slots).values
    assert values["readable"] == [one.address for one in REGISTERS if one.access is not Access.COMMAND]
    assert values["writable"] == [one.address for one in REGISTERS if one.access is not Access.READ]
    assert values["refused"] == {"slot": False, "half a command": False, "unaligned": True, "in reset": False}
    none, both = {"image_done": 0, "image_size_error": 0}, {"image_done": 1, "image_size_error": 1}
    assert values["enabled"] == [none, both, none]
    depth = register_map.COMMAND_QUEUE_DEPTH
    # One command is at the barrier, waiting for its image.
    assert values["filled"] == [True] * (depth + 1) + [False] * 2
    assert values["full"]["command_space"] == 0 and values["full"]["busy"] == 1
    assert values["before"] == values["after"]
    assert values["before"]["command_space"] == depth and values["before"]["loaded"] == 0


@pytest.mark.parametrize(("pause", "seed"), [(0.0, 8), (0.4, 9)])
def test_frames_of_any_shape(play, pause, seed):
    short_bytes = 41
    result = play("odd_frames", pause, seed, short_bytes=short_bytes)
    pixels = IMAGES[0].transpose(1, 2, 0).ravel().copy()
    pixels[short_bytes:] = 0
    _, height, width = NETWORK.image_shape
    short = pixels.reshape(height, width, -1).transpose(2, 0, 1)
    assert np.array_equal(result.arrays["logits"], expected(np.stack([*IMAGES[:3], short, IMAGES[1]]))[0])
    assert result.values["quiet"]["image_size_error"] == 0
    assert result.values["came"]["image_size_error"] is True
    assert result.values["end"]["image_size_error"] == 0


@pytest.mark.parametrize(("pause", "seed"), [(0.0, 10), (0.3, 11)])
def test_a_reset_leaves_nothing_behind(play, pause, seed):
    result = play("reset_at_work", pause, seed, reset_cycles=[3, 500, CYCLES[0] - 200])
    assert (result.arrays["logits"] == expected(IMAGES[:2])[0]).all()
    assert len(result.arrays["logits"]) == 4
    assert all(status["busy"] for status in result.values["busy"])
    cleared = {"busy": 0, "loaded": 1, "images_waiting": 0, "results_waiting": 0, "command_space": 4}
    counters = {"cycles": 0, "stall_cycles": 0, "images_done": 0, "weight_planes_read": 0}
    assert result.values["cleared"] == cleared | counters


def test_loading_waits_until_the_machine_is_idle(play):
    result = play("loading_waits")
    assert result.values["done"] == 3
    assert np.array_equal(result.arrays["logits"], expected(IMAGES[:3])[0])


def test_the_verilog_is_clean(tmp_path):
    design = axi.design_of(MACHINE)
    waivers, verilog = tmp_path / f"{design.name}.vlt", tmp_path / f"{design.name}.v"
    waivers.write_text(packaging.waivers(design.name))
    verilog.write_text(design.verilog)
    assert verilator_tool.lint([waivers, verilog], design.name) == ""
