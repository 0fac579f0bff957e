"""Run a network on the generated hardware in Verilator: every stored tensor and every layer's cycles.

result = simulate(network, None, standard_assignments(network), images)
result.stored["W4A4"]["conv1", "code"]      # uint8 (n, c, h, w), as the hardware wrote it
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwsim import engine, spec, verification
from hwsim.machine import Machine
from hwsim.network import Assignment, Network
from hwsim.program import Program, build, fit_machine
from sim_tests import accelerator, harness, toggles, trace
from sim_tests.design import Design

TEST_MODULE = "sim_tests.tb_accelerator"
COMMAND_CYCLES = 1
"""Cycles of an image that are neither its own nor stalls: that in which the command is taken."""

MAX_CYCLES = 20_000_000


@dataclass(frozen=True, kw_only=True)
class SimulationResult:
    """What the hardware did. All mappings begin with the name of the assignment.

    Parameters
    ----------
    program : Program
    stored : mapping of str to dict of (tensor, form) to ndarray, shape (n, c, h, w)
        Codes (uint8), skip codes (int16) and logits (int32), in network order like ``engine.run``.
    predictions : mapping of str to ndarray of int64, shape (n,)
    cycles : mapping of str to dict of str to ndarray of int64, shape (n,)
        Layer -> machine cycles of each image.
    load_wait_cycles : mapping of str to dict of str to ndarray of int64, shape (n,)
        Layer -> those of its cycles in which the array's feeder waited for a tile of weights, seen by the testbench.
    stall_cycles : mapping of str to ndarray of int64, shape (n,)
        Cycles at the barriers (image not ready, no space for results) before each image.
    elapsed_cycles : mapping of str to ndarray of int64, shape (n,)
        Cycles from the taking of the command to the end of the last layer, counted by the testbench.
    weight_planes_read : mapping of str to ndarray of int64, shape (n,)
        Words read from the weight memory, counted by the machine up to the end of each image.
    toggles : mapping of str to int
        Of the bits of a design that ``sim_tests.toggles`` has marked: how often each changed, in each direction.
    simulated_cycles : int
    seconds : mapping of str to float
        ``verilog``, ``build`` and ``run``.
    """

    program: Program
    stored: Mapping[str, Mapping[tuple[str, str], np.ndarray]]
    predictions: Mapping[str, np.ndarray]
    cycles: Mapping[str, Mapping[str, np.ndarray]]
    load_wait_cycles: Mapping[str, Mapping[str, np.ndarray]]
    stall_cycles: Mapping[str, np.ndarray]
    elapsed_cycles: Mapping[str, np.ndarray]
    weight_planes_read: Mapping[str, np.ndarray]
    toggles: Mapping[str, int]
    simulated_cycles: int
    seconds: Mapping[str, float]

    @property
    def images(self) -> int:
        """Images run at each assignment."""
        return len(next(iter(self.predictions.values())))

    def cycles_per_image(self, name: str) -> int:
        """Return the machine cycles of an image at an assignment, stalls not counted.

        Raises
        ------
        ValueError
            If the images of an assignment took different times.
        """
        totals = sum(self.cycles[name].values())
        if len(set(totals.tolist())) != 1:  # type: ignore[union-attr]
            raise ValueError(f"assignment {name}: images took {sorted(set(totals.tolist()))} cycles")  # type: ignore[union-attr]
        return int(totals[0])  # type: ignore[index]


def simulate(
    network: Network,
    machine: Machine | None,
    assignments: Sequence[Assignment],
    images: np.ndarray,
    *,
    idle: float = 0.0,
    stall: float = 0.0,
    seed: int = 0,
    interrupt_cycles: int | None = None,
    design: Design | None = None,
    inputs: Mapping[str, int] | None = None,
    max_cycles: int = MAX_CYCLES,
    quick: bool = False,
    cache: Path = harness.CACHE,
) -> SimulationResult:
    """Run every image at every assignment, changing the assignment after each image, without a reset.

    Parameters
    ----------
    network : Network
    machine : Machine or None
        None takes the standard machine for the network's widths, its memories as deep as needed.
    assignments : sequence of Assignment
    images : ndarray of uint8, shape (n, c, h, w)
    idle, stall : float
        Probability of a cycle without a word on the input streams, of a cycle not ready on the result stream.
    seed : int
        Of idle and stall.
    interrupt_cycles : int or None
        Reset the machine so many cycles into the first image, and begin again.
    design : Design, optional
        Other Verilog of the same machine, for mutations.
    inputs : mapping of str to int, optional
        Values held on input ports that this design has besides the accelerator's.
    max_cycles : int
        Give up after so many cycles.
    quick : bool
        Build fast rather than run fast, see ``harness.build``.
    cache : Path
        Folder of builds.

    Raises
    ------
    ValueError
        If the images are wrong, or the program does not fit the machine.
    ToolMissing
        If Verilator or what it needs is not installed.
    SimulationError, TraceError
        If the machine hangs, breaks the rule of streams, or does not run the layers it should.
    """
    images = engine.check_images(network, images)
    if not len(images):
        raise ValueError("there must be at least one image to simulate")
    if machine is None:
        standard = Machine(weight_widths=network.width_set, activation_widths=network.width_set)
        machine = fit_machine(network, assignments, standard)
    program = build(network, machine, assignments)
    seconds = {}
    started = time.perf_counter()
    design = accelerator.design_of(machine) if design is None else design
    seconds["verilog"] = time.perf_counter() - started
    started = time.perf_counter()
    simulator = accelerator.build(design, cache, quick=quick)
    seconds["build"] = time.perf_counter() - started
    names = [assignment.name for assignment in assignments]
    order = [(image, name) for image in range(len(images)) for name in names]
    started = time.perf_counter()
    job = harness.Message(
        {
            "classes": network.classes,
            "idle": idle,
            "stall": stall,
            "seed": seed,
            "max_cycles": max_cycles,
            "interrupt_cycles": interrupt_cycles,
            "inputs": dict(inputs or {}),
        },
        {
            "load_words": program.load_words(),
            "slots": np.array([program.assignments[name].slot for _, name in order]),
            "pixels": np.stack([images[image].transpose(1, 2, 0).ravel() for image, _ in order]),
        },
    )
    run = harness.run(simulator, TEST_MODULE, job)
    seconds["run"] = time.perf_counter() - started
    return _result(program, design, run, order, seconds)


def compare(result: SimulationResult, images: np.ndarray) -> dict[str, verification.Comparison]:
    """Return, for every assignment, the comparison of the hardware's stored tensors with the integer model's."""
    compared = {}
    for name, part in result.program.assignments.items():
        expected = engine.run(result.program.network, part.assignment, part.requantizers, images)
        compared[name] = verification.compare(name, expected, result.stored[name])
    return compared


def _result(
    program: Program, design: Design, run: harness.Run, order: Sequence[tuple[int, str]], seconds: Mapping[str, float]
) -> SimulationResult:
    network = program.network
    start = run.values["start_cycle"]
    records = {}
    for name, recorder in accelerator.recorders(design).items():
        decoded = recorder.decode(run.recorded[name])
        keep = decoded["cycle"] >= start
        records[name] = {field: values[keep] for field, values in decoded.items()}
    layers, done, commands = len(network.layers), records["layer"], records["command"]
    waited = records["wait"]["cycle"]
    if len(done["cycle"]) != layers * len(order):
        raise trace.TraceError(f"{len(done['cycle'])} layers were run, not {layers * len(order)}")
    replay = trace.MemoryReplay(program.machine, records["code"], records["skip"])
    logits = _logits(run.arrays["results"], network.classes)

    stored: dict[str, dict[tuple[str, str], list[np.ndarray]]] = {name: {} for name in program.assignments}
    cycles: dict[str, dict[str, list[int]]] = {name: {} for name in program.assignments}
    waits: dict[str, dict[str, list[int]]] = {name: {} for name in program.assignments}
    counters: dict[str, dict[str, list[int]]] = {
        counter: {name: [] for name in program.assignments} for counter in ("stall", "elapsed", "planes")
    }
    first_cycle, before = start, {"stall_cycles": 0, "weight_planes_read": 0}
    for index, (_, name) in enumerate(order):
        own = {field: values[index * layers : (index + 1) * layers] for field, values in done.items()}
        for layer_run in trace.layer_runs(network, program.assignments[name], replay, own, first_cycle):
            for key, values in layer_run.stored.items():
                stored[name].setdefault(key, []).append(values)
            cycles[name].setdefault(layer_run.layer, []).append(layer_run.cycles)
        ends = np.append(first_cycle - 1, own["cycle"])
        for layer, count in zip(network.layers, np.diff(np.searchsorted(waited, ends, side="right")), strict=True):
            waits[name].setdefault(layer.name, []).append(int(count))
        last = network.layers[-1].name
        stored[name].setdefault((last, "logits"), []).append(logits[index].reshape(-1, 1, 1))
        end = {field: int(values[-1]) for field, values in own.items()}
        counters["stall"][name].append(end["stall_cycles"] - before["stall_cycles"])
        counters["planes"][name].append(end["weight_planes_read"] - before["weight_planes_read"])
        counters["elapsed"][name].append(end["cycle"] - int(commands["cycle"][index]))
        first_cycle, before = end["cycle"] + 1, end
    return SimulationResult(
        program=program,
        stored={name: {key: np.stack(values) for key, values in tensors.items()} for name, tensors in stored.items()},
        predictions={
            name: engine.classify(np.stack(tensors[network.layers[-1].name, "logits"])[:, :, 0, 0])
            for name, tensors in stored.items()
        },
        cycles={name: {layer: np.array(values) for layer, values in part.items()} for name, part in cycles.items()},
        load_wait_cycles={
            name: {layer: np.array(values) for layer, values in part.items()} for name, part in waits.items()
        },
        stall_cycles={name: np.array(values) for name, values in counters["stall"].items()},
        elapsed_cycles={name: np.array(values) for name, values in counters["elapsed"].items()},
        weight_planes_read={name: np.array(values) for name, values in counters["planes"].items()},
        toggles=toggles.decode(run.recorded.get(harness.TOGGLES, b"")),
        simulated_cycles=run.values["end_cycle"],
        seconds=seconds,
    )


def _logits(words: np.ndarray, classes: int) -> np.ndarray:
    """Return the logits, int32 of shape (runs, classes), having seen the mark on each image's last one."""
    last = (words >> spec.LOGIT_BITS).reshape(-1, classes)
    if last[:, :-1].any() or not last[:, -1].all():
        raise trace.TraceError("the mark must be on the last logit of every image and on no other")
    return (words & ((1 << spec.LOGIT_BITS) - 1)).astype(np.uint32).view(np.int32).reshape(-1, classes)
