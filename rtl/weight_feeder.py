"""Walks the passes of a layer and loads the weight plane of the next one while the array works on the current one."""

from amaranth.hdl import Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwsim.machine import (
    ADDRESS_LATENCY_CYCLES,
    FEEDER_PASS_CYCLES,
    KERNEL_BITS,
    LANE_BITS,
    SIZE_BITS,
    Machine,
    bits_for,
)
from rtl.countdown import Countdown, Loop
from rtl.delay import delay
from rtl.leaves.memory import TwoCycleMemory
from rtl.multiple import multiple
from rtl.records import struct


def unit_layout(machine: Machine) -> data.StructLayout:
    """Return the layout of where the unit in one bank position comes from, relative to the output pixel."""
    return data.StructLayout(
        {
            "valid": 1,
            "offset": machine.unit_address_bits,
            "kernel_row": signed(KERNEL_BITS + 1),
            "kernel_column": signed(KERNEL_BITS + 1),
        }
    )


def pass_layout(machine: Machine) -> data.StructLayout:
    """Return the layout of what the activation streamer must know of a pass."""
    return data.StructLayout(
        {
            "units": data.ArrayLayout(unit_layout(machine), machine.banks),
            "clears": 1,
            "doubles": 1,
            "subtracts": 1,
            "first_of_job": 1,
            "last_of_job": 1,
            "releases_image": 1,
        }
    )


