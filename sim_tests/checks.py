"""What has to hold after a run in the simulator: every stored tensor and every count of cycles."""

from __future__ import annotations

import numpy as np

from hwsim.timing import image_timing
from sim_tests import simulate
from sim_tests.simulate import SimulationResult


def check(result: SimulationResult, images: np.ndarray) -> int:
    """Require every stored tensor and every count of cycles to be right; return how many codes were compared.

    Raises
    ------
    AssertionError
        Naming the assignment, the layer and the first code that differs, or the cycles that do.
    """
    program = result.program
    compared = 0
    for name, comparison in simulate.compare(result, images).items():
        assert comparison.equal, str(comparison)
        compared += comparison.codes_compared
        timing = image_timing(program.machine, program.assignments[name])
        for layer in timing.layers:
            measured = result.cycles[name][layer.name].tolist()
            assert measured == [layer.cycles] * len(images), f"{name}, {layer.name}\n{measured} != {layer.cycles}"
            waits = result.load_wait_cycles[name][layer.name].tolist()
            waited = f"{name}, {layer.name}: waited {waits} cycles for weights, not {layer.load_wait_cycles}"
            assert waits == [layer.load_wait_cycles] * len(images), waited
        assert result.cycles_per_image(name) == timing.cycles
        counted = timing.cycles + result.stall_cycles[name] + simulate.COMMAND_CYCLES
        assert result.elapsed_cycles[name].tolist() == counted.tolist(), name
    network = program.network
    codes = {name: sum(values.size for values in stored.values()) for name, stored in result.stored.items()}
    assert compared == sum(codes.values())
    assert min(codes.values()) > len(images) * sum(int(np.prod(network.shape(layer.name))) for layer in network) // 2
    planes = sum(program.weight_planes_read(name) for name in program.assignments) * len(images)
    assert sum(read.sum() for read in result.weight_planes_read.values()) == planes
    return compared
