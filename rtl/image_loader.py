"""Receives images and lays out the windows of the first layer as rows of lanes."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hwsim import spec
from hwsim.machine import LANE_BITS, SIZE_BITS, Machine, bits_for
from rtl.countdown import Countdown, Loop
from rtl.delay import delay
from rtl.leaves.memory import TwoCycleMemory
from rtl.records import struct


class ImageLoader(wiring.Component):
    """Takes images byte by byte in (row, column, channel) order and writes the image memory.

    The first layer's window of an output pixel, in (kernel row, kernel column, channel) order with 0 outside the
    image, becomes the lanes of consecutive image words, so that the first layer runs as a 1x1 convolution and images
    of few channels keep the lanes busy. ``image_channels`` channels of one tap are laid out in a cycle, and a word
    holds as many whole taps as fit. A row of windows is laid out as soon as its pixels have arrived.

    The image memory is a ring of windows, see ``hwsim.image_ring``: windows are laid out while others are read, and
    while the array works on later layers the first windows of the next image are. Raw images are kept twice, so that
    the next one is received meanwhile.

    Cycles: one for each byte received; one for each tap (and ``image_channels`` channels) of each window, begun when
    the pixels are there and a window of the ring is free; two for each row of windows.

    Members
    -------
    geometry : In
        See ``Machine.image_layout``; constant while images are received.
    i : In(stream.Signature(8))
        Pixels, unsigned.
    image_ready : Out(1)
        The next image has been received, and enough of it laid out for the first layer to begin.
    base : Out
        Image word where the running image begins, or the next one.
    image_start : In(1)
        The image that is ready begins to run, one cycle.
    image_release : In(1)
        The running image is over, one cycle; all its windows have been released.
    strip_release, strip_pixels : In
        That many windows of the running image have been read for the last time, one cycle.
    write_address, write_data, write_enable : Out
        Image memory; one enable for each lane. From reading a pixel to the cycle of its write: ``WRITE_CYCLES``.
    """

    WRITE_CYCLES = TwoCycleMemory.LATENCY + 1

    def __init__(self, machine: Machine):
        self.machine = machine
        super().__init__(
            {
                "geometry": In(struct(machine.image_layout)),
                "i": In(stream.Signature(spec.IMAGE_BITS)),
                "image_ready": Out(1),
                "base": Out(range(max(2, machine.image_words))),
                "image_start": In(1),
                "image_release": In(1),
                "strip_release": In(1),
                "strip_pixels": In(range(machine.strip_pixels + 1)),
                "write_address": Out(range(max(2, machine.image_words))),
                "write_data": Out(machine.activation_bits),
                "write_enable": Out(machine.lanes),
            }
        )

    def elaborate(self, platform):
        m = Module()
        machine = self.machine
        geometry = self.geometry
        step_channels = machine.image_channels
        raw_address_bits = dict(machine.image_layout.fields)["start"]
        m.submodules.raw = raw = TwoCycleMemory(step_channels * LANE_BITS, 2 << raw_address_bits, LANE_BITS)

        # Windows of the ring that are taken, those that can be read, and images laid out but not begun: -1 while the
        # running image still is being laid out.
        taken, laid = Signal(range(machine.image_words + 1)), Signal(range(machine.image_words + 1))
        images_ahead = Signal(signed(len(taken) + 1))
        begins_window, ends_window, laid_out = Signal(), Signal(), Signal()
        released = Mux(self.strip_release, self.strip_pixels, 0)
        m.d.sync += [
            taken.eq(taken + begins_window - released),
            laid.eq(laid + delay(m, ends_window, self.WRITE_CYCLES, "ends_window") - released),
            images_ahead.eq(images_ahead + laid_out - self.image_start),
        ]
        with m.If(self.image_release):
            m.d.sync += self.base.eq(self.base + geometry.words)

        # Receive: bytes of a pixel, pixels of a row, rows, into one half of the raw memory while the other is laid out.
        byte = Signal(range(max(2, step_channels)))
        channels, columns, rows = (
            Loop(m, turns, name)
            for name, turns in (("channels", geometry.channels), ("columns", geometry.width), ("rows", geometry.height))
        )
        before_image = Signal(init=1)
        receive_half, layout_half = Signal(), Signal()
        halves_received = [Signal(name=f"half_{half}_received") for half in range(2)]
        rows_received = [Signal(SIZE_BITS, name=f"rows_received_{half}") for half in range(2)]
        half_is_free = Signal(init=1)
        raw_address = Signal(raw_address_bits)
        # The loops are ready to begin two cycles after the geometry came.
        is_loaded = delay(m, geometry.height != 0, 2, "is_loaded")
        m.d.comb += [
            self.i.ready.eq(is_loaded & half_is_free),
            raw.write_address.eq(Cat(raw_address, receive_half)),
            raw.write_data.eq(self.i.payload.replicate(step_channels)),
            raw.read_enable.eq(1),
        ]
        with m.If(before_image):
            m.d.sync += [*channels.begin(), *columns.begin(), *rows.begin()]
        with m.If(self.i.valid & self.i.ready):
            m.d.comb += raw.write_enable.eq(1 << byte)
            m.d.sync += [before_image.eq(0), byte.eq(byte + 1), *channels.step_or_begin()]
            with m.If((byte == step_channels - 1) | channels.is_last):
                m.d.sync += [byte.eq(0), raw_address.eq(raw_address + 1)]
            with m.If(channels.is_last):
                m.d.sync += columns.step_or_begin()
                with m.If(columns.is_last):
                    m.d.sync += rows.step_or_begin()
                    for half in range(2):
                        with m.If(receive_half == half):
                            m.d.sync += rows_received[half].eq(rows_received[half] + 1)
                            with m.If(rows.is_last):
                                m.d.sync += halves_received[half].eq(1)
                    with m.If(rows.is_last):
                        m.d.sync += [receive_half.eq(~receive_half), raw_address.eq(0), before_image.eq(1)]
                        m.d.sync += half_is_free.eq(~Mux(receive_half, halves_received[0], halves_received[1]))

        rows_here = Mux(layout_half, rows_received[1], rows_received[0])
        arrived = Mux(layout_half, halves_received[1], halves_received[0])
        enough = Signal()
        m.d.sync += enough.eq((images_ahead == 0) & arrived & (laid >= geometry.windows_lead))
        m.d.comb += self.image_ready.eq((images_ahead > 0) | ((images_ahead == 0) & enough))

        # Lay out: steps of a tap, taps of a window, windows.
        steps = Loop(m, geometry.steps, "steps")
        kernel_columns, kernel_rows, output_columns, output_rows = (
            Loop(m, getattr(geometry, field), f"{field}_loop")
            for field in ("kernel_width", "kernel_height", "output_width", "output_height")
        )
        # The tap being laid out: its place in the image, its window's, and the rows that the window needs.
        x, y, left, top = (Signal(signed(SIZE_BITS + 2), name=name) for name in ("x", "y", "left", "top"))
        rows_needed = Signal(signed(SIZE_BITS + 3))
        position = Signal(range(max(2, machine.image_steps_per_word)))
        word_address = Signal.like(self.write_address)
        addresses = {
            name: Signal(raw_address_bits, name=name) for name in ("row_start", "window_start", "tap_row", "tap")
        }
        m.d.comb += raw.read_address.eq(Cat(addresses["tap"], layout_half))
        inside = (x >= 0) & (x < geometry.width) & (y >= 0) & (y < geometry.height)
        row_is_here, image_is_here = Signal(), Signal()
        m.d.sync += [row_is_here.eq(arrived | (rows_needed <= rows_here)), image_is_here.eq(arrived)]
        has_room = taken != geometry.windows_held

        def begin_window(address, window_left, window_top):
            return [
                *(addresses[name].eq(address) for name in ("window_start", "tap_row", "tap")),
                *(place.eq(window_left) for place in (left, x)),
                *(place.eq(window_top) for place in (top, y)),
                *kernel_columns.begin(),
                *kernel_rows.begin(),
            ]

        gathering = Signal()
        settle = Countdown(bits_for(self.WRITE_CYCLES + 1), "settle")
        with m.FSM():
            with m.State("WAIT IMAGE"):
                m.d.sync += [
                    position.eq(0),
                    *steps.begin(),
                    *output_columns.begin(),
                    *output_rows.begin(),
                    rows_needed.eq(geometry.kernel_height - geometry.padding),
                    addresses["row_start"].eq(geometry.start),
                    *begin_window(geometry.start, -geometry.padding, -geometry.padding),
                ]
                with m.If(rows_here != 0):
                    m.next = "NEXT ROW"
            with m.State("NEXT ROW"):
                # It takes a cycle to know whether the row is here.
                m.next = "WAIT ROW"
            with m.State("WAIT ROW"):
                with m.If(row_is_here & has_room):
                    m.d.comb += begins_window.eq(1)
                    m.next = "LAY OUT"
            with m.State("LAY OUT"):
                m.d.comb += gathering.eq(1)
                m.d.sync += [position.eq(position + 1), addresses["tap"].eq(addresses["tap"] + 1)]
                with m.If(position == machine.image_steps_per_word - 1):
                    m.d.sync += [position.eq(0), word_address.eq(word_address + 1)]
                m.d.sync += steps.step_or_begin()
                with m.If(steps.is_last):
                    m.d.sync += [*kernel_columns.step_or_begin(), x.eq(x + 1)]
                    with m.If(kernel_columns.is_last):
                        next_tap_row = addresses["tap_row"] + geometry.row_step
                        m.d.sync += [
                            *kernel_rows.step(),
                            x.eq(left),
                            y.eq(y + 1),
                            addresses["tap_row"].eq(next_tap_row),
                            addresses["tap"].eq(next_tap_row),
                        ]
                    with m.If(kernel_columns.is_last & kernel_rows.is_last):
                        # A window starts a new word; if this one just filled its word, the address has moved already.
                        m.d.comb += ends_window.eq(1)
                        m.d.sync += [position.eq(0), word_address.eq(word_address + 1)]
                        m.d.sync += output_columns.step_or_begin()
                        with m.If(~output_columns.is_last):
                            next_start = addresses["window_start"] + geometry.window_step
                            m.d.sync += begin_window(next_start, left + geometry.stride, top)
                            m.d.comb += begins_window.eq(has_room)
                            with m.If(~has_room):
                                m.next = "WAIT ROW"
                        with m.Else():
                            next_row_start = addresses["row_start"] + geometry.window_row_step
                            m.d.sync += [
                                *output_rows.step(),
                                rows_needed.eq(rows_needed + geometry.stride),
                                addresses["row_start"].eq(next_row_start),
                                *begin_window(next_row_start, -geometry.padding, top + geometry.stride),
                            ]
                            m.next = "NEXT ROW"
                            with m.If(output_rows.is_last):
                                m.d.sync += settle.begin(self.WRITE_CYCLES + 1)
                                m.next = "SETTLE"
            with m.State("SETTLE"):
                with m.If(~settle.is_last):
                    m.d.sync += settle.step()
                # Rows below the last window may still be on their way.
                with m.Elif(image_is_here):
                    m.d.comb += laid_out.eq(1)
                    m.d.sync += [layout_half.eq(~layout_half), half_is_free.eq(1)]
                    for half in range(2):
                        with m.If(layout_half == half):
                            m.d.sync += [rows_received[half].eq(0), halves_received[half].eq(0)]
                    m.next = "WAIT IMAGE"

        controls = Cat(gathering, inside, position, word_address)
        controls = delay(m, controls, TwoCycleMemory.LATENCY, "controls")
        position_end = 2 + len(position)
        pixel = Mux(controls[1], raw.read_data, 0)
        # A register ahead of the image memory.
        m.d.sync += self.write_address.eq(controls[position_end:])
        for lane in range(machine.lanes):
            lane_position, lane_byte = divmod(lane, step_channels)
            m.d.sync += [
                self.write_data.word_select(lane, LANE_BITS).eq(pixel.word_select(lane_byte, LANE_BITS)),
                self.write_enable[lane].eq(controls[0] & (controls[2:position_end] == lane_position)),
            ]
        return m
