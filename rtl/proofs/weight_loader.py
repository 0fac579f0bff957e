"""Proofs of the weight loader: its staging halves never run over or under, it keeps to what the switch expects, and
ninth rows come out of the spare bits of the eight before them."""

from __future__ import annotations

import dataclasses

from amaranth.hdl import Cat, Mux, Signal

from hwsim.machine import BUNDLE_ROWS
from rtl.leaves.memory import GatheredMemory
from rtl.proofs.bench import Bench
from rtl.proofs.descriptors import planes_applied, product, rows_stored, valid_entry
from rtl.proofs.machine import SMALL, UNEVEN
from rtl.proofs.proof import Mutant, Proof
from rtl.weight_loader import WeightLoader

READS = WeightLoader.ARRIVAL_CYCLES
SMALL_WITH_BYTES = dataclasses.replace(SMALL, weight_port_bits=8)
UNEVEN_WITH_BYTES = dataclasses.replace(UNEVEN, weight_port_bits=8)


def row_cycles(entry):
    """Return the cycles that a row takes."""
    passes = planes_applied(entry.target_bits)
    return Mux(passes > entry.planes_read, passes, entry.planes_read)


def check_last_ones(bench, entry):
    """State that what the counters end at is the entry's, once it is kept."""
    kept = ~bench.in_state("dut", "IDLE", "FETCH", "BEGIN LAYER", "END LAYER")
    bench.implies(kept, entry.has_weights, "only layers with weights have tiles")
    for name, count in (
        ("last_of_period", row_cycles(entry)),
        ("last_plane", entry.planes_read),
        ("last_row", entry.tile_rows),
    ):
        bench.implies(kept, bench.internal(f"dut.{name}") + 1 == count, name)


def keeps_halves(component):
    """The entries are any that a program may have; the array releases what is ready; the switch keeps its promise."""
    bench = Bench(component(SMALL))
    m, dut = bench.m, bench.component
    used, ready, row, plane, rows_out, reading, finishes = (
        bench.internal(f"dut.{name}")
        for name in (
            "used",
            "ready",
            "row",
            "plane",
            "rows_out",
            "reading",
            "finishes_tile",
        )
    )
    entry = bench.view("dut.entry")
    period = row_cycles(entry)
    bench.assume(~dut.tile_release | dut.tile_ready)
    bench.assume(valid_entry(dut.machine, dut.tiles_data))

    # The switch gives one group of planes for one group that is done, the last pass first (proved of the switch).
    o_valid, o_position = bench.free("dut.switch.o_valid"), bench.free("dut.switch.o_position")
    last = reading & (plane == entry.planes_read - 1)
    arrived = bench.past_reset(last, READS)
    passes = planes_applied(entry.target_bits)
    waiting, next_position = Signal(5), Signal.like(o_position)
    m.d.sync += waiting.eq(waiting + arrived - (o_valid & (o_position == 0)))
    between = Signal()
    with m.If(o_valid):
        m.d.sync += [between.eq(o_position != 0), next_position.eq(o_position - 1)]
    bench.assume(~o_valid | (waiting != 0))
    bench.assume(~o_valid | (o_position == Mux(between, next_position, passes - 1)))

    loads = bench.in_state("dut", "READ", "FINISH TILE")
    settled = ~bench.in_state("dut", "IDLE", "FETCH")
    bench.implies(settled, valid_entry(dut.machine, entry), "entry")
    check_last_ones(bench, entry)
    bench.check(used == ready + loads, "a half is used by the tile that is loaded, the others are ready")
    bench.check(used <= 2, "no more halves used than there are")
    bench.implies(dut.tile_release, used != 0, "none released that is not used")
    bench.implies(finishes, loads, "a tile is finished once, while it is loaded")

    # Rows that have been read and have not left yet: in the memory's pipeline or in the switch.
    on_the_way = sum(bench.past_reset(last, cycles) for cycles in range(1, READS + 1))
    sent = Mux(bench.in_state("dut", "FINISH TILE"), entry.tile_rows, row + (plane >= entry.planes_read))
    bench.implies(loads & ~finishes, sent == rows_out + waiting + on_the_way, "every row leaves once")
    bench.implies(finishes, bench.in_state("dut", "FINISH TILE"), "a tile is finished when its last row is written")
    bench.implies(
        ~loads | finishes, (rows_out == 0) & (waiting == 0) & (on_the_way == 0), "nothing is on the way between tiles"
    )
    bench.implies(loads, (row < entry.tile_rows) | bench.in_state("dut", "FINISH TILE"), "row")
    bench.implies(bench.in_state("dut", "READ"), plane < period, "plane")
    bench.implies(between, waiting != 0, "between")
    bench.check(bench.internal("dut.first_out") == ~between, "the first plane of a row is known")

    # The switch needs as many cycles from group to group as it has planes to give.
    since = Signal(4)
    with m.If(last):
        m.d.sync += since.eq(0)
    with m.Elif(since != 15):
        m.d.sync += since.eq(since + 1)
    reads = bench.in_state("dut", "READ") & (plane < entry.planes_read)
    bench.implies(reads & (row != 0), since == plane + period - entry.planes_read, "since")
    pauses = bench.in_state("dut", "READ") & (plane >= entry.planes_read)
    bench.implies(pauses, since == plane - entry.planes_read, "since, in a pause")
    bench.implies(last & (row != 0), since + 1 >= passes, "the switch has time for every group")

    # Plane p of row r lies p tile_rows before the last plane's word r: in the half that is being filled.
    bench.check((rows_out < entry.tile_rows) | ~loads, "rows out")
    planes_before = (passes - 1 - next_position)[:3]
    half = Mux(bench.internal("dut.half"), SMALL.staging_words, 0)
    row_start = half + entry.staging_start + rows_out
    bench.implies(loads & ~finishes, bench.internal("dut.row_start") == row_start, "row start")
    address = row_start - planes_before * entry.tile_rows
    bench.implies(between, bench.internal("dut.plane_address") == address, "plane address")
    bench.implies(between, next_position < passes - 1, "position")
    in_half = (dut.staging_address >= half) & (dut.staging_address < half + SMALL.staging_words)
    bench.implies(dut.staging_write, loads & in_half, "written where the tile belongs")
    return bench


