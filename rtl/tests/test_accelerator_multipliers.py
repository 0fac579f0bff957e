"""Machines that take more multipliers than a target has are refused."""

import pytest

from hwsim.machine import Machine
from hwsim.precision import CATALOG
from rtl.accelerator import check_multipliers, multiplier_count
from rtl.targets import ECP5, PORTABLE
from rtl.verilog import accelerator_verilog

WIDTHS = CATALOG["8-6-4-2"]


def test_machines_are_sized_so_that_multipliers_are_left_for_the_requantizers():
    assert multiplier_count(Machine.sized(WIDTHS, WIDTHS, 8, 16, datapath="dsp")) == 8 * 16 + 4 * 5 <= ECP5.multipliers
    assert multiplier_count(Machine.sized(WIDTHS, WIDTHS, 32, 16)) == 8 * 5


def test_too_many_are_refused():
    machine = Machine.sized(WIDTHS, WIDTHS, 8, 16, datapath="dsp", requantizers=8)
    message = "8 lanes x 16 columns and 8 requantizers take 168 multipliers, the largest ecp5 has 156"
    with pytest.raises(ValueError, match=message):
        accelerator_verilog(machine, target=ECP5)
    check_multipliers(machine, PORTABLE)
