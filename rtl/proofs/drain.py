"""Proof of the drain: every table entry, skip code, code and logit it reads or writes is one that there is."""

from __future__ import annotations

from amaranth.hdl import Mux, Signal

from hwsim.machine import ACCUMULATOR_ARRIVAL_CYCLES
from rtl.drain import Drain, output_layout
from rtl.leaves.memory import TwoCycleMemory
from rtl.multiple import multiple
from rtl.proofs.bench import Bench
from rtl.proofs.descriptors import activations_per_lane, any_place, product, valid_drain, valid_output
from rtl.proofs.machine import UNEVEN
from rtl.proofs.proof import Mutant, Proof
from rtl.requantizer import Requantizer

UNITS = UNEVEN.banks * UNEVEN.activation_words


def addresses_in_range(component):
    """One layer, any valid one, again and again; banks are ready at any time but the first cycle of a layer's wait."""
    bench = Bench(component(UNEVEN))
    dut, layer = bench.component, bench.component.layer
    place = any_place(bench, UNEVEN, "output")
    bench.assume_constant(layer.as_value())
    bench.assume(valid_drain(UNEVEN, layer) & valid_output(UNEVEN, layer, place))
    # Registers are derived from the descriptor before a layer starts, and from its size before its first job ends.
    bench.assume(bench.after(2) | ~dut.start)
    begins = bench.past_reset(bench.in_state("dut", "READ CODE TABLE"), 1)
    bench.assume(~(begins & dut.bank_ready))

    bench.implies(~states(bench, "IDLE"), ~layer.is_max_pool, "nothing is drained for max pooling")
    before, position = check_pixels(bench, begins)
    check_groups(bench)
    check_tables(bench)
    check_offsets(bench, place, before, position)
    check_writes(bench)
    return bench


def states(bench, *names):
    """Return whether the drain is in one of these states."""
    return bench.in_state("dut", *names)


def check_pixels(bench, begins):
    """State which pixels a strip has; return those before it, in its tile, and the one that is due."""
    layer = bench.component.layer
    pixels_left, pixels_after, next_pixels, next_is_last, strip_pixels, is_last, pixel = (
        bench.internal(f"dut.{name}")
        for name in (
            "pixels_left",
            "pixels_after",
            "next_pixels",
            "next_is_last_strip",
            "strip_pixels",
            "is_last_strip",
            "pixel",
        )
    )
    pixels = bench.view("dut.pixels")
    total, most = layer.output_pixels, UNEVEN.strip_pixels
    waits, streams = states(bench, "WAIT BANK"), states(bench, "STREAM")
    works = states(bench, "BEGIN GROUP", "READ TABLE", "TABLE ARRIVES", "STREAM")
    known = states(bench, "READ TABLE", "TABLE ARRIVES", "STREAM", "WAIT BANK")
    bench.implies(known, next_pixels == Mux(pixels_left >= most, most, pixels_left), "pixels of the next strip")
    bench.implies(known, next_is_last == (pixels_left <= most), "whether the next strip is the last")
    known = states(bench, "TABLE ARRIVES", "STREAM") | (waits & ~begins)
    after = Mux(next_is_last, total, pixels_left - most)
    bench.implies(known, pixels_after == after[: len(pixels_after)], "pixels after the next strip")

    bench.implies(states(bench, "READ CODE TABLE"), pixels_left == total, "a layer begins with all its pixels")
    bench.implies(waits, (pixels_left >= 1) & (pixels_left <= total), "pixels left")
    bench.implies(works, (strip_pixels >= 1) & (strip_pixels <= most), "pixels of a strip")
    last = (pixels_left == total) & (strip_pixels <= total)
    others = (pixels_left >= 1) & (pixels_left + strip_pixels <= total)
    bench.implies(works, Mux(is_last, last, others), "pixels left after a strip")
    bench.implies(streams, (pixel + pixels.left == strip_pixels) & (pixels.left >= 1), "pixel")
    bench.implies(streams, pixels.is_last == (pixels.left == 1), "the last pixel is known")
    ready = states(bench, "READ TABLE", "TABLE ARRIVES")
    first = (pixel == 0) & (pixels.left == strip_pixels) & (pixels.is_last == (strip_pixels == 1))
    bench.implies(ready, first, "the first pixel")
    of_strip = (total - Mux(is_last, 0, pixels_left) - strip_pixels)[: len(total)]
    start = Mux(waits, (total - pixels_left)[: len(total)], of_strip)
    return start, (start + Mux(streams, pixel, 0))[: len(total)]


