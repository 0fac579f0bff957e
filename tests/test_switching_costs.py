"""A change of width between layers costs nothing; see ``benchmarks/switching.py``."""

from __future__ import annotations

import pytest

from benchmarks import switching
from hwsim.machine import Machine
from hwsim.random_network import SMALL, random_assignment, random_network


def test_a_layer_of_resnet20_takes_its_own_cycles_whatever_stands_around_it() -> None:
    told = switching.report(20, 0)
    for summary in told["predicted"].values():
        assert summary["largest_deviation_of_a_layer"] == 0
        assert summary["load_wait_cycles"][0] >= 0
    assert told["predicted"]["64-bit weight port"]["largest_wait_of_cycles"] < 0.005
    assert {row["assignment"] for row in told["rows"]} == {"W8A8", "W6A6", "W4A4", "W2A2"}


def test_cycles_that_depend_on_the_neighbours_would_be_noticed() -> None:
    """With the waits left in, layers do differ: the comparison looks at something."""
    network = random_network(7, switching.WIDTHS, (1, 8, 8), SMALL)
    machine = Machine.sized(switching.WIDTHS, switching.WIDTHS, 16, 8, weight_port_bits=2)
    seen = [
        (assignment, switching.layer_cycles(machine, assignment, weights_staged=False))
        for assignment in (*switching.uniform(network), *(random_assignment(network, seed) for seed in range(4)))
    ]
    with pytest.raises(ValueError, match=r"took \d+ cycles, and \d+ in"):
        switching.own_cycles(seen)


@pytest.mark.verilator
def test_in_verilog_too_and_narrow_weights_read_one_plane_more_than_they_have() -> None:
    summary, rows = switching.measured(2, 8, 4, quick=True)
    assert summary["largest_deviation_of_a_layer"] == 0 and summary["codes_compared"] > 10_000
    read = {row["weight_bits"]: row["planes_read_per_row"] for row in rows}
    assert read == {8: 8, 6: 7, 4: 5, 2: 3}
