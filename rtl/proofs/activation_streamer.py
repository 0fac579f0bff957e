"""Proof of the activation streamer: every unit of a window meets the lanes of its own bank position."""

from __future__ import annotations

import dataclasses

from amaranth.hdl import Cat, Const, Mux, Signal, Value, signed

from hwsim.machine import ACTIVATION_ARRIVAL_CYCLES, KERNEL_BITS, SIZE_BITS
from rtl.accumulator import Accumulator
from rtl.activation_streamer import ActivationStreamer
from rtl.leaves.memory import TwoCycleMemory
from rtl.proofs.bench import Bench
from rtl.proofs.descriptors import (
    SMALL_WINDOWS,
    any_place,
    has_small_window,
    is_of_window,
    multiple_of,
    product,
    valid_input,
)
from rtl.proofs.machine import SMALL, UNEVEN
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


def reads_in_range(component):
    """The feeder gives any units of the window, as proved of it; passes come at any time within a layer."""
    bench = Bench(component(UNEVEN, Accumulator.HAZARD_CYCLES))
    m, dut = bench.m, bench.component
    layer, banks, bits = dut.layer, UNEVEN.banks, UNEVEN.unit_address_bits
    place = any_place(bench, UNEVEN, "input")
    bench.assume_constant(layer.as_value())
    bench.assume(valid_input(UNEVEN, layer, place) & ~layer.reads_image)
    bench.assume(has_small_window(layer, place.row_units))
    running, this_pass, turn = (bench.view(f"dut.{name}") for name in ("running", "this_pass", "turn_1"))
    started = Signal()
    with m.If(dut.start):
        m.d.sync += started.eq(1)
    bench.assume(bench.after(2) | ~dut.start)
    bench.assume(~dut.pass_ready | (started & ~dut.start))
    bench.assume(~dut.start | ~running)
    bench.implies(running, started, "nothing runs before a layer")

    for when in ("start", "current"):
        x, y, next_y, row_address, address = (
            bench.signal(f"dut.{when}_{name}") for name in ("x", "y", "next_y", "row_address", "address")
        )
        at_row = (layer.input_start + multiple_of(y, place.row_units, bits))[:bits]
        known = started if when == "start" else running
        bench.implies(known, next_y == (y + layer.stride)[: len(y)], f"{when}: the row after this one")
        bench.implies(known, row_address == at_row, f"{when}: where the row begins")
        bench.implies(
            known, address == (at_row + multiple_of(x, layer.units, bits))[:bits], f"{when}: where the pixel is"
        )

    inside = bench.view("dut.inside")
    for index in range(banks):
        unit, next_unit = this_pass.units[index], dut.next_pass.units[index]
        noted = []
        for name, width in (("row", KERNEL_BITS), ("column", KERNEL_BITS), ("unit", SIZE_BITS)):
            value = bench.any_value(width, f"next_{name}_{index}")
            held = Signal(width, name=f"{name}_{index}")
            with m.If(dut.take):
                m.d.sync += held.eq(value)
            noted.append((value, held))
        bench.assume(~next_unit.valid | is_of_window(UNEVEN, layer, next_unit, *(value for value, _ in noted)))
        valid = running & unit.valid
        held_unit = noted[2][1]
        is_noted = is_of_window(UNEVEN, layer, unit, *(held for _, held in noted))
        bench.implies(valid, is_noted, f"unit {index} is noted as one of the window")
        column, row = bench.signal(f"dut.x_{index}"), bench.signal(f"dut.y_{index}")
        address = bench.signal(f"dut.address_{index}")
        in_tensor = multiple_of(row, place.row_units, bits) + multiple_of(column, layer.units, bits)
        then = bench.past(held_unit)
        is_inside = Value.cast(inside[index])
        bench.implies(is_inside, address == (place.start + in_tensor + then)[:bits], f"unit {index}: its own address")
        bench.implies(is_inside, then < layer.units, f"unit {index}: of its pixel")
        end = place.start + product(place.height, place.row_units, banks * UNEVEN.activation_words)
        bench.implies(bench.past(is_inside), bench.past(address) < end, f"unit {index}: in its tensor")
        for bank in range(banks):
            here = bench.past(is_inside & ((turn + index)[: len(turn)] == bank))
            word = bench.past(dut.read_address[bank])
            bench.implies(here, word < UNEVEN.activation_words, f"unit {index}, bank {bank}: address in range")
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
    Proof(
        "activation_streamer.reads_in_range",
        "every unit that is read inside the image lies in its tensor, so its address is in range; outside it, where "
        f"addresses wrap, what is read is masked: whatever the passes and valid descriptors, for {SMALL_WINDOWS}",
        ActivationStreamer,
        reads_in_range,
        depth=2,
        mutant_depth=16,
        mutants=(
            Mutant("(x < layer.input_width)", "(x <= layer.input_width)"),
            Mutant("(y >= 0)", "(y >= -1)"),
            Mutant('"row_address": layer.input_start', '"row_address": 0'),
        ),
    ),
)
