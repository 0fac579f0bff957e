"""Streams the activations of a strip past the weight plane in the array, one word a cycle."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwsim.machine import ADDRESS_LATENCY_CYCLES, SIZE_BITS, Machine
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
        For each bank, the word to read.
    read_data : In
        For each bank, that word, two cycles later.
    activations : Out
        For each bank position, the unit for its lanes.
    step : Out
        Controls of the word, see ``step_layout``; together with ``activations``.
    """

    LATENCY = ADDRESS_LATENCY_CYCLES + TwoCycleMemory.LATENCY

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

        # Where a strip starts, where it is and what comes next: output column, input column and row, their addresses.
        shapes = {
            "column": SIZE_BITS,
            "x": SIZE_BITS + 1,
            "y": SIZE_BITS + 1,
            "row_address": address_bits,
            "address": address_bits,
        }
        start, current, after = (
            {name: Signal(bits, name=f"{when}_{name}") for name, bits in shapes.items()}
            for when in ("start", "current", "after")
        )
        pixels_left = Signal(2 * SIZE_BITS)
        strip_pixels = Signal(range(machine.strip_pixels + 1))

        running = Signal()
        this_pass = Signal(pass_layout(machine))
        pixel = Signal(range(machine.strip_pixels))
        accumulator_bank = Signal()
        age = Signal(range(self.hazard_cycles + 1))
        last_pixel = pixel == strip_pixels - 1
        aged = age >= self.hazard_cycles - 1

        # A job starts only when the one before has streamed out, since its first pixel depends on the last one's.
        with m.If(self.next_pass.first_of_job):
            m.d.comb += self.take.eq(self.pass_ready & ~running & self.bank_free & aged)
        with m.Else():
            m.d.comb += self.take.eq(self.pass_ready & (~running | last_pixel) & aged)
        m.d.comb += self.bank_take.eq(self.take & self.next_pass.first_of_job)

        with m.If(~aged):
            m.d.sync += age.eq(age + 1)

        row_ends = current["column"] == layer.output_width - 1
        next_row = (current["row_address"] + layer.row_step)[:address_bits]
        m.d.comb += [
            after["column"].eq(Mux(row_ends, 0, current["column"] + 1)),
            after["x"].eq(Mux(row_ends, 0, current["x"] + layer.stride)),
            after["y"].eq(current["y"] + Mux(row_ends, layer.stride, 0)),
            after["row_address"].eq(Mux(row_ends, next_row, current["row_address"])),
            after["address"].eq(Mux(row_ends, next_row, current["address"] + layer.pixel_step)),
        ]

        initial = {"column": 0, "x": 0, "y": 0, "row_address": layer.input_start, "address": layer.input_start}
        with m.If(self.start):
            m.d.sync += [start[name].eq(initial[name]) for name in shapes]
            m.d.sync += pixels_left.eq(layer.output_pixels)

        with m.If(running):
            m.d.sync += pixel.eq(pixel + 1)
            m.d.sync += [current[name].eq(after[name]) for name in shapes]
            with m.If(last_pixel):
                m.d.sync += running.eq(0)
                with m.If(this_pass.last_of_job):
                    m.d.sync += accumulator_bank.eq(~accumulator_bank)
                    with m.If(pixels_left == strip_pixels):
                        m.d.sync += [start[name].eq(initial[name]) for name in shapes]
                        m.d.sync += pixels_left.eq(layer.output_pixels)
                    with m.Else():
                        m.d.sync += [start[name].eq(after[name]) for name in shapes]
                        m.d.sync += pixels_left.eq(pixels_left - strip_pixels)

        with m.If(self.take):
            m.d.sync += [
                running.eq(1),
                this_pass.eq(self.next_pass),
                pixel.eq(0),
                age.eq(0),
                strip_pixels.eq(Mux(pixels_left < machine.strip_pixels, pixels_left, machine.strip_pixels)),
            ]
            m.d.sync += [current[name].eq(start[name]) for name in shapes]

        step = Signal(step_layout(machine))
        m.d.comb += [
            step.swap.eq(running & (pixel == 0)),
            step.valid.eq(running),
            step.clears.eq(this_pass.clears),
            step.doubles.eq(this_pass.doubles),
            step.subtracts.eq(this_pass.subtracts),
            step.accumulator_bank.eq(accumulator_bank),
            step.address.eq(pixel),
            step.ends_job.eq(running & last_pixel & this_pass.last_of_job),
        ]
        m.d.comb += [
            self.image_release.eq(step.ends_job & this_pass.releases_image),
            self.image_release_pixels.eq(strip_pixels),
        ]
        m.d.comb += self.step.eq(delay(m, step, self.LATENCY, "step"))

        # Cycle 1: the units' addresses and which of them are inside. Cycle 2: each bank gets the one that lies in it.
        bank_bits = machine.banks.bit_length() - 1
        addresses, inside = [], []
        for index in range(machine.banks):
            unit = this_pass.units[index]
            x, y = Signal(signed(SIZE_BITS + 2), name=f"x_{index}"), Signal(signed(SIZE_BITS + 2), name=f"y_{index}")
            m.d.comb += [x.eq(current["x"] + unit.kernel_column), y.eq(current["y"] + unit.kernel_row)]
            address = Signal(address_bits, name=f"address_{index}")
            m.d.sync += address.eq(current["address"] + unit.offset)
            addresses.append(address[bank_bits:] if bank_bits < address_bits else address)
            inside.append(
                running & unit.valid & (x >= 0) & (x < layer.input_width) & (y >= 0) & (y < layer.input_height)
            )
        turn = current["address"][:bank_bits] if bank_bits else None
        turn_1 = delay(m, turn, 1, "turn") if bank_bits else None
        # Position u holds the unit of bank (u + turn) % banks: bank b gets position (b - turn) % banks.
        rotated = rotate(addresses, turn_1, bank_bits, backward=True)
        for bank, address in enumerate(rotated):
            m.d.sync += self.read_address[bank].eq(address)

        turn_data = delay(m, turn_1, self.LATENCY - 1, "turn_data") if bank_bits else None
        mask = delay(m, Cat(inside), self.LATENCY, "mask")
        units = rotate([self.read_data[bank] for bank in range(machine.banks)], turn_data, bank_bits, backward=False)
        m.d.comb += [self.activations[index].eq(Mux(mask[index], unit, 0)) for index, unit in enumerate(units)]
        return m
