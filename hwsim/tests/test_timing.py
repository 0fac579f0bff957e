"""The cycle recurrence: what holds for every program. Equality with the hardware is tested where that is simulated."""

from __future__ import annotations

import pytest

from hwsim.assignments import uniform_assignments
from hwsim.machine import Machine
from hwsim.precision import CATALOG
from hwsim.program import build, fit_machine
from hwsim.random_network import SMALL, random_assignment, random_network
from hwsim.timing import image_timing


@pytest.fixture(scope="module")
def program():  # type: ignore[no-untyped-def]
    widths = CATALOG["8-6-4-2"]
    network = random_network(7, widths, (1, 8, 8), SMALL)
    assignments = [*uniform_assignments(network), *(random_assignment(network, seed) for seed in range(6))]
    machine = fit_machine(network, assignments, Machine.sized(widths, widths, 16, 8))
    return build(network, machine, assignments)


def test_layers_add_up_and_follow_one_another(program) -> None:  # type: ignore[no-untyped-def]
    for part in program.assignments.values():
        timing = image_timing(program.machine, part)
        assert [layer.name for layer in timing.layers] == [layer.name for layer in program.network]
        assert timing.cycles == sum(layer.cycles for layer in timing.layers)
        end = 0
        for layer in timing.layers:
            assert end < layer.start_cycle < layer.end_cycle
            assert layer.cycles == layer.end_cycle - end
            assert 0 < layer.array_cycles < layer.cycles
            end = layer.end_cycle


def test_array_cycles_are_passes_times_pixels(program) -> None:  # type: ignore[no-untyped-def]
    for part in program.assignments.values():
        timing = image_timing(program.machine, part)
        for layer, fields in zip(timing.layers, part.layers, strict=True):
            units = fields["units"] * fields["kernel_height"] * fields["kernel_width"]
            steps = -(-units // program.machine.banks)
            assert layer.array_cycles == fields["tiles"] * fields["passes"] * steps * fields["output_pixels"]


def test_narrower_is_faster(program) -> None:  # type: ignore[no-untyped-def]
    cycles = [
        image_timing(program.machine, program.assignments[name]).cycles for name in ("W8A8", "W6A6", "W4A4", "W2A2")
    ]
    assert cycles == sorted(cycles, reverse=True)
    assert len(set(cycles)) == 4