def ninth_rows(component):
    """Any word of the weight memory, whatever it holds: whenever it is read, and when its spare bits are due."""
    bench = Bench(component(SMALL_WITH_BYTES))
    dut = bench.component
    port, spare = SMALL_WITH_BYTES.weight_port_bits, SMALL_WITH_BYTES.weight_spare_bits
    address = bench.any_constant(dut.weight_address.shape(), "address")
    word = bench.any_constant(SMALL_WITH_BYTES.weight_word_bits, "word")
    read = dut.weight_read & (dut.weight_address == address)
    bench.assume(~bench.past(read, GatheredMemory.LATENCY) | (dut.weight_data == word))
    bench.assume(valid_entry(dut.machine, dut.tiles_data))

    # The word may be that of any plane of any of a bundle's eight rows: `hit` says that it was in this bundle.
    any_plane = bench.any_constant(3, "any_plane")
    any_row = bench.any_constant(3, "any_row")
    entry = bench.view("dut.entry")
    row_address, row_of_bundle, plane, reading = (
        bench.internal(f"dut.{name}") for name in ("row_address", "row_of_bundle", "plane", "reading")
    )
    bench.check(row_of_bundle < BUNDLE_ROWS, "row of a bundle")
    bench.implies(~bench.in_state("dut", "IDLE", "FETCH"), valid_entry(dut.machine, entry), "entry")
    bench.implies(bench.in_state("dut", "READ"), plane < row_cycles(entry), "plane")
    check_last_ones(bench, entry)
    hit = Signal(reset_less=True)
    with bench.m.If(reading & (row_of_bundle == any_row) & (plane == any_plane)):
        bench.m.d.sync += hit.eq((row_address + plane)[: len(address)] == address)
    hit_then = bench.past(hit, READS - 1)

    loads = bench.past_reset(bench.in_state("dut", "READ"), READS)
    arrives = bench.past_reset(reading, READS)
    row_then, plane_then, planes_read = (
        bench.past(value, READS) for value in (row_of_bundle, plane, entry.planes_read)
    )
    bench.check(bench.internal("dut.switch.valid") == arrives, "planes that arrive")
    passed = (row_then > any_row) | ((row_then == any_row) & (plane_then > any_plane))
    kept = Cat(bench.stored(f"dut.ninth_{index}", any_plane) for index in range(BUNDLE_ROWS - 1))
    due = hit_then & (any_plane < planes_read)
    bench.implies(
        loads & passed & due, kept.word_select(any_row, spare) == word[port:], "spare bits are kept until they are due"
    )
    given = bench.internal("dut.switch.plane")
    due_now = due & arrives & (plane_then == any_plane)
    bench.implies(due_now & (row_then == any_row), given == word[:port], "a row of its own")
    ninth = row_then == BUNDLE_ROWS - 1
    bench.implies(due_now & ninth, given.word_select(any_row, spare) == word[port:], "an eighth of the ninth row")

    ends = bench.past_reset(bench.in_state("dut", "READ") & (plane == row_cycles(entry) - 1), 1)
    is_ninth = bench.past(row_of_bundle == BUNDLE_ROWS - 1)
    step = Mux(is_ninth, 0, bench.past(entry.planes_stored))
    next_address = (bench.past(row_address) + step)[: len(address)]
    bench.implies(ends, row_address == next_address, "the words of a row follow those of the row before")
    bench.check(dut.weight_read == bench.past_reset(reading, 1) & ~is_ninth, "the ninth row reads nothing")
    return bench


