"""Proof of the activation streamer: every unit of a window meets the lanes of its own bank position."""

from __future__ import annotations

import dataclasses

from amaranth.hdl import Cat, Const, Mux, Signal, signed

from hwsim.machine import ACTIVATION_ARRIVAL_CYCLES, SIZE_BITS
from rtl.accumulator import Accumulator
from rtl.activation_streamer import ActivationStreamer
from rtl.leaves.memory import TwoCycleMemory
from rtl.proofs.bench import Bench
from rtl.proofs.machine import SMALL
from rtl.proofs.proof import Mutant, Proof

MACHINE = dataclasses.replace(SMALL, banks=4)
"""With two banks both directions of the rotation are the same."""


def units_meet_positions(component):
    """Every word of the banks holds its own unit address, so that what arrives tells where it was read."""
    bench = Bench(component(MACHINE, Accumulator.HAZARD_CYCLES))
    m, dut = bench.m, bench.component
    layer, banks = dut.layer, MACHINE.banks
    bank_bits = banks.bit_length() - 1
    bench.assume_constant(layer.as_value())
    del bench.inputs["read_data"]
    for bank in range(banks):
        read = Cat(Const(bank, bank_bits), dut.read_address[bank])
        m.d.comb += dut.read_data[bank].eq(bench.past(read, 1 + TwoCycleMemory.LATENCY + ACTIVATION_ARRIVAL_CYCLES))

    running, this_pass = bench.internal("dut.running"), bench.view("dut.this_pass")
    address, x, y = (bench.signal(f"dut.current_{name}") for name in ("address", "x", "y"))
    for index in range(banks):
        unit = this_pass.units[index]
        column, row = Signal(signed(SIZE_BITS + 3)), Signal(signed(SIZE_BITS + 3))
        m.d.comb += [column.eq(x + unit.kernel_column), row.eq(y + unit.kernel_row)]
        inside = (column >= 0) & (column < layer.input_width) & (row >= 0) & (row < layer.input_height)
        # A step's units lie in neighbouring banks: so the weight feeder counts, and so the program lays tensors out.
        in_place = unit.offset[:bank_bits] == index
        shown = running & unit.valid & inside
        expected = Mux(shown, (address + unit.offset)[: MACHINE.unit_address_bits], 0)
        bench.implies(
            bench.past(in_place, dut.LATENCY) & bench.after(dut.LATENCY),
            dut.activations[index] == bench.past(expected, dut.LATENCY),
            f"unit {index} meets position {index}",
        )
    bench.implies(bench.after(dut.LATENCY), dut.step.valid == bench.past(running, dut.LATENCY), "step")
    return bench


PROOFS = (
    Proof(
        "activation_streamer.units_meet_positions",
        f"with {MACHINE.banks} banks, unit u of a step arrives at position u from its own unit address, or as zeros "
        "if it lies outside the image, LATENCY cycles after its pixel and with its step: every address, layer and pass",
        ActivationStreamer,
        units_meet_positions,
        depth=ActivationStreamer.LATENCY + 2,
        mutant_depth=16,
        mutants=(
            Mutant("bank_bits, backward=True)", "bank_bits, backward=False)"),
            Mutant('turn_1, self.LATENCY - 1, "turn_data"', 'turn_1, self.LATENCY - 2, "turn_data"'),
            Mutant("(y >= 0)", "(y >= -1)"),
        ),
    ),
)
