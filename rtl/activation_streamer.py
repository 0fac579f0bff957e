"""Streams the activations of a strip past the weight plane in the array, one word a cycle."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwsim.machine import ACTIVATION_ARRIVAL_CYCLES, ADDRESS_LATENCY_CYCLES, SIZE_BITS, Machine, bits_for
from rtl.countdown import Countdown
from rtl.delay import delay
from rtl.leaves.memory import TwoCycleMemory
from rtl.records import struct
from rtl.rotate import rotate
from rtl.weight_feeder import pass_layout


def step_layout(machine: Machine) -> data.StructLayout:
    """Return the layout of the controls that travel with one activation word."""
    return data.StructLayout(
        {
            "swap": 1,
            "valid": 1,
            "clears": 1,
            "doubles": 1,
            "subtracts": 1,
            "accumulator_bank": 1,
            "address": range(machine.strip_pixels),
            "ends_job": 1,
        }
    )


class ActivationStreamer(wiring.Component):
    """Reads the input units of every pass and tells the array and the accumulator what to do with them.

    Unit u of a step is read for the output pixel's base address P from bank ``(P + u) % banks``; the banks' words are
    rotated back by ``P % banks``, so that unit u always meets the lanes of bank position u. Units outside the image or
    the window are masked to 0. A pass of p pixels takes max(p, ``hazard_cycles``) cycles.

    Latency: ``LATENCY`` cycles from ``pixel`` to ``activations``, one word a cycle.

    Parameters
    ----------
    machine : Machine
    hazard_cycles : int
        Least distance between two accesses to one accumulator.

    Members
    -------
    layer : In
        Descriptor of the running layer.
    start : In(1)
        Begin a layer, one cycle.
    pass_ready, next_pass, take
        See ``WeightFeeder``.
    bank_free : In(1)
        One of the two accumulator banks is free.
    bank_take : Out(1)
        A job begins and takes a bank.
    image_release : Out(1)
        The windows of a strip of the image have been read for the last time, one cycle.
    image_release_pixels : Out
        How many they are.
    read_address : Out
        For each bank, the word to read, to be kept in a register ahead of the memory.
    image_base : In
        Image word where the running image begins.
    image_address : Out
        The same for the image memory, where the units of a word lie side by side.
    read_data : In
        For each bank, that word, ``1 + MEMORY_LATENCY_CYCLES + ACTIVATION_ARRIVAL_CYCLES`` cycles later: there are
        registers ahead of the memories and behind them.
    activations : Out
        For each bank position, the unit for its lanes.
    step : Out
        Controls of the word, see ``step_layout``; together with ``activations``.
    """

    LATENCY = ADDRESS_LATENCY_CYCLES + TwoCycleMemory.LATENCY + ACTIVATION_ARRIVAL_CYCLES

    def __init__(self, machine: Machine, hazard_cycles: int):
        self.machine = machine
        self.hazard_cycles = hazard_cycles
        super().__init__(
            {
                "layer": In(struct(machine.layer_layout)),
                "start": In(1),
                "pass_ready": In(1),
                "next_pass": In(pass_layout(machine)),
                "take": Out(1),
                "bank_free": In(1),
                "bank_take": Out(1),
                "image_release": Out(1),
                "image_release_pixels": Out(range(machine.strip_pixels + 1)),
                "image_base": In(range(machine.image_words)),
                "image_address": Out(range(machine.image_words)),
                "read_address": Out(data.ArrayLayout(machine.word_address_bits, machine.banks)),
                "read_data": In(data.ArrayLayout(machine.unit_bits, machine.banks)),
                "activations": Out(data.ArrayLayout(machine.unit_bits, machine.banks)),
                "step": Out(step_layout(machine)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        machine = self.machine
        layer = self.layer
        address_bits = machine.unit_address_bits

        # Where a strip starts, where it is and what comes next: output column, input column and row, the row after it,
        # their addresses.
        shapes = {
            "columns_left": SIZE_BITS,
            "row_ends": 1,
            "x": SIZE_BITS + 1,
            "y": SIZE_BITS + 1,
            "next_y": SIZE_BITS + 1,
            "row_address": address_bits,
            "address": address_bits,
        }
        start, current, after = (
            {name: Signal(bits, name=f"{when}_{name}") for name, bits in shapes.items()}
            for when in ("start", "current", "after")
        )
        # The strip that the next job works on. A job begins HAZARD_CYCLES after another or more, time enough to work
        # out these registers one after the other.
        pixels_left = Signal(2 * SIZE_BITS)
        strip_pixels = Signal(range(machine.strip_pixels + 1))
        strip_is_pixel, strip_is_last = Signal(), Signal()
        pixels_after = Signal(2 * SIZE_BITS)
        whole_strips = pixels_left[machine.strip_pixels.bit_length() - 1 :].any()
        m.d.sync += [
            strip_pixels.eq(Mux(whole_strips, machine.strip_pixels, pixels_left)),
            strip_is_pixel.eq(pixels_left == 1),
            strip_is_last.eq(pixels_left <= machine.strip_pixels),
            pixels_after.eq(Mux(strip_is_last, layer.output_pixels, pixels_left - machine.strip_pixels)),
        ]

        running = Signal()
        this_pass = Signal(pass_layout(machine))
        this_strip_pixels = Signal.like(strip_pixels)
        this_strip_is_pixel, this_strip_is_last = Signal(), Signal()
        pixel = Signal(range(machine.strip_pixels))
        pixels = Countdown(len(strip_pixels), "pixels")
        accumulator_bank = Signal()
        age = Countdown(bits_for(self.hazard_cycles), "age")

        # A job starts only when the one before has streamed out, since its first pixel depends on the last one's.
        with m.If(self.next_pass.first_of_job):
            m.d.comb += self.take.eq(self.pass_ready & ~running & self.bank_free & age.is_last)
        with m.Else():
            m.d.comb += self.take.eq(self.pass_ready & (~running | pixels.is_last) & age.is_last)
        m.d.comb += self.bank_take.eq(self.take & self.next_pass.first_of_job)

        with m.If(~age.is_last):
            m.d.sync += age.step()

        row_ends, row_is_pixel = current["row_ends"], Signal()
        m.d.sync += row_is_pixel.eq(layer.output_width == 1)
        next_address = (
            Mux(row_ends, current["row_address"], current["address"]) + Mux(row_ends, layer.row_step, layer.pixel_step)
        )[:address_bits]
        m.d.comb += [
            after["columns_left"].eq(Mux(row_ends, layer.output_width, current["columns_left"] - 1)),
            after["row_ends"].eq(Mux(row_ends, row_is_pixel, current["columns_left"] == 2)),
            after["x"].eq(Mux(row_ends, 0, current["x"] + layer.stride)),
            after["y"].eq(Mux(row_ends, current["next_y"], current["y"])),
            after["next_y"].eq(Mux(row_ends, current["next_y"] + layer.stride, current["next_y"])),
            after["row_address"].eq(Mux(row_ends, next_address, current["row_address"])),
            after["address"].eq(next_address),
        ]

        initial = {
            "columns_left": layer.output_width,
            "row_ends": row_is_pixel,
            "x": 0,
            "y": 0,
            "next_y": layer.stride,
            "row_address": layer.input_start,
            "address": layer.input_start,
        }
        # The cycle after a job that leaves pixels to the next: these start where it came to, and may do so at once.
        goes_on = Signal()
        m.d.sync += goes_on.eq(0)
        with m.If(goes_on):
            m.d.sync += [start[name].eq(current[name]) for name in shapes]

        with m.If(running):
            m.d.sync += [pixel.eq(pixel + 1), *pixels.step()]
            m.d.sync += [current[name].eq(after[name]) for name in shapes]
            with m.If(pixels.is_last):
                m.d.sync += running.eq(0)
                with m.If(this_pass.last_of_job):
                    m.d.sync += accumulator_bank.eq(~accumulator_bank)
                    with m.If(this_strip_is_last):
                        m.d.sync += [start[name].eq(initial[name]) for name in shapes]
                    with m.Else():
                        m.d.sync += goes_on.eq(1)

        with m.If(self.take):
            m.d.sync += [running.eq(1), this_pass.eq(self.next_pass), pixel.eq(0), *age.begin(self.hazard_cycles)]
            with m.If(~goes_on):
                m.d.sync += [current[name].eq(start[name]) for name in shapes]
            with m.If(self.next_pass.first_of_job):
                m.d.sync += [
                    this_strip_pixels.eq(strip_pixels),
                    this_strip_is_pixel.eq(strip_is_pixel),
                    this_strip_is_last.eq(strip_is_last),
                    pixels_left.eq(pixels_after),
                    pixels.left.eq(strip_pixels),
                    pixels.is_last.eq(strip_is_pixel),
                ]
            with m.Else():
                m.d.sync += [pixels.left.eq(this_strip_pixels), pixels.is_last.eq(this_strip_is_pixel)]

        with m.If(self.start):
            m.d.sync += [start[name].eq(initial[name]) for name in shapes]
            m.d.sync += pixels_left.eq(layer.output_pixels)

        step = Signal(step_layout(machine))
        m.d.comb += [
            step.swap.eq(running & (pixel == 0)),
            step.valid.eq(running),
            step.clears.eq(this_pass.clears),
            step.doubles.eq(this_pass.doubles),
            step.subtracts.eq(this_pass.subtracts),
            step.accumulator_bank.eq(accumulator_bank),
            step.address.eq(pixel),
            step.ends_job.eq(running & pixels.is_last & this_pass.last_of_job),
        ]
        m.d.comb += [
            self.image_release.eq(step.ends_job & this_pass.releases_image),
            self.image_release_pixels.eq(this_strip_pixels),
        ]
        m.d.comb += self.step.eq(delay(m, step, self.LATENCY, "step"))

        # Cycle 1: the units' addresses and places in the image. Cycle 2: each bank gets the address that lies in it.
        bank_bits = machine.banks.bit_length() - 1
        addresses, inside = [], []
        for index in range(machine.banks):
            unit = this_pass.units[index]
            x, y = Signal(signed(SIZE_BITS + 2), name=f"x_{index}"), Signal(signed(SIZE_BITS + 2), name=f"y_{index}")
            address = Signal(address_bits, name=f"address_{index}")
            is_read = Signal(name=f"is_read_{index}")
            m.d.sync += [
                x.eq(current["x"] + unit.kernel_column),
                y.eq(current["y"] + unit.kernel_row),
                address.eq(current["address"] + unit.offset),
                is_read.eq(running & unit.valid),
            ]
            addresses.append(address[bank_bits:] if bank_bits < address_bits else address)
            inside.append(is_read & (x >= 0) & (x < layer.input_width) & (y >= 0) & (y < layer.input_height))
        turn = current["address"][:bank_bits] if bank_bits else None
        turn_1 = delay(m, turn, 1, "turn") if bank_bits else None
        # Position u holds the unit of bank (u + turn) % banks: bank b gets position (b - turn) % banks.
        rotated = rotate(addresses, turn_1, bank_bits, backward=True)
        m.d.comb += [self.read_address[bank].eq(address) for bank, address in enumerate(rotated)]
        m.d.comb += self.image_address.eq(addresses[0] + self.image_base)

        turn_data = delay(m, turn_1, self.LATENCY - 1, "turn_data") if bank_bits else None
        mask = delay(m, Cat(inside), self.LATENCY - 1, "mask")
        units = rotate([self.read_data[bank] for bank in range(machine.banks)], turn_data, bank_bits, backward=False)
        m.d.comb += [self.activations[index].eq(Mux(mask[index], unit, 0)) for index, unit in enumerate(units)]
        return m