class WeightFeeder(wiring.Component):
    """Feeds the array's weight registers, one pass ahead of the activations.

    A layer is a loop over tiles of output channels, strips of output pixels, planes, and steps of ``banks`` input
    units; the innermost body is a *pass*: one plane of the weights of one step, applied to every pixel of the strip. A
    *job* is one strip of one tile. While the rows of a unit are loaded, the unit's place relative to an output pixel
    (kernel tap and unit within the pixel) is noted for the streamer.

    With the DSP datapath a pass applies a digit, which is several planes: a row of all of them, top plane first, is
    loaded before the next row. "Plane" stands for the digit then.

    Throughput: a pass that loads n weight rows is ready n + ``PASS_CYCLES`` cycles after the previous one was taken.

    Members
    -------
    layer : In
        Descriptor of the running layer, constant from ``start`` until the layer is done.
    start : In(1)
        Begin a layer, one cycle.
    tile_ready : In(1)
        The staging memory holds the next tile.
    tile_release : Out(1)
        The oldest tile in the staging memory is not needed any more, one cycle.
    staging_address : Out
        Read address into the staging memory, both halves.
    staging_data : In
        Its data, two cycles later.
    weight_data, weight_row, weight_groups, weight_write : Out
        Load port of the array.
    weight_bit, weight_clear : Out
        The rest of the load port with the DSP datapath; not there otherwise.
    pass_ready : Out(1)
        The array's shadow registers hold the plane of ``next_pass``, or will before its first activations arrive.
    next_pass : Out
        See ``pass_layout``.
    take : In(1)
        The streamer starts ``next_pass``; only while ``pass_ready``.
    """

    PASS_CYCLES = FEEDER_PASS_CYCLES

    def __init__(self, machine: Machine):
        self.machine = machine
        self.feeds_digits = machine.datapath == "dsp"
        digit_members = {"weight_bit": Out(range(LANE_BITS)), "weight_clear": Out(1)}
        super().__init__(
            {
                **(digit_members if self.feeds_digits else {}),
                "layer": In(struct(machine.layer_layout)),
                "start": In(1),
                "tile_ready": In(1),
                "tile_release": Out(1),
                "staging_address": Out(machine.staging_address_bits + 1),
                "staging_data": In(machine.weight_port_bits),
                "weight_data": Out(machine.weight_port_bits),
                "weight_row": Out(range(max(2, machine.banks * machine.unit_rows))),
                "weight_groups": Out(machine.groups),
                "weight_write": Out(1),
                "pass_ready": Out(1),
                "next_pass": Out(pass_layout(machine)),
                "take": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        machine = self.machine
        layer = self.layer

        tiles, planes = Loop(m, layer.tiles, "tiles"), Loop(m, layer.passes, "planes")
        pixels_left = Signal(2 * SIZE_BITS)
        half = Signal()
        first_plane, second_plane, first_step = Signal(), Signal(), Signal()
        # A strip takes more cycles than this needs to follow.
        last_strip = Signal()
        m.d.sync += last_strip.eq(pixels_left <= machine.strip_pixels)

        # The unit being loaded: its place in the window, relative to the output pixel's first one.
        units_of_tap = Loop(m, layer.units, "units_of_tap")
        kernel_columns, kernel_rows = Loop(m, layer.kernel_width, "columns"), Loop(m, layer.kernel_height, "rows")
        kernel_row, kernel_column = Signal(signed(KERNEL_BITS + 1)), Signal(signed(KERNEL_BITS + 1))
        row_offset, offset = Signal(machine.unit_address_bits), Signal(machine.unit_address_bits)
        last_of_tap = units_of_tap.is_last
        last_of_row = last_of_tap & kernel_columns.is_last
        last_of_window = last_of_row & kernel_rows.is_last
        window_ended = Signal()

        # The staged row being loaded: its place in the unit. A unit takes unit_turns of them.
        bank = Signal(range(max(2, machine.banks)))
        group = Signal(range(max(2, machine.groups)))
        part = Signal(range(max(2, machine.unit_rows)))
        last_part = part == machine.unit_rows - 1
        turns_max = machine.groups * machine.unit_rows * (LANE_BITS if self.feeds_digits else 1)
        unit_turns, turns = Signal(range(turns_max + 1)), Countdown(bits_for(turns_max), "turns")
        row_ends = Const(1, 1)
        if self.feeds_digits:
            # The bit of the digits that is loaded, the row that it is of, and where the next digit begins.
            bit, top_bit = Signal(range(LANE_BITS)), Signal(range(LANE_BITS))
            row_address, next_digit = Signal.like(self.staging_address), Signal.like(self.staging_address)
            row_is_first = Signal()
            row_ends = bit == 0
            first_turns, other_turns = Signal.like(unit_turns), Signal.like(unit_turns)
            m.d.comb += unit_turns.eq(Mux(first_plane, first_turns, other_turns))
        with m.Switch(layer.slot_index):
            for slot in machine.slots:
                unit_rows = machine.activations_per_lane(slot) * machine.unit_rows
                with m.Case(machine.slot_index(slot)):
                    if self.feeds_digits:
                        m.d.sync += [
                            first_turns.eq(multiple(layer.first_digit_planes, unit_rows)),
                            other_turns.eq(slot * unit_rows),
                        ]
                        m.d.comb += top_bit.eq(Mux(first_plane, layer.first_digit_planes, slot) - 1)
                    else:
                        m.d.sync += unit_turns.eq(unit_rows)

        # Where a tile begins in each half, and the plane and the row of it that is being read.
        half_starts = [Signal.like(self.staging_address, name=f"start_of_half_{index}") for index in range(2)]
        m.d.sync += [
            start.eq(layer.staging_start + index * machine.staging_words) for index, start in enumerate(half_starts)
        ]
        tile_start = Mux(half, half_starts[1], half_starts[0])
        plane_address, read_address = Signal.like(self.staging_address), Signal.like(self.staging_address)
        reading, clears = Signal(), Signal()
        units = Signal(data.ArrayLayout(unit_layout(machine), machine.banks))

        m.d.comb += [
            self.staging_address.eq(read_address),
            self.next_pass.units.eq(units),
            self.next_pass.clears.eq(first_plane & first_step),
            self.next_pass.doubles.eq(~first_plane & first_step),
            # A bipolar weight's two planes are one digit.
            self.next_pass.subtracts.eq(
                (first_plane & (layer.subtracts_first | layer.subtracts_second))
                if self.feeds_digits
                else (first_plane & layer.subtracts_first) | (second_plane & layer.subtracts_second)
            ),
            self.next_pass.first_of_job.eq(first_plane & first_step),
            self.next_pass.last_of_job.eq(planes.is_last & window_ended),
            self.next_pass.releases_image.eq(layer.releases_image & tiles.is_last),
        ]

        # Where the rows of a step repeat (average pooling of narrow layers), only the first step of a job loads them.
        loads = ~layer.keeps_weights | first_step

        def begin_window(address):
            return [
                first_step.eq(1),
                window_ended.eq(0),
                *units_of_tap.begin(),
                *kernel_columns.begin(),
                *kernel_rows.begin(),
                kernel_row.eq(-layer.padding),
                kernel_column.eq(-layer.padding),
                row_offset.eq(0),
                offset.eq(0),
                plane_address.eq(address),
                read_address.eq(address),
            ]

        def begin_planes():
            return [*planes.begin(), first_plane.eq(1), second_plane.eq(0)]

        begin_step = [
            bank.eq(0),
            group.eq(0),
            part.eq(0),
            *turns.begin(Mux(loads, unit_turns, 1)),
            *(units[index].valid.eq(0) for index in range(machine.banks)),
        ]
        if self.feeds_digits:
            begin_step += [bit.eq(top_bit), row_address.eq(read_address), row_is_first.eq(first_step)]

        def begin_row(address):
            return [read_address.eq(address), *([row_address.eq(address)] if self.feeds_digits else [])]

        # The state READY as a register: the streamer decides much by it.
        ready = Signal()
        m.d.comb += self.pass_ready.eq(ready)
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start & ~layer.is_max_pool):
                    m.d.sync += [*tiles.begin(), pixels_left.eq(layer.output_pixels), *begin_planes()]
                    m.next = "WAIT TILE"
            with m.State("WAIT TILE"):
                m.d.comb += clears.eq(1)
                m.d.sync += [*begin_window(tile_start), *begin_step, *turns.begin(unit_turns)]
                if self.feeds_digits:
                    m.d.sync += [row_address.eq(tile_start), row_is_first.eq(1)]
                with m.If(self.tile_ready):
                    m.next = "LOAD"
            with m.State("BEGIN"):
                m.d.comb += clears.eq(loads)
                m.d.sync += begin_step
                m.next = "LOAD"
            with m.State("LOAD"):
                m.d.comb += reading.eq(loads)
                m.d.sync += turns.step()
                with m.Switch(bank):
                    for index in range(machine.banks):
                        with m.Case(index):
                            m.d.sync += [
                                units[index].valid.eq(1),
                                units[index].offset.eq(offset),
                                units[index].kernel_row.eq(kernel_row),
                                units[index].kernel_column.eq(kernel_column),
                            ]
                if self.feeds_digits:
                    m.d.sync += [read_address.eq(read_address + layer.plane_step), bit.eq(bit - 1)]
                    with m.If(row_ends):
                        m.d.sync += [begin_row(row_address + 1), bit.eq(top_bit), row_is_first.eq(0)]
                        with m.If(row_is_first):
                            m.d.sync += next_digit.eq(read_address + layer.plane_step)
                else:
                    m.d.sync += begin_row(read_address + 1)
                with m.If(row_ends):
                    m.d.sync += part.eq(Mux(last_part, 0, part + 1))
                    with m.If(last_part):
                        m.d.sync += group.eq(group + 1)
                with m.If(turns.is_last):
                    m.d.sync += turns.begin(Mux(loads, unit_turns, 1))
                    m.d.sync += [group.eq(0), part.eq(0), bank.eq(bank + 1), offset.eq(offset + 1)]
                    m.d.sync += units_of_tap.step_or_begin()
                    with m.If(last_of_tap):
                        m.d.sync += [kernel_column.eq(kernel_column + 1), *kernel_columns.step()]
                        with m.If(layer.shares_taps):
                            m.d.sync += begin_row(plane_address)
                    with m.If(last_of_row):
                        m.d.sync += [
                            kernel_column.eq(-layer.padding),
                            *kernel_columns.begin(),
                            kernel_row.eq(kernel_row + 1),
                            *kernel_rows.step(),
                            row_offset.eq(row_offset + layer.kernel_row_step),
                            offset.eq(row_offset + layer.kernel_row_step),
                        ]
                    with m.If((bank == machine.banks - 1) | last_of_window):
                        m.d.sync += [window_ended.eq(last_of_window), ready.eq(1)]
                        m.next = "READY"
            with m.State("READY"):
                with m.If(self.take):
                    m.d.sync += ready.eq(0)
                    m.next = "NEXT"
            with m.State("NEXT"):
                m.d.sync += first_step.eq(0)
                m.next = "BEGIN"
                with m.If(window_ended):
                    with m.If(~planes.is_last):
                        m.d.sync += [*planes.step(), first_plane.eq(0), second_plane.eq(first_plane)]
                        m.d.sync += begin_window(next_digit if self.feeds_digits else plane_address + layer.plane_step)
                    with m.Else():
                        m.d.sync += [*begin_planes(), *begin_window(tile_start)]
                        with m.If(~last_strip):
                            m.d.sync += pixels_left.eq(pixels_left - machine.strip_pixels)
                        with m.Else():
                            m.d.comb += self.tile_release.eq(1)
                            m.d.sync += [half.eq(~half), *tiles.step(), pixels_left.eq(layer.output_pixels)]
                            m.next = "WAIT TILE"
                            with m.If(tiles.is_last):
                                m.next = "IDLE"

        # The load port's controls travel with the staged row, and arrive no earlier than the swap of the pass before.
        row = Signal.like(self.weight_row)
        m.d.comb += row.eq(bank * machine.unit_rows + part)
        controls = {"write": reading, "row": row, "group": group}
        if self.feeds_digits:
            # A signed digit is loaded with its top plane inverted.
            inverts = first_plane & layer.subtracts_first & (bit == top_bit)
            controls |= {"clear": clears, "bit": bit, "inverts": inverts}
        delayed = Signal(data.StructLayout({name: len(value) for name, value in controls.items()}))
        m.d.comb += [delayed[name].eq(value) for name, value in controls.items()]
        before = delay(m, delayed, TwoCycleMemory.LATENCY, "delayed")
        staged = self.staging_data
        if self.feeds_digits:
            staged = staged ^ before.inverts.replicate(machine.weight_port_bits)
        m.d.comb += self.weight_data.eq(delay(m, staged, ADDRESS_LATENCY_CYCLES, "staged"))
        # The groups are decoded ahead of the last register.
        before = delay(m, before, ADDRESS_LATENCY_CYCLES - 1, "delayed_again")
        groups = Signal(machine.groups)
        with m.Switch(layer.slot_index):
            for slot in machine.slots:
                index = machine.slot_index(slot)
                with m.Case(index):
                    m.d.comb += [
                        groups[position].eq(before.group == position >> index) for position in range(machine.groups)
                    ]
        m.d.sync += [
            self.weight_groups.eq(groups),
            self.weight_write.eq(before.write),
            self.weight_row.eq(before.row),
        ]
        if self.feeds_digits:
            m.d.sync += [self.weight_bit.eq(before.bit), self.weight_clear.eq(before.clear)]
        return m
