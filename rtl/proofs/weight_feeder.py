"""Proofs of the weight feeder: it reads the rows of its tile and no others, and notes where each unit comes from."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Mux, Signal, Value

from rtl.proofs.bench import Bench
from rtl.proofs.descriptors import (
    SMALL_WINDOWS,
    has_small_window,
    is_of_window,
    multiple_of,
    product,
    unit_turns,
    valid_staging,
)
from rtl.proofs.machine import UNEVEN
from rtl.proofs.proof import Mutant, Proof
from rtl.weight_feeder import WeightFeeder


@dataclass(frozen=True)
class Walk:
    """How far the feeder has come in a window: kernel rows, columns and units done."""

    rows: Value
    columns: Value
    units: Value


def check_walk(bench):
    """State how the loops of the window go on, and return where they are. The layer stays what it is."""
    dut = bench.component
    layer = dut.layer
    bench.assume_constant(layer.as_value())
    bench.assume(valid_staging(UNEVEN, layer))
    # Registers are derived from the descriptor in the cycle before a layer starts.
    bench.assume(bench.after(2) | ~dut.start)
    bench.implies(~bench.in_state("dut", "IDLE"), ~layer.is_max_pool, "nothing is fed for max pooling")
    bench.check(dut.pass_ready == bench.in_state("dut", "READY"), "a pass is ready in that state")
    works = bench.in_state("dut", "BEGIN", "LOAD", "READY", "NEXT")
    window_ended = bench.internal("dut.window_ended")
    left = {}
    for name, turns, lowest in (
        ("units_of_tap", layer.units, 1),
        ("columns", layer.kernel_width, 1),
        ("rows", layer.kernel_height, ~window_ended),
    ):
        left[name] = bench.signal(f"dut.{name}_left")
        bench.implies(works, (left[name] >= lowest) & (left[name] <= turns), f"{name} left")
        is_last = bench.signal(f"dut.{name}_is_last")
        bench.implies(works & ~window_ended, is_last == (left[name] == 1), f"the last of {name} is known")
        if name != "rows":
            bench.implies(works, is_last == (left[name] == 1), f"the last of {name} is known")
        single = bench.signal(f"dut.{name}_is_single")
        bench.implies(bench.after(1), single == (turns == 1), f"whether {name} are single is known")
    bench.implies(bench.in_state("dut", "LOAD", "BEGIN"), ~window_ended, "a window that has ended is not loaded")
    return Walk(
        rows=(layer.kernel_height - left["rows"])[: len(layer.kernel_height)],
        columns=(layer.kernel_width - left["columns"])[: len(layer.kernel_width)],
        units=(layer.units - left["units_of_tap"])[: len(layer.units)],
    )


def reads_in_range(component):
    """Tiles are ready, and passes taken, at any time."""
    bench = Bench(component(UNEVEN))
    dut, layer = bench.component, bench.component.layer
    walk = check_walk(bench)
    most = UNEVEN.staging_words
    half, plane_address, read_address, reading, loads, window_ended = (
        bench.internal(f"dut.{name}")
        for name in ("half", "plane_address", "read_address", "reading", "loads", "window_ended")
    )
    turns_of_unit = unit_turns(UNEVEN, layer)
    works, waits = bench.in_state("dut", "BEGIN", "LOAD", "READY", "NEXT"), bench.in_state("dut", "WAIT TILE")
    is_loading = bench.in_state("dut", "LOAD")
    bench.implies(bench.after(1), bench.internal("dut.unit_turns") == turns_of_unit, "the turns of a unit are known")
    half_start = Mux(half, UNEVEN.staging_words, 0)
    tile_start = half_start + layer.staging_start
    bench.implies(bench.after(1), bench.internal("dut.tile_start") == tile_start, "where a tile begins is known")

    planes_left, planes_are_last = bench.signal("dut.planes_left"), bench.signal("dut.planes_is_last")
    single = bench.signal("dut.planes_is_single")
    bench.implies(bench.after(1), single == (layer.passes == 1), "whether there is one plane is known")
    bench.implies(works | waits, (planes_left >= 1) & (planes_left <= layer.passes), "planes left")
    bench.implies(works | waits, planes_are_last == (planes_left == 1), "the last plane is known")
    bench.implies(waits, planes_left == layer.passes, "a tile begins with its first plane")
    planes_done = (layer.passes - planes_left)[: len(planes_left)]
    bench.implies(works, plane_address == tile_start + product(planes_done, layer.plane_step, most), "plane address")

    turns_left, turns_are_last = bench.signal("dut.turns_left"), bench.signal("dut.turns_is_last")
    turns = Mux(loads, turns_of_unit, 1)
    bench.implies(is_loading, (turns_left >= 1) & (turns_left <= turns), "turns left")
    bench.implies(is_loading, turns_are_last == (turns_left == 1), "the last turn is known")
    tap_rows = product(layer.units, turns_of_unit, most)
    row_rows = product(layer.kernel_width, tap_rows, most)
    in_window = product(walk.rows, row_rows, most) + product(walk.columns, tap_rows, most)
    turns_done = Mux(is_loading, (turns_of_unit - turns_left)[: len(turns_left)], 0)
    done = Mux(layer.shares_taps, 0, in_window) + product(walk.units, turns_of_unit, most) + turns_done
    bench.implies(works & ~window_ended & loads, read_address == plane_address + done, "row by row")
    in_half = (dut.staging_address >= half_start) & (dut.staging_address < half_start + UNEVEN.staging_words)
    bench.implies(reading, in_half, "read where the tile is")
    return bench


def notes_units(component):
    """Of every step, which kernel tap each unit is of, and which unit of its pixel."""
    bench = Bench(component(UNEVEN))
    m, dut, layer = bench.m, bench.component, bench.component.layer
    walk = check_walk(bench)
    bench.assume(has_small_window(layer, layer.kernel_row_step))
    bits = UNEVEN.unit_address_bits
    works = bench.in_state("dut", "BEGIN", "LOAD", "READY", "NEXT") & ~bench.internal("dut.window_ended")
    row_offset, offset, row, column = (
        bench.internal(f"dut.{name}") for name in ("row_offset", "offset", "kernel_row", "kernel_column")
    )
    at_row = multiple_of(walk.rows, layer.kernel_row_step, bits)
    at_tap = at_row + multiple_of(walk.columns, layer.units, bits)
    bench.implies(works, row_offset == at_row, "offset of a kernel row")
    bench.implies(works, offset == (at_tap + walk.units)[:bits], "offset of a unit")
    bench.implies(works, (row == walk.rows - layer.padding) & (column == walk.columns - layer.padding), "kernel tap")

    bank, loading = bench.internal("dut.bank"), bench.in_state("dut", "LOAD")
    for index in range(UNEVEN.banks):
        noted = [Signal.like(value, name=f"noted_{index}_{at}") for at, value in enumerate(vars(walk).values())]
        with m.If(loading & (bank == index)):
            m.d.sync += [now.eq(value) for now, value in zip(noted, vars(walk).values(), strict=True)]
        bench.implies(
            dut.next_pass.units[index].valid,
            is_of_window(UNEVEN, layer, dut.next_pass.units[index], *noted),
            f"unit {index}",
        )
    return bench


PROOFS = (
    Proof(
        "weight_feeder.reads_in_range",
        "with the planes datapath, every row of the staging memory that is read is one of its tile's, in the half "
        "where it is staged, so its "
        "address is in range: whatever the valid descriptors, and whenever tiles are ready and passes taken",
        WeightFeeder,
        reads_in_range,
        depth=3,
        mutant_depth=14,
        mutants=(
            Mutant("*planes.step(), first_plane.eq(0)", "first_plane.eq(0)"),
            Mutant("else plane_address + layer.plane_step)", "else plane_address + layer.plane_step + 1)"),
            Mutant("with m.If(layer.shares_taps):", "with m.If(0):"),
        ),
    ),
    Proof(
        "weight_feeder.notes_units",
        "every unit of a step is noted with its kernel tap and its address relative to the output pixel's window, "
        f"for {SMALL_WINDOWS}",
        WeightFeeder,
        notes_units,
        depth=2,
        mutant_depth=16,
        mutants=(
            Mutant("kernel_row.eq(kernel_row + 1),", "kernel_row.eq(kernel_row),"),
            Mutant("kernel_column.eq(kernel_column + 1), *kernel_columns.step()", "*kernel_columns.step()"),
        ),
    ),
)
