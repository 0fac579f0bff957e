"""The whole board in Verilator: the users' driver at one end of a serial line, the pins at the other.

The Verilog is what a bitstream is made of, with the cells of the ECP5, here as models.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from amaranth.hdl import Signal

import rtl.board.host_link
import rtl.board.top
from hwsim import engine
from hwsim.assignments import uniform_assignments
from hwsim.machine import Machine
from hwsim.precision import CATALOG
from hwsim.program import build, fit_machine
from hwsim.random_network import AveragePool, Convolution, random_images, random_network
from hwsim.timing import image_timing
from rtl.board.link_protocol import ARGUMENT_BYTES_MAX
from rtl.loadable import LoadableProgram
from rtl.targets import CELL_MODELS, ECP5
from rtl.tests.mutation import chosen_mutants
from sim_tests import board, harness
from sim_tests.design import Design, from_component

pytestmark = pytest.mark.verilator

CYCLES_PER_BIT = 4
PATIENCE_CYCLES = 4000
TIMEOUT_S = 4e-4

WIDTHS = CATALOG["8-6-4-2"]
NETWORK = random_network(11, WIDTHS, (3, 6, 5), (Convolution(channels=8), AveragePool()), classes=5)
ASSIGNMENTS = [uniform_assignments(NETWORK)[index] for index in (0, -1)]
MACHINE = fit_machine(NETWORK, ASSIGNMENTS, Machine.sized(WIDTHS, WIDTHS, 4, 8))
PROGRAM = build(NETWORK, MACHINE, ASSIGNMENTS)
IMAGES = random_images(NETWORK.image_shape, 2, seed=1)
CYCLES = [image_timing(MACHINE, part).cycles for part in PROGRAM.assignments.values()]


def expected(images: np.ndarray) -> np.ndarray:
    """Return the integer model's logits, int32 (assignments, images, classes)."""
    logits = []
    for part in PROGRAM.assignments.values():
        stored = engine.run(NETWORK, part.assignment, part.requantizers, images)
        logits.append(stored[NETWORK.layers[-1].name, "logits"][:, :, 0, 0])
    return np.stack(logits)


MUTATION = Signal(4, name="mutation")
"""Input port that chooses which one thing is wrong with the host link; 0 is none."""

MUTATIONS = {
    "has_answered & (sequence == request.payload)": "has_answered & choose(1, sequence == request.payload, 0)",
    "(receiver.left == 1)": "choose(2, receiver.left == 1, receiver.left == 2)",
    "(receiver.left == 0) | out_of_patience": "(receiver.left == 0) | choose(3, out_of_patience, 0)",
    "arguments[:2] == 0": "choose(4, arguments[:2], 0) == 0",
    "control.bresp != Response.OKAY": "choose(5, control.bresp != Response.OKAY, 0)",
}


def design_with_mutations() -> Design:
    """Return the design with all mutations built in: one build serves them all."""
    mutants = chosen_mutants(rtl.board.host_link, MUTATIONS, MUTATION)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rtl.board.top, "HostLink", mutants["HostLink"])
        top = rtl.board.top.BoardTop(MACHINE, CYCLES_PER_BIT, PATIENCE_CYCLES)
        design = from_component(top, rtl.board.top.NAME, [MUTATION], target=ECP5)
        return dataclasses.replace(design, verilog=design.verilog + CELL_MODELS.read_text())


@pytest.fixture(scope="module")
def simulator() -> harness.Build:
    return board.build(design_with_mutations(), CYCLES_PER_BIT)


@pytest.fixture(scope="module")
def program_file(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("program") / "program.npz"
    LoadableProgram.from_program(PROGRAM).save(path)
    return path.read_bytes()


@pytest.fixture
def play(simulator, program_file):
    def run(scenario: str, error_rate: float = 0.0, stretch_ppm: int = 0, seed: int = 1, **values) -> harness.Run:
        common = {"cycles_per_bit": CYCLES_PER_BIT, "timeout_s": TIMEOUT_S, "seed": seed, "stretch_ppm": stretch_ppm}
        part_bytes = 64 if error_rate else ARGUMENT_BYTES_MAX
        common |= {"scenario": scenario, "error_rate": error_rate, "part_bytes": part_bytes}
        job = harness.Message(common | values, {"images": IMAGES})
        return harness.run(simulator, "sim_tests.tb_board", job, files={"program.npz": program_file})

    return run


@pytest.mark.parametrize(("error_rate", "stretch_ppm"), [(0.0, 0), (0.003, 20_000)], ids=["clean", "disturbed"])
def test_every_image_at_every_assignment_with_its_cycles(play, error_rate, stretch_ppm):
    """Also over a line that breaks bytes in both directions, and with another clock than the board's."""
    result = play("images_at_assignments", error_rate, stretch_ppm)
    assert np.array_equal(result.arrays["logits"], expected(IMAGES).swapaxes(0, 1).reshape(-1, NETWORK.classes))
    assert np.array_equal(result.arrays["ahead"], expected(IMAGES)[-1])
    runs = len(IMAGES) * len(CYCLES)
    assert [counters["cycles"] for counters in result.values["counters"]] == CYCLES * len(IMAGES)
    assert [counters["images_done"] for counters in result.values["counters"]] == list(range(1, runs + 1))
    assert result.values["came"] == [{"image_done": True, "image_size_error": False}] * runs
    disturbed = error_rate > 0
    assert [result.values[name] > 0 for name in ("errors", "repeated", "broken")] == [disturbed] * 3
    assert result.values["lights"] == [1, int(disturbed)]


def test_what_is_broken_does_nothing(play):
    values = play("broken_frames").values
    # What is not ended by END is ended by the END that the next request begins with.
    assert values["seen"] == {name: [1, 1, 0] for name in values["seen"]} and len(values["seen"]) == 11
    assert values["lights"] == [1, 1] and values["after"] == 3


def test_requests(play):
    result = play("requests")
    values = result.values
    assert values["slverr"] == ["SLVERR"] * 2
    assert values["refused"] == ["refused"] * 6
    # The image unpacker holds nothing before a program has been loaded.
    assert (values["no program"], values["no result"]) == (0, 0)
    assert np.array_equal(result.arrays["logits"], expected(IMAGES[:1])[0, 0])
    assert values["counters"]["images_done"] == 1 and values["counters"]["cycles"] == CYCLES[0]
    assert values["status"]["images_waiting"] == 0 and values["status"]["command_space"] == 4
    assert values["interrupts"] == {"image_done": 1, "image_size_error": 0}
    assert values["after button"] == [0, 1, 0]


@pytest.mark.parametrize("number", range(1, len(MUTATIONS) + 1))
def test_a_wrong_link_is_caught(play, number):
    with pytest.raises((AssertionError, harness.SimulationError)):
        test_requests(functools.partial(play, mutation=number))
