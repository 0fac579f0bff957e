"""The trained digits network on the accelerator in Verilator: real images, with pauses on every port."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bitswitch
from hwsim import network_file
from hwsim.assignments import standard_assignments
from hwsim.estimate import COMMAND_CYCLES, estimate
from hwsim.machine import Machine
from hwsim.program import fit_machine
from hwsim.timing import image_timing
from sim_tests import simulate

pytestmark = [pytest.mark.slow, pytest.mark.verilator]


@pytest.mark.parametrize(("datapath", "count"), [("planes", 32), ("dsp", 8)])
def test_every_stored_tensor_of_real_images_with_idle_and_back_pressure(
    trained: Path, datapath: str, count: int
) -> None:
    from quant.data import load_digits_split

    network = network_file.load(trained / bitswitch.NETWORK)
    images = load_digits_split().test_images[:count]
    assignments = standard_assignments(network)
    widths = network.width_set
    machine = fit_machine(
        network, assignments, Machine(weight_widths=widths, activation_widths=widths, datapath=datapath)
    )
    result = simulate.simulate(network, machine, assignments, images, idle=0.3, stall=0.8, seed=1)
    assert [len(result.predictions[assignment.name]) for assignment in assignments] == [count] * 6
    compared = 0
    for name, comparison in simulate.compare(result, images).items():
        assert comparison.equal, str(comparison)
        compared += comparison.codes_compared
        timing = image_timing(result.program.machine, result.program.assignments[name])
        for layer in timing.layers:
            assert result.cycles[name][layer.name].tolist() == [layer.cycles] * count, f"{name}, {layer.name}"
        found = estimate(network, result.program.machine, result.program.assignments[name].assignment)
        for layer in found.layers:
            assert result.cycles[name][layer.name].tolist() == [layer.cycles] * count, f"{name}, {layer.name}"
        assert found.cycles == timing.cycles and COMMAND_CYCLES == simulate.COMMAND_CYCLES
        assert (
            result.weight_planes_read[name] * result.program.machine.weight_word_bits == found.traffic.weight_bits
        ).all()
        counted = timing.cycles + result.stall_cycles[name] + simulate.COMMAND_CYCLES
        assert result.elapsed_cycles[name].tolist() == counted.tolist(), name
        assert len(np.unique(result.predictions[name])) > 3
    assert compared > 6 * count * 1_000