def reads_in_range(component):
    """The entries are any that a program may have, the last one is that of a last layer; tiles end at any time."""
    machine = UNEVEN_WITH_BYTES
    bench = Bench(component(machine))
    dut = bench.component
    slot, tile, row, row_of_bundle, plane, row_address, tile_address, reading = (
        bench.internal(f"dut.{name}")
        for name in ("slot", "tile", "row", "row_of_bundle", "plane", "row_address", "tile_address", "reading")
    )
    bench.free("dut.finishes_tile")
    entry, most = bench.view("dut.entry"), machine.weight_words
    bench.assume(valid_entry(machine, dut.tiles_data))
    bench.assume(dut.slot < machine.layer_slots)
    ends = bench.in_state("dut", "END LAYER")
    bench.assume(~(ends & (slot == machine.layer_slots - 1)) | entry.is_last)

    bench.implies(dut.weight_read, dut.weight_address < most, "weight address in range")
    bench.implies(~bench.in_state("dut", "IDLE"), dut.tiles_address < machine.layer_slots, "entry address in range")
    bench.implies(~bench.in_state("dut", "IDLE", "FETCH"), valid_entry(machine, entry), "entry")
    check_last_ones(bench, entry)
    waits, reads, finishes = (bench.in_state("dut", state) for state in ("WAIT HALF", "READ", "FINISH TILE"))
    tile_words = product(rows_stored(machine, entry.tile_rows), entry.planes_stored, most)
    tile_start = entry.weight_start + product(tile, tile_words, most)
    row_start = tile_start + product(rows_stored(machine, row), entry.planes_stored, most)
    bench.implies(waits | reads | finishes, tile < entry.tiles, "tile")
    bench.implies(waits, tile_address == tile_start, "a tile follows the one before")
    bench.implies(finishes, tile_address == tile_start + tile_words, "where the next tile begins")
    bench.implies(reads, (row < entry.tile_rows) & (row_of_bundle == row % BUNDLE_ROWS), "row")
    bench.implies(reads, row_address == row_start, "a row follows the one before, but for ninth ones")
    bench.implies(reading, plane < entry.planes_read, "plane")
    return bench


PROOFS = (
    Proof(
        "weight_loader.keeps_halves",
        "a staging half is taken, finished and released once for each tile, never more than the two there are, and "
        "never one that is not there, whatever the valid entries and whenever the array releases: every row that is "
        "read leaves the switch within its tile, to an address in the tile's half, and the switch gets its time",
        WeightLoader,
        keeps_halves,
        depth=5,
        mutant_depth=18,
        mutants=(
            Mutant("used.eq(used + takes_half", "used.eq(used + finishes_tile"),
            Mutant("ready.eq(ready + finishes_tile", "ready.eq(ready + takes_half"),
            Mutant("rows_out == last_row", "rows_out == last_row - 1"),
            Mutant("plane_address.eq(address - entry.tile_rows)", "plane_address.eq(address - entry.tile_rows - 1)"),
            Mutant("Mux(planes_applied > entry.planes_read, planes_applied, entry.planes_read)", "entry.planes_read"),
        ),
    ),
    Proof(
        "weight_loader.ninth_rows",
        "each word that is read reaches the switch as the plane of its row, and its spare bits as their eighth of the "
        "same plane of the bundle's ninth row, for which nothing is read: whatever the valid entries and the words",
        WeightLoader,
        ninth_rows,
        depth=READS + 2,
        mutant_depth=18,
        mutants=(
            Mutant("(arrives & (row == index))", "(arrives & (row == BUNDLE_ROWS - 2 - index))"),
            Mutant("self.weight_address.eq(row_address + plane)", "self.weight_address.eq(row_address)"),
            Mutant("write.addr.eq(place)", "write.addr.eq(0)"),
            Mutant("Mux(is_ninth, 0, entry.planes_stored)", "Mux(is_ninth, 0, entry.planes_read)"),
        ),
    ),
    Proof(
        "weight_loader.reads_in_range",
        "every word of the weight memory that is read is one of its entry's, so its address is in range, and so is "
        "that of the entry, whatever the valid entries",
        WeightLoader,
        reads_in_range,
        depth=2,
        mutant_depth=14,
        mutants=(
            Mutant("reading.eq(plane <= last_plane)", "reading.eq(1)"),
            Mutant("with m.If(tile == entry.tiles - 1):", "with m.If(tile == entry.tiles):"),
            Mutant("last_plane.eq(entry.planes_read - 1)", "last_plane.eq(entry.planes_read)"),
        ),
    ),
)
