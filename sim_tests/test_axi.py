"""The AXI form of the accelerator in Verilator, driven by cocotbext-axi through the driver that users have."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from amaranth.hdl import Signal

import rtl.bus.axi_accelerator
import rtl.bus.axi_top
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
from rtl.tests.mutation import chosen_mutants
from sim_tests import axi, harness, simulate, verilator_tool
from sim_tests.design import Design, from_component

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


MUTATION = Signal(4, name="mutation")
"""Input port that chooses which one thing is wrong with the bus side; 0 is none."""

MUTATIONS = {
    "is_idle = ~accelerator.busy &": "is_idle = choose(1, ~accelerator.busy, 1) &",
    "cycles.eq(accelerator.cycles)": "cycles.eq(choose(2, accelerator.cycles, accelerator.cycles + 1))",
    "tlast.eq(accelerator.result.payload.last)": "tlast.eq(choose(3, accelerator.result.payload.last, 1))",
    "(registers.run_slot < machine.layer_slots)": "choose(4, registers.run_slot < machine.layer_slots, 1)",
    "registers.interrupt_enable_image_done &": "choose(5, registers.interrupt_enable_image_done, 1) &",
    "unpacker.image_end - image_done": "unpacker.image_end - choose(6, image_done, 0)",
    "results_waiting + image_done": "results_waiting + choose(10, image_done, 0)",
    "ResetInserter(is_reset)": "ResetInserter(choose(7, is_reset, 0))",
    "is_reset = Module(), registers.reset_machine": "is_reset = Module(), choose(8, registers.reset_machine, 0)",
    "accelerator.run.valid.eq(commands.r_rdy)": "accelerator.run.valid.eq(commands.r_rdy & choose(9, 1, ~was_busy))",
}


def design_with_mutations() -> Design:
    """Return the design with all mutations built in: one build serves them all."""
    mutants = chosen_mutants(rtl.bus.axi_accelerator, MUTATIONS, MUTATION)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rtl.bus.axi_top, "AxiAccelerator", mutants["AxiAccelerator"])
        return from_component(rtl.bus.axi_top.AxiTop(MACHINE), axi.NAME, [MUTATION])


@pytest.fixture(scope="module")
def simulator() -> harness.Build:
    return axi.build(design_with_mutations(), quick=True)


@pytest.fixture(scope="module")
def program_file(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("program") / "program.npz"
    LoadableProgram.from_program(PROGRAM).save(path)
    return path.read_bytes()


@pytest.fixture
def play(simulator, program_file):
    def run(scenario: str, pause: float = 0.0, seed: int = 1, images: np.ndarray = IMAGES, **values) -> harness.Run:
        job = harness.Message({"scenario": scenario, "pause": pause, "seed": seed} | values, {"images": images})
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
    assert result.values["status"] == [idle] * runs


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


@pytest.mark.parametrize(("pause", "seed"), [(0.5, 7)])
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


@pytest.mark.parametrize(("pause", "seed", "reset_cycles"), [(0.0, 10, [3, 500, CYCLES[0] - 200]), (0.3, 11, [700])])
def test_a_reset_leaves_nothing_behind(play, pause, seed, reset_cycles):
    result = play("reset_at_work", pause, seed, reset_cycles=reset_cycles)
    assert (result.arrays["logits"] == expected(IMAGES[2:4])[0]).all()
    assert len(result.arrays["logits"]) == len(reset_cycles) + 1
    assert result.values["done"] == [2] * len(reset_cycles)
    assert all(status["busy"] for status in result.values["busy"])
    cleared = {"busy": 0, "loaded": 1, "images_waiting": 0, "results_waiting": 0, "command_space": 4}
    counters = {"cycles": 0, "stall_cycles": 0, "images_done": 0, "weight_planes_read": 0}
    assert result.values["cleared"] == cleared | counters


def test_a_result_that_nobody_takes_stalls_the_machine(play):
    result = play("results_wait", stall_cycles=1000)
    assert np.array_equal(result.arrays["logits"], expected(IMAGES[:3])[0])
    full = {"busy": 1, "loaded": 1, "images_waiting": 1, "results_waiting": 2, "command_space": 4}
    assert result.values["full"] == full
    before, after = result.values["stalled"]
    assert after - before >= 1000


def test_loading_waits_until_the_machine_is_idle(play):
    result = play("loading_waits")
    assert result.values["done"] == 3
    assert np.array_equal(result.arrays["logits"], expected(IMAGES[:3])[0])


@pytest.mark.parametrize(
    ("number", "test"),
    [
        (1, test_loading_waits_until_the_machine_is_idle),
        (2, functools.partial(test_every_image_at_every_assignment_with_its_counters, pause=0.0, seed=1)),
        (3, test_loading_waits_until_the_machine_is_idle),
        (4, functools.partial(test_bad_accesses_answer_slverr_and_do_nothing, pause=0.5, seed=7)),
        (5, functools.partial(test_frames_of_any_shape, pause=0.0, seed=8)),
        (6, functools.partial(test_every_image_at_every_assignment_with_its_counters, pause=0.0, seed=1)),
        (7, functools.partial(test_a_reset_leaves_nothing_behind, pause=0.0, seed=10, reset_cycles=[500])),
        (8, functools.partial(test_a_reset_leaves_nothing_behind, pause=0.0, seed=10, reset_cycles=[500])),
        (9, test_throughput_is_not_latency),
        (10, test_a_result_that_nobody_takes_stalls_the_machine),
    ],
    ids=range(1, len(MUTATIONS) + 1),
)
def test_a_wrong_bus_side_is_caught(play, number, test):
    with pytest.raises((AssertionError, harness.SimulationError)):
        test(functools.partial(play, mutation=number))


def test_the_verilog_is_clean(tmp_path):
    design = axi.design_of(MACHINE)
    waivers, verilog = tmp_path / f"{design.name}.vlt", tmp_path / f"{design.name}.v"
    waivers.write_text(packaging.waivers(design.name))
    verilog.write_text(design.verilog)
    assert verilator_tool.lint([waivers, verilog], design.name) == ""
