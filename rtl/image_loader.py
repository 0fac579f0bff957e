"""Receives images and lays out the windows of the first layer as rows of lanes."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hwsim import spec
from hwsim.machine import KERNEL_BITS, SIZE_BITS, Machine
from rtl.leaves.memory import TwoCycleMemory
from rtl.records import struct


class ImageLoader(wiring.Component):
    """Takes images byte by byte in (row, column, channel) order and writes the image memory.

    The first layer's window of an output pixel, in (kernel row, kernel column, channel) order with 0 outside the
    image, becomes consecutive lanes of ``words`` image words, so that the first layer runs as a 1x1 convolution and
    narrow images keep the lanes busy. The image memory holds two images, so the next one is received while the array
    works on this one.

    Cycles: one for each byte received, then one for each byte laid out, plus a constant.

    Members
    -------
    geometry : In
        See ``Machine.image_layout``; constant while images are received.
    i : In(stream.Signature(8))
        Pixels, unsigned.
    image_ready : Out(1)
        The oldest half holds an image.
    half : Out(1)
        Which half that is.
    image_release : In(1)
        The oldest image is not needed any more, one cycle.
    write_address, write_data, write_enable : Out
        Image memory, both halves; one enable for each lane.
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        super().__init__(
            {
                "geometry": In(struct(machine.image_layout)),
                "i": In(stream.Signature(spec.IMAGE_BITS)),
                "image_ready": Out(1),
                "half": Out(1),
                "image_release": In(1),
                "write_address": Out(range(2 * machine.image_words)),
                "write_data": Out(machine.activation_bits),
                "write_enable": Out(machine.lanes),
            }
        )

    def elaborate(self, platform):
        m = Module()
        machine = self.machine
        geometry = self.geometry
        bytes_depth = max(2, machine.image_bytes)
        m.submodules.raw = raw = TwoCycleMemory(spec.IMAGE_BITS, bytes_depth)

        ready = Signal(2)
        write_half = Signal()
        read_half = Signal()
        m.d.comb += [self.image_ready.eq(ready != 0), self.half.eq(read_half)]
        laid_out = Signal()
        m.d.sync += ready.eq(ready + laid_out - self.image_release)
        with m.If(self.image_release):
            m.d.sync += read_half.eq(~read_half)

        received = Signal(len(geometry.image_bytes))
        byte_address = Signal(range(bytes_depth))
        m.d.comb += [
            raw.write_address.eq(byte_address),
            raw.write_data.eq(self.i.payload),
            raw.read_enable.eq(1),
        ]

        channel = Signal(SIZE_BITS)
        kernel_column, kernel_row = Signal(KERNEL_BITS), Signal(KERNEL_BITS)
        column, row = Signal(SIZE_BITS), Signal(SIZE_BITS)
        base_x, base_y = Signal(SIZE_BITS + 1), Signal(SIZE_BITS + 1)
        lane = Signal(range(machine.lanes))
        word_address = Signal(range(2 * machine.image_words))
        x, y = Signal(signed(SIZE_BITS + 2)), Signal(signed(SIZE_BITS + 2))
        m.d.comb += [
            x.eq(base_x + kernel_column - geometry.padding),
            y.eq(base_y + kernel_row - geometry.padding),
        ]
        inside = (x >= 0) & (x < geometry.width) & (y >= 0) & (y < geometry.height)
        last_channel = channel == geometry.channels - 1
        last_kernel_column = kernel_column == geometry.kernel_width - 1
        last_kernel_row = kernel_row == geometry.kernel_height - 1
        last_column = column == geometry.output_width - 1
        last_row = row == geometry.output_height - 1

        gathering = Signal()
        settle = Signal(range(4))
        with m.FSM():
            with m.State("RECEIVE"):
                m.d.comb += [self.i.ready.eq(geometry.image_bytes != 0), raw.write_enable.eq(self.i.valid)]
                with m.If(self.i.valid & self.i.ready):
                    m.d.sync += [received.eq(received + 1), byte_address.eq(byte_address + 1)]
                    with m.If(received == geometry.image_bytes - 1):
                        m.d.sync += [received.eq(0), byte_address.eq(0)]
                        m.next = "WAIT HALF"
            with m.State("WAIT HALF"):
                with m.If(ready != 2):
                    m.d.sync += [
                        channel.eq(0),
                        kernel_column.eq(0),
                        kernel_row.eq(0),
                        column.eq(0),
                        row.eq(0),
                        base_x.eq(0),
                        base_y.eq(0),
                        lane.eq(0),
                        word_address.eq(Mux(write_half, machine.image_words, 0)),
                    ]
                    m.next = "LAY OUT"
            with m.State("LAY OUT"):
                m.d.comb += gathering.eq(1)
                m.d.sync += lane.eq(lane + 1)
                with m.If(lane == machine.lanes - 1):
                    m.d.sync += word_address.eq(word_address + 1)
                with m.If(~last_channel):
                    m.d.sync += channel.eq(channel + 1)
                with m.Else():
                    m.d.sync += channel.eq(0)
                    with m.If(~last_kernel_column):
                        m.d.sync += kernel_column.eq(kernel_column + 1)
                    with m.Else():
                        m.d.sync += kernel_column.eq(0)
                        with m.If(~last_kernel_row):
                            m.d.sync += kernel_row.eq(kernel_row + 1)
                        with m.Else():
                            m.d.sync += [kernel_row.eq(0), lane.eq(0)]
                            # A pixel starts a new word; if its window just filled one, the address has moved already.
                            m.d.sync += word_address.eq(word_address + 1)
                            with m.If(~last_column):
                                m.d.sync += [column.eq(column + 1), base_x.eq(base_x + geometry.stride)]
                            with m.Else():
                                m.d.sync += [
                                    column.eq(0),
                                    base_x.eq(0),
                                    row.eq(row + 1),
                                    base_y.eq(base_y + geometry.stride),
                                ]
                                with m.If(last_row):
                                    m.d.sync += settle.eq(TwoCycleMemory.LATENCY)
                                    m.next = "SETTLE"
            with m.State("SETTLE"):
                m.d.sync += settle.eq(settle - 1)
                with m.If(settle == 0):
                    m.d.comb += laid_out.eq(1)
                    m.d.sync += write_half.eq(~write_half)
                    m.next = "RECEIVE"

        # (y * width + x) * channels + channel, one pixel's address at a time.
        line = Signal(range(bytes_depth))
        m.d.comb += [
            line.eq(y * geometry.width + x),
            raw.read_address.eq(line * geometry.channels + channel),
        ]
        controls = Cat(gathering, inside, lane, word_address)
        for _ in range(TwoCycleMemory.LATENCY):
            stage = Signal(len(controls))
            m.d.sync += stage.eq(controls)
            controls = stage
        lane_end = 2 + len(lane)
        write_lane = controls[2:lane_end]
        m.d.comb += [
            self.write_address.eq(controls[lane_end:]),
            self.write_data.eq(Mux(controls[1], raw.read_data, 0).replicate(machine.lanes)),
        ]
        with m.If(controls[0]):
            with m.Switch(write_lane):
                for index in range(machine.lanes):
                    with m.Case(index):
                        m.d.comb += self.write_enable[index].eq(1)
        return m
