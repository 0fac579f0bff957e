"""Proof of max pooling: it reads units of its input's tensor, and writes those of its output's."""

from __future__ import annotations

from amaranth.hdl import Mux, Signal

from rtl.max_pool import MaxPool
from rtl.proofs.bench import Bench
from rtl.proofs.descriptors import (
    SMALL_WINDOWS,
    any_place,
    has_small_window,
    multiple_of,
    product,
    valid_input,
    valid_output,
)
from rtl.proofs.machine import UNEVEN
from rtl.proofs.proof import Mutant, Proof

UNITS = UNEVEN.banks * UNEVEN.activation_words


def addresses_in_range(component):
    """One layer, any valid one, again and again."""
    bench = Bench(component(UNEVEN))
    m, dut = bench.m, bench.component
    layer, bits = dut.layer, UNEVEN.unit_address_bits
    source, target = any_place(bench, UNEVEN, "input"), any_place(bench, UNEVEN, "output")
    bench.assume_constant(layer.as_value())
    bench.assume(layer.is_max_pool & ~layer.reads_image)
    bench.assume(valid_input(UNEVEN, layer, source) & valid_output(UNEVEN, layer, target))
    bench.assume(has_small_window(layer, source.row_units))
    # Registers are derived from the descriptor before a layer starts.
    bench.assume(bench.after(2) | ~dut.start)
    running = bench.in_state("dut", "RUN")
    loops = {}
    for name, turns in (
        ("kernel_columns", layer.kernel_width),
        ("kernel_rows", layer.kernel_height),
        ("units", layer.units),
        ("columns", layer.output_width),
        ("pixels", layer.output_pixels),
    ):
        loop = loops[name] = bench.view(f"dut.{name}")
        bench.implies(running, (loop.left >= 1) & (loop.left <= turns), f"{name} left")
        bench.implies(running, loop.is_last == (loop.left == 1), f"the last of {name} is known")
        bench.implies(bench.after(1), loop.is_single == (turns == 1), f"whether {name} are single is known")

    # Where the tap lies in the input: its window's place, the tap, the unit.
    x, y, left, top = (bench.internal(f"dut.{name}") for name in ("x", "y", "left", "top"))
    unit = (layer.units - loops["units"].left)[: len(layer.units)]

    def unit_at(row, column):
        return multiple_of(row, source.row_units, bits) + multiple_of(column, layer.units, bits) + source.start

    next_row, next_pixel, window, tap_row, tap, output = (
        bench.internal(f"dut.{name}")
        for name in ("next_row", "next_pixel", "window_address", "tap_row_address", "tap_address", "output_address")
    )
    origin = -layer.padding
    bench.implies(running, window == (unit_at(top, left) + unit)[:bits], "unit of a window")
    bench.implies(running, tap_row == (unit_at(y, left) + unit)[:bits], "unit of a row of taps")
    bench.implies(running, tap == (unit_at(y, x) + unit)[:bits], "unit of a tap")
    bench.implies(running, next_row == unit_at(top + layer.stride, origin)[:bits], "the next row of windows")
    bench.implies(running, next_pixel == unit_at(top, left + layer.stride)[:bits], "the next window")
    inside = bench.internal("dut.inside") & running
    end = source.start + product(source.height, source.row_units, UNITS)
    bench.implies(bench.past(inside), bench.past(tap) < end, "a unit of the input")
    bench.implies(bench.past(inside), bench.past(dut.read_address) < UNITS, "read address in range")

    # The rows of the output, which are not counted.
    row = Signal(len(target.height))
    last_tap = bench.internal("dut.last_tap")
    with m.If(bench.in_state("dut", "IDLE")):
        m.d.sync += row.eq(0)
    with m.Elif(running & last_tap & loops["units"].is_last):
        m.d.sync += row.eq(row + loops["columns"].is_last)
    column = (layer.output_width - loops["columns"].left)[: len(layer.output_width)]
    pixel = (layer.output_pixels - loops["pixels"].left)[: len(layer.output_pixels)]
    row_end = bench.internal("dut.row_end_units")
    bench.implies(bench.after(1), row_end == (layer.output_row_gap + 1)[: len(row_end)], "row end")
    in_image = product(row, layer.output_width, UNITS) + column
    bench.implies(running, (row < target.height) & (pixel == in_image), "row and column of the output")
    in_tensor = product(row, target.row_units, UNITS) + product(column, layer.units, UNITS) + unit
    bench.implies(running, output == layer.output_start + in_tensor, "unit of the output")
    stages = [Mux(running, output, 0)]
    for cycle in range(1, MaxPool.ARRIVAL_CYCLES + 2):
        controls = bench.signal(f"dut.controls_{cycle}")
        stages.append(Mux(controls[0], controls[3:], 0))
    for at, address in enumerate(stages):
        bench.implies(1, address < UNITS, f"unit of the output in range, stage {at}")
    bench.implies(dut.write_enable, dut.write_address < UNITS, "write address in range")
    return bench


PROOFS = (
    Proof(
        "max_pool.addresses_in_range",
        "every unit that is read inside the image is one of its input, every unit that is written one of its output, "
        f"so the addresses are in range: whatever the valid descriptors and tensors, for {SMALL_WINDOWS}",
        MaxPool,
        addresses_in_range,
        depth=2,
        mutant_depth=16,
        mutants=(
            Mutant("(x < layer.input_width)", "(x <= layer.input_width)"),
            Mutant("next_pixel.eq(next_row + layer.pixel_step)", "next_pixel.eq(next_row + layer.row_step)"),
            Mutant("row_end_units.eq(layer.output_row_gap + 1)", "row_end_units.eq(layer.output_row_gap + 2)"),
        ),
    ),
)