def check_groups(bench):
    """State which groups of channels a tile has."""
    layer = bench.component.layer
    groups_left, next_groups, next_is_last, is_last_strip, is_last_tile, group, tile_start, channel_group = (
        bench.internal(f"dut.{name}")
        for name in (
            "groups_left",
            "next_groups",
            "next_is_last_tile",
            "is_last_strip",
            "is_last_tile",
            "group",
            "tile_channel_group",
            "channel_group",
        )
    )
    groups = bench.view("dut.groups")
    most, total = UNEVEN.groups_of_channels, layer.channel_groups
    waits = states(bench, "WAIT BANK")
    works = states(bench, "BEGIN GROUP", "READ TABLE", "TABLE ARRIVES", "STREAM")
    known = states(bench, "READ TABLE", "TABLE ARRIVES", "STREAM", "WAIT BANK") & ~(
        works & is_last_strip & is_last_tile
    )
    bench.implies(known, next_groups == Mux(groups_left < most, groups_left, most), "groups of the next tile")
    bench.implies(known, next_is_last == (groups_left <= most), "whether the next tile is the last")
    begins = states(bench, "READ CODE TABLE")
    bench.implies(begins, (groups_left == total) & (tile_start == 0), "a layer begins with all its groups")
    bench.implies(waits, (groups_left >= 1) & (tile_start + groups_left == total), "groups left")
    of_tile = group + groups.left
    bench.implies(works, (groups.left >= 1) & (of_tile <= most), "groups of a tile")
    bench.implies(works, groups.is_last == (groups.left == 1), "the last group is known")
    bench.implies(works, channel_group == tile_start + group, "channel group")
    bench.implies(works, (channel_group < total) & (tile_start + of_tile <= total), "channel group in range")
    bench.implies(works, is_last_tile == (tile_start + of_tile == total), "the last tile is known")
    left = (total - tile_start)[: len(total)] - Mux(is_last_strip, of_tile, 0)
    bench.implies(
        works & ~(is_last_strip & is_last_tile), groups_left == left[: len(total)], "groups left after a tile"
    )


def check_tables(bench):
    """State where the tables are read."""
    dut, layer = bench.component, bench.component.layer
    requantizers = UNEVEN.requantizers
    reads = bench.view("dut.reads")
    channel_group = bench.internal("dut.channel_group")
    entry = (multiple(channel_group, requantizers) + requantizers - reads.left)[: len(channel_group) + 1]
    code_entry = multiple(layer.channel_groups, requantizers)
    is_reading, is_reading_code = bench.internal("dut.reading_table"), bench.internal("dut.reading_code_table")
    bench.implies(is_reading, (reads.left >= 1) & (reads.left <= requantizers), "entries left")
    bench.implies(is_reading, reads.is_last == (reads.left == 1), "the last entry is known")
    bench.implies(is_reading, dut.table_address == layer.table_start + entry, "entry of a channel")
    bench.implies(is_reading_code, dut.table_address == layer.table_start + code_entry, "entry of the codes")
    bench.implies(is_reading | is_reading_code, dut.table_address < UNEVEN.table_words, "table address in range")
    adds = is_reading & layer.adds
    bench.implies(adds, dut.skip_table_address == layer.skip_table_start + entry, "entry of a channel's skip code")
    bench.implies(adds, dut.skip_table_address < UNEVEN.skip_table_words, "skip table address in range")


def check_offsets(bench, place, before, position):
    """State where a pixel lies in its tensor, for skip codes and for codes."""
    m, layer = bench.m, bench.component.layer
    skip_offset, unit_offset, columns = (
        bench.view(f"dut.{name}") for name in ("skip_offset", "unit_offset", "columns")
    )
    waits, streams = states(bench, "WAIT BANK"), states(bench, "STREAM")
    works = states(bench, "BEGIN GROUP", "READ TABLE", "TABLE ARRIVES", "STREAM")
    has_skip = layer.adds | layer.makes_skip
    where = {"start": (works | waits, before), "now": (works, position)}
    for when, (known, pixel) in where.items():
        expected = product(pixel, layer.channel_groups, UNEVEN.skip_words)
        bench.implies(known & has_skip, skip_offset[when] == expected, f"skip code of a pixel, {when}")

    # The rows, which the drain does not count.
    rows = {when: Signal(len(place.height), name=f"row_{when}") for when in where}
    after = rows["now"] + columns["now"].is_last
    with m.If(streams):
        m.d.sync += rows["now"].eq(after)
        with m.If(bench.view("dut.pixels").is_last):
            with m.If(bench.view("dut.groups").is_last):
                m.d.sync += rows["start"].eq(Mux(bench.internal("dut.is_last_strip"), 0, after))
            with m.Else():
                m.d.sync += rows["now"].eq(rows["start"])
    with m.Elif(waits):
        m.d.sync += rows["now"].eq(rows["start"])
    with m.Elif(states(bench, "IDLE")):
        m.d.sync += rows["start"].eq(0)
    bench.implies(states(bench, "READ CODE TABLE"), rows["start"] == 0, "a layer begins with its first row")
    row_end = bench.internal("dut.row_end_units")
    bench.implies(bench.after(1) & layer.makes_code, row_end == layer.output_units + layer.output_row_gap, "row end")
    for when, (known, pixel) in where.items():
        left, width = columns[when].left, layer.output_width
        column = (width - left)[: len(width)]
        bench.implies(known, (left >= 1) & (left <= width), f"columns left, {when}")
        bench.implies(known, columns[when].is_last == (left == 1), f"the last column is known, {when}")
        single = columns[when].is_single
        bench.implies(bench.after(1), single == (width == 1), f"whether there is one column is known, {when}")
        in_image = product(rows[when], width, UNITS) + column
        in_tensor = product(rows[when], place.row_units, UNITS) + product(column, layer.output_units, UNITS)
        known = known & layer.makes_code
        bench.implies(known, (rows[when] < place.height) & (pixel == in_image), f"row and column, {when}")
        bench.implies(known, unit_offset[when] == in_tensor, f"units of a pixel, {when}")

    begins = states(bench, "READ CODE TABLE")
    first = (skip_offset["start"] == 0) & (unit_offset["start"] == 0) & (columns["start"].left == layer.output_width)
    first &= columns["start"].is_last == (layer.output_width == 1)
    bench.implies(begins, first, "a layer begins with its first pixel")


