"""Reads the planes of a tile from the weight memory, switches them once, and stages them for the array."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hwsim import spec
from hwsim.machine import BUNDLE_ROWS, SIZE_BITS, Machine
from rtl.delay import delay
from rtl.leaves.memory import GatheredMemory, TwoCycleMemory
from rtl.records import struct
from rtl.weight_switch import WeightSwitch

PLANE_ADDRESS_BITS = (spec.MAX_BITS - 1).bit_length()


class WeightLoader(wiring.Component):
    """Runs ahead of the array through the tiles of all layers, at most two tiles in front.

    A tile row of ``weight_port_bits`` weights takes max(planes read, planes applied) cycles, and its planes reach the
    switch ``ARRIVAL_CYCLES`` after the loader comes to them. The ninth row of a bundle (see ``hwsim.weight_layout``)
    takes the same time and reads nothing: its planes have been collected from the spare bits of the eight before it.

    Members
    -------
    start : In(1)
        Begin an image at ``slot``, one cycle.
    slot : In
        Layer slot of its first layer.
    tiles_address : Out; tiles_data : In
        Loader's entries, two cycles.
    weight_address : Out; weight_read : Out(1); weight_data : In
        Weight memory, a ``GatheredMemory``. A word is read only where ``weight_read`` says so.
    staging_address, staging_data, staging_write : Out
        Staging memory, both halves.
    tile_ready : Out(1)
        A tile is staged.
    tile_release : In(1)
        The oldest staged tile is not needed any more, one cycle.
    """

    ARRIVAL_CYCLES = GatheredMemory.LATENCY + 2

    def __init__(self, machine: Machine):
        self.machine = machine
        super().__init__(
            {
                "start": In(1),
                "slot": In(range(max(2, machine.layer_slots))),
                "tiles_address": Out(range(max(2, machine.layer_slots))),
                "tiles_data": In(struct(machine.tiles_layout)),
                "weight_address": Out(range(machine.weight_words)),
                "weight_read": Out(1),
                "weight_data": In(machine.weight_word_bits),
                "staging_address": Out(machine.staging_address_bits + 1),
                "staging_data": Out(machine.weight_port_bits),
                "staging_write": Out(1),
                "tile_ready": Out(1),
                "tile_release": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        machine = self.machine
        m.submodules.switch = switch = WeightSwitch(machine.weight_port_bits)
        entry = Signal(struct(machine.tiles_layout))

        # Staging: halves in use, counted from when the loader begins a tile until the array releases it.
        used = Signal(2)
        ready = Signal(2)
        takes_half, finishes_tile = Signal(), Signal()
        m.d.sync += [
            used.eq(used + takes_half - self.tile_release),
            ready.eq(ready + finishes_tile - self.tile_release),
        ]
        m.d.comb += self.tile_ready.eq(ready != 0)

        slot = Signal.like(self.slot)
        tile = Signal(SIZE_BITS)
        row = Signal(machine.staging_address_bits + 1)
        row_of_bundle = Signal(range(BUNDLE_ROWS))
        plane = Signal(4)
        row_address = Signal(range(machine.weight_words))
        tile_address = Signal(range(machine.weight_words))
        half = Signal()
        reading = Signal()
        planes_applied = Signal(4)
        # What the counters of a layer end at, kept so that nothing is worked out behind them.
        last_of_period, last_plane = Signal(4), Signal(4)
        last_row = Signal.like(row)
        m.d.comb += [
            planes_applied.eq(Mux(entry.target_bits == 1, 2, entry.target_bits)),
            self.tiles_address.eq(slot),
            reading.eq(0),
        ]
        is_ninth = Signal()
        if machine.weight_spare_bits:
            m.d.comb += is_ninth.eq(row_of_bundle == BUNDLE_ROWS - 1)
        next_row_address = row_address + Mux(is_ninth, 0, entry.planes_stored)
        # Registers before and behind the weight memory: it is large, and lies all over the chip.
        m.d.sync += [self.weight_address.eq(row_address + plane), self.weight_read.eq(reading & ~is_ninth)]
        wait = Signal(range(TwoCycleMemory.LATENCY + 1))
        rows_out = Signal(machine.staging_address_bits + 1)

        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += [slot.eq(self.slot), wait.eq(TwoCycleMemory.LATENCY)]
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.d.sync += entry.eq(self.tiles_data)
                    m.next = "BEGIN LAYER"
            with m.State("BEGIN LAYER"):
                m.d.sync += [
                    tile.eq(0),
                    tile_address.eq(entry.weight_start),
                    last_of_period.eq(Mux(planes_applied > entry.planes_read, planes_applied, entry.planes_read) - 1),
                    last_plane.eq(entry.planes_read - 1),
                    last_row.eq(entry.tile_rows - 1),
                ]
                m.next = "WAIT HALF"
                with m.If(~entry.has_weights):
                    m.next = "END LAYER"
            with m.State("WAIT HALF"):
                with m.If(used != 2):
                    m.d.comb += takes_half.eq(1)
                    m.d.sync += [row.eq(0), row_of_bundle.eq(0), plane.eq(0), row_address.eq(tile_address)]
                    m.next = "READ"
            with m.State("READ"):
                m.d.comb += reading.eq(plane <= last_plane)
                m.d.sync += plane.eq(plane + 1)
                with m.If(plane == last_of_period):
                    m.d.sync += [
                        plane.eq(0),
                        row.eq(row + 1),
                        row_of_bundle.eq(Mux(is_ninth, 0, row_of_bundle + 1)),
                        row_address.eq(next_row_address),
                    ]
                    with m.If(row == last_row):
                        m.d.sync += tile_address.eq(next_row_address)
                        m.next = "FINISH TILE"
            with m.State("FINISH TILE"):
                with m.If(finishes_tile):
                    m.d.sync += [half.eq(~half), tile.eq(tile + 1)]
                    m.next = "WAIT HALF"
                    with m.If(tile == entry.tiles - 1):
                        m.next = "END LAYER"
            with m.State("END LAYER"):
                m.d.sync += [slot.eq(slot + 1), wait.eq(TwoCycleMemory.LATENCY)]
                m.next = "FETCH"
                with m.If(entry.is_last):
                    m.next = "IDLE"

        arrived = Signal(machine.weight_word_bits, reset_less=True)
        m.d.sync += arrived.eq(self.weight_data)
        arrives, first, last = (
            delay(m, value, self.ARRIVAL_CYCLES, name)
            for value, name in (
                (reading, "arrives"),
                (plane == 0, "first"),
                (plane == last_plane, "last"),
            )
        )
        arrived_row = arrived[: machine.weight_port_bits]
        if machine.weight_spare_bits:
            ninth_row = self._collect(m, arrived[machine.weight_port_bits :], arrives, plane, row_of_bundle)
            arrived_row = Mux(delay(m, is_ninth, self.ARRIVAL_CYCLES, "arrives_ninth"), ninth_row, arrived_row)
        m.d.comb += [
            switch.plane.eq(arrived_row),
            switch.valid.eq(arrives),
            switch.first.eq(first),
            switch.last.eq(last),
            switch.target_bits.eq(entry.target_bits),
            switch.rounds.eq(entry.rounds),
        ]

        # The switch emits the bottom plane first; a plane of a tile takes `tile_rows` words.
        plane_address = Signal(machine.staging_address_bits + 1)
        row_start = Signal(machine.staging_address_bits + 1)
        first_out = Signal(init=1)
        address = Signal(machine.staging_address_bits + 1)
        m.d.comb += address.eq(Mux(first_out, row_start, plane_address))
        # A register ahead of the staging memory, STAGING_WRITE_CYCLES.
        m.d.sync += [
            self.staging_address.eq(address),
            self.staging_data.eq(switch.o_plane),
            self.staging_write.eq(switch.o_valid),
        ]
        m.d.sync += finishes_tile.eq(0)
        with m.If(takes_half):
            m.d.sync += row_start.eq(entry.staging_start + Mux(half, machine.staging_words, 0))
        with m.If(switch.o_valid):
            m.d.sync += [plane_address.eq(address - entry.tile_rows), first_out.eq(switch.o_position == 0)]
            with m.If(switch.o_position == 0):
                m.d.sync += [rows_out.eq(rows_out + 1), row_start.eq(row_start + 1)]
                with m.If(rows_out == last_row):
                    m.d.sync += rows_out.eq(0)
                    m.d.sync += finishes_tile.eq(1)
        return m

    def _collect(self, m, spare, arrives, plane, row_of_bundle):
        """Keep the spare bits of a bundle's rows, plane by plane, and return the plane of its ninth row."""
        place, row = (
            delay(m, value, self.ARRIVAL_CYCLES, name)
            for value, name in ((plane[:PLANE_ADDRESS_BITS], "arrived_plane"), (row_of_bundle, "arrived_row"))
        )
        parts = []
        for index in range(BUNDLE_ROWS - 1):
            store = memory.Memory(shape=unsigned(len(spare)), depth=1 << PLANE_ADDRESS_BITS, init=[])
            m.submodules[f"ninth_{index}"] = store
            write, read = store.write_port(), store.read_port(domain="comb")
            m.d.comb += [
                write.addr.eq(place),
                write.data.eq(spare),
                write.en.eq(arrives & (row == index)),
                read.addr.eq(place),
            ]
            parts.append(read.data)
        return Cat(parts)
