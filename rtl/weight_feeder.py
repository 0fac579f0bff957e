"""Walks the passes of a layer and loads the weight plane of the next one while the array works on the current one."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwsim.machine import KERNEL_BITS, SIZE_BITS, Machine
from rtl.leaves.memory import TwoCycleMemory
from rtl.records import struct


def pass_layout(machine: Machine) -> data.StructLayout:
    """Return the layout of what the activation streamer must know of a pass."""
    return data.StructLayout(
        {
            "activation_offset": machine.activation_address_bits,
            "kernel_row": KERNEL_BITS,
            "kernel_column": KERNEL_BITS,
            "groups": machine.groups,
            "clears": 1,
            "doubles": 1,
            "subtracts": 1,
            "first_of_job": 1,
            "last_of_job": 1,
        }
    )


class WeightFeeder(wiring.Component):
    """Feeds the array's weight registers, one pass ahead of the activations.

    A layer is a loop over tiles of output channels, strips of output pixels, planes, words of input channels and
    kernel taps; the innermost body is a *pass*: one plane of one word of weights, applied to every pixel of the strip.
    A *job* is one strip of one tile.

    Throughput: a pass of n weight rows is ready n + 1 cycles after the previous one was taken (1 cycle if the taps
    share their weights, as in average pooling).

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
    pass_ready : Out(1)
        The array's shadow registers hold the plane of ``next_pass``, or will before its first activations arrive.
    next_pass : Out
        See ``pass_layout``.
    take : In(1)
        The streamer starts ``next_pass``; only while ``pass_ready``.
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        address_bits = machine.staging_address_bits + 1
        super().__init__(
            {
                "layer": In(struct(machine.layer_layout)),
                "start": In(1),
                "tile_ready": In(1),
                "tile_release": Out(1),
                "staging_address": Out(address_bits),
                "staging_data": In(machine.weight_port_bits),
                "weight_data": Out(machine.weight_port_bits),
                "weight_row": Out(range(machine.rows)),
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
        staging_bits = machine.staging_address_bits
        half_start = Const(machine.staging_words, staging_bits + 1)

        tile = Signal(SIZE_BITS)
        pixels_left = Signal(2 * SIZE_BITS)
        plane = Signal(4)
        word = Signal(SIZE_BITS)
        kernel_row = Signal(KERNEL_BITS)
        kernel_column = Signal(KERNEL_BITS)
        half = Signal()

        plane_address = Signal(staging_bits)
        word_address = Signal(staging_bits)
        tap_address = Signal(staging_bits)
        row_offset = Signal(machine.activation_address_bits)
        offset = Signal(machine.activation_address_bits)

        last_column = kernel_column == layer.kernel_width - 1
        last_row = kernel_row == layer.kernel_height - 1
        last_word = word == layer.words - 1
        last_plane = plane == layer.passes - 1
        last_strip = pixels_left <= machine.strip_pixels
        last_tile = tile == layer.tiles - 1
        first_tap = (kernel_column == 0) & (kernel_row == 0)
        first_step = (word == 0) & first_tap
        last_step = last_word & last_row & last_column
        first_of_job = (plane == 0) & first_step
        last_of_job = last_plane & last_step

        rows_left = Signal(staging_bits + 1)
        read_row = Signal(range(machine.rows))
        read_group = Signal(range(machine.groups))
        read_address = Signal(staging_bits)
        reading = Signal()

        all_groups = Const((1 << machine.groups) - 1, machine.groups)
        m.d.comb += [
            self.staging_address.eq(read_address + Mux(half, half_start, 0)),
            self.next_pass.activation_offset.eq(offset),
            self.next_pass.kernel_row.eq(kernel_row),
            self.next_pass.kernel_column.eq(kernel_column),
            self.next_pass.groups.eq(Mux(last_word, layer.last_word_groups, all_groups)),
            self.next_pass.clears.eq(first_of_job),
            self.next_pass.doubles.eq((plane != 0) & first_step),
            self.next_pass.subtracts.eq(
                ((plane == 0) & layer.subtracts_first) | ((plane == 1) & layer.subtracts_second)
            ),
            self.next_pass.first_of_job.eq(first_of_job),
            self.next_pass.last_of_job.eq(last_of_job),
        ]

        def begin_load():
            # Taps that share their weights (average pooling) keep what the first tap loaded.
            shares = (layer.tap_step == 0) & ~first_tap
            with m.If(shares):
                m.next = "READY"
            with m.Else():
                m.d.sync += [
                    rows_left.eq(Mux(last_word, layer.last_load_rows, layer.load_rows) - 1),
                    read_row.eq(0),
                    read_group.eq(0),
                    read_address.eq(tap_address),
                ]
                m.next = "LOAD"

        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start & ~layer.is_max_pool):
                    m.d.sync += [
                        tile.eq(0),
                        pixels_left.eq(layer.output_pixels),
                        plane.eq(0),
                        word.eq(0),
                        kernel_row.eq(0),
                        kernel_column.eq(0),
                        plane_address.eq(layer.staging_start),
                        word_address.eq(layer.staging_start),
                        tap_address.eq(layer.staging_start),
                        row_offset.eq(0),
                        offset.eq(0),
                    ]
                    m.next = "WAIT TILE"
            with m.State("WAIT TILE"):
                with m.If(self.tile_ready):
                    begin_load()
            with m.State("BEGIN"):
                begin_load()
            with m.State("LOAD"):
                m.d.comb += reading.eq(1)
                m.d.sync += [read_address.eq(read_address + 1), rows_left.eq(rows_left - 1)]
                with m.If(read_row == machine.rows - 1):
                    m.d.sync += [read_row.eq(0), read_group.eq(read_group + 1)]
                with m.Else():
                    m.d.sync += read_row.eq(read_row + 1)
                with m.If(rows_left == 0):
                    m.next = "READY"
            with m.State("READY"):
                m.d.comb += self.pass_ready.eq(1)
                with m.If(self.take):
                    m.next = "BEGIN"
                    with m.If(~last_column):
                        m.d.sync += [
                            kernel_column.eq(kernel_column + 1),
                            offset.eq(offset + layer.kernel_column_step),
                            tap_address.eq(tap_address + layer.tap_step),
                        ]
                    with m.Elif(~last_row):
                        m.d.sync += [
                            kernel_column.eq(0),
                            kernel_row.eq(kernel_row + 1),
                            row_offset.eq(row_offset + layer.kernel_row_step),
                            offset.eq(row_offset + layer.kernel_row_step),
                            tap_address.eq(tap_address + layer.tap_step),
                        ]
                    with m.Else():
                        m.d.sync += [kernel_column.eq(0), kernel_row.eq(0)]
                        with m.If(~last_word):
                            m.d.sync += [
                                word.eq(word + 1),
                                row_offset.eq(word + 1),
                                offset.eq(word + 1),
                                word_address.eq(word_address + layer.word_step),
                                tap_address.eq(word_address + layer.word_step),
                            ]
                        with m.Else():
                            m.d.sync += [word.eq(0), row_offset.eq(0), offset.eq(0)]
                            with m.If(~last_plane):
                                m.d.sync += [
                                    plane.eq(plane + 1),
                                    plane_address.eq(plane_address + layer.plane_step),
                                    word_address.eq(plane_address + layer.plane_step),
                                    tap_address.eq(plane_address + layer.plane_step),
                                ]
                            with m.Else():
                                m.d.sync += [
                                    plane.eq(0),
                                    plane_address.eq(layer.staging_start),
                                    word_address.eq(layer.staging_start),
                                    tap_address.eq(layer.staging_start),
                                ]
                                with m.If(~last_strip):
                                    m.d.sync += pixels_left.eq(pixels_left - machine.strip_pixels)
                                with m.Else():
                                    m.d.comb += self.tile_release.eq(1)
                                    m.d.sync += [
                                        half.eq(~half),
                                        tile.eq(tile + 1),
                                        pixels_left.eq(layer.output_pixels),
                                    ]
                                    m.next = "WAIT TILE"
                                    with m.If(last_tile):
                                        m.next = "IDLE"

        # The staging memory answers two cycles after the address; the load port's controls travel with the data.
        delayed = Cat(reading, read_row, read_group)
        for _ in range(TwoCycleMemory.LATENCY):
            stage = Signal(len(delayed))
            m.d.sync += stage.eq(delayed)
            delayed = stage
        row_end = 1 + len(read_row)
        group = delayed[row_end:]
        m.d.comb += [
            self.weight_data.eq(self.staging_data),
            self.weight_write.eq(delayed[0]),
            self.weight_row.eq(delayed[1:row_end]),
        ]
        with m.Switch(layer.slot_index):
            for slot in machine.slots:
                index = machine.slot_index(slot)
                with m.Case(index):
                    m.d.comb += [
                        self.weight_groups[position].eq(group == position >> index)
                        for position in range(machine.groups)
                    ]
        return m