def check_writes(bench):
    """State where reads and writes go, from where a pixel is issued to the memories."""
    dut, layer = bench.component, bench.component.layer
    channel_group, issue = bench.internal("dut.channel_group"), bench.internal("dut.issue")
    derived = states(bench, "READ TABLE", "TABLE ARRIVES", "STREAM")
    for name, start in (("skip_read_start", layer.skip_start), ("skip_write_start", layer.skip_output_start)):
        held = bench.internal(f"dut.{name}")
        bench.implies(derived, held == (start + channel_group)[: len(held)], name)
    unit, first_chunk = bench.internal("dut.unit"), bench.internal("dut.first_chunk")
    unit_start, group_first_chunk = bench.internal("dut.unit_start"), bench.internal("dut.group_first_chunk")
    bench.implies(derived, unit_start == (layer.output_start + unit)[: len(unit_start)], "unit start")
    bench.implies(derived, group_first_chunk == first_chunk, "first chunk")
    bench.implies(issue & layer.adds, dut.skip_read_address < UNEVEN.skip_words, "skip code read in range")

    per_lane = activations_per_lane(UNEVEN, layer.output_slot_index)
    stages = [bench.view("dut.issued").as_value()]
    arrival = TwoCycleMemory.LATENCY + ACCUMULATOR_ARRIVAL_CYCLES
    stages += [bench.signal(f"dut.arrived_{cycle}") for cycle in range(1, arrival + 1)]
    for name in ("first", "second"):
        stages += [bench.signal(f"dut.{name}_{cycle}") for cycle in range(1, Requantizer.LATENCY + 1)]
    for at, stage in enumerate(stages):
        written = output_layout(UNEVEN)(stage)
        skip = written.skip_address < UNEVEN.skip_words
        bench.implies(written.valid & layer.makes_skip, skip, f"skip code written in range, stage {at}")
        code = (written.unit_address < UNITS) & (written.first_chunk < per_lane)
        bench.implies(written.valid & layer.makes_code, code, f"code written in range, stage {at}")
        result = written.result_address < UNEVEN.result_words
        bench.implies(written.valid & layer.makes_logits, result, f"logit written in range, stage {at}")
    bench.implies(dut.skip_write_enable, dut.skip_write_address < UNEVEN.skip_words, "skip write address in range")
    bench.implies(dut.result_enable, dut.result_address < UNEVEN.result_words, "result address in range")
    for bank in range(UNEVEN.banks):
        enabled = dut.code_write_enable[bank].any()
        address = dut.code_write_address[bank]
        bench.implies(enabled, address < UNEVEN.activation_words, f"code write address of bank {bank} in range")


PROOFS = (
    Proof(
        "drain.addresses_in_range",
        "entries of the requantizer and skip tables that are read, skip codes that are read and written, codes and "
        "logits that are written: every address is in range, whatever the valid descriptors and the pace of the array",
        Drain,
        addresses_in_range,
        depth=4,
        mutant_depth=10,
        mutants=(
            Mutant(
                "table_address.eq(layer.table_start + layer.channel_groups * requantizers)",
                "table_address.eq(layer.table_start + layer.channel_groups * requantizers + 1)",
            ),
            Mutant('skip_offset["start"].eq(0)', 'skip_offset["start"].eq(1)'),
            Mutant("layer.output_units + layer.output_row_gap", "layer.output_units + layer.output_row_gap + 1"),
            Mutant("skip_table_address.eq(layer.skip_table_start", "skip_table_address.eq(1 + layer.skip_table_start"),
        ),
    ),
)
