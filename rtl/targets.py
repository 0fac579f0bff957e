"""What the hardware may be built from: portable logic, or the cells of one FPGA family."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """One kind of FPGA; given to Amaranth as the platform, so that the leaves see it when they are elaborated.

    Parameters
    ----------
    name : str
        As on the command line.
    carry_cells : bool
        The array and the accumulator use CCU2C cells, see ``rtl.leaves.carry_chain``.
    block_ram : bool
        Memories use DP16KD cells with their output registers, see ``rtl.leaves.memory``.
    multipliers : int
        MULT18X18D cells of the largest part. The DSP datapath and the requantizers use them, with their registers: see
        ``rtl.leaves.multiplier`` and ``rtl.leaves.signed_product``. 0: they are written as ``*``.
    """

    name: str
    carry_cells: bool = False
    block_ram: bool = False
    multipliers: int = 0

    def require_multipliers(self, count: int, what: str) -> None:
        """Raise ``ValueError`` if ``what`` takes more multipliers than there are, where they are cells of their own."""
        if self.multipliers and count > self.multipliers:
            raise ValueError(f"{what} take {count} multipliers, the largest {self.name} has {self.multipliers}")


PORTABLE = Target("portable")
"""Plain logic for every tool; the form that the leaves of the other targets are proved equal to."""

ECP5 = Target("ecp5", carry_cells=True, block_ram=True, multipliers=156)
"""Lattice ECP5, through yosys and nextpnr."""

TARGETS = {target.name: target for target in (PORTABLE, ECP5)}


def target_of(platform: object) -> Target:
    """Return the target that Amaranth's ``platform`` argument stands for: portable unless it is a ``Target``."""
    return platform if isinstance(platform, Target) else PORTABLE


CELL_MODELS = Path(__file__).with_name("leaves") / "ecp5_cells.v"
"""Verilog of the ECP5 cells that the leaves instantiate, for simulators."""
