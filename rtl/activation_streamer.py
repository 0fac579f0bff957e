"""Streams the activations of a strip past the weight plane in the array, one word a cycle."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwsim.machine import SIZE_BITS, Machine
from rtl.records import struct
from rtl.weight_feeder import pass_layout


def step_layout(machine: Machine) -> data.StructLayout:
    """Return the layout of the controls that travel with one activation word."""
    return data.StructLayout(
        {
            "swap": 1,
            "groups": machine.groups,
            "valid": 1,
            "clears": 1,
            "doubles": 1,
            "subtracts": 1,
            "bank": 1,
            "address": range(machine.strip_pixels),
            "ends_job": 1,
        }
    )


class ActivationStreamer(wiring.Component):
    """Reads the input pixels of every pass and tells the array and the accumulator what to do with them.

    A pass of p pixels takes max(p, ``hazard_cycles``) cycles. Pixels outside the image are masked to 0.

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
    read_address : Out
        Word of the activation or image memory.
    step : Out
        Controls of the word read in this cycle; see ``step_layout``.
    """

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
                "read_address": Out(machine.activation_address_bits),
                "step": Out(step_layout(machine)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        machine = self.machine
        layer = self.layer
        address_bits = machine.activation_address_bits

        # Where a strip starts, and where the next one will: output column, input column and row, their addresses.
        start = {
            "column": Signal(SIZE_BITS, name="start_column"),
            "x": Signal(SIZE_BITS + 1, name="start_x"),
            "y": Signal(SIZE_BITS + 1, name="start_y"),
            "row_address": Signal(address_bits, name="start_row_address"),
            "address": Signal(address_bits, name="start_address"),
        }
        current = {name: Signal.like(signal, name=f"current_{name}") for name, signal in start.items()}
        after = {name: Signal.like(signal, name=f"after_{name}") for name, signal in start.items()}
        pixels_left = Signal(2 * SIZE_BITS)
        strip_pixels = Signal(range(machine.strip_pixels + 1))

        running = Signal()
        this_pass = Signal(pass_layout(machine))
        pixel = Signal(range(machine.strip_pixels))
        bank = Signal()
        age = Signal(range(self.hazard_cycles + 1))
        last_pixel = pixel == strip_pixels - 1
        aged = age >= self.hazard_cycles - 1

        # A job starts only when the one before has streamed out, since its first pixel depends on the last one's.
        can_start_pass = ~running | last_pixel
        with m.If(self.next_pass.first_of_job):
            m.d.comb += self.take.eq(self.pass_ready & ~running & self.bank_free & aged)
        with m.Else():
            m.d.comb += self.take.eq(self.pass_ready & can_start_pass & aged)
        m.d.comb += self.bank_take.eq(self.take & self.next_pass.first_of_job)

        with m.If(~aged):
            m.d.sync += age.eq(age + 1)

        row_ends = current["column"] == layer.output_width - 1
        m.d.comb += [
            after["column"].eq(Mux(row_ends, 0, current["column"] + 1)),
            after["x"].eq(Mux(row_ends, 0, current["x"] + layer.stride)),
            after["y"].eq(current["y"] + Mux(row_ends, layer.stride, 0)),
            after["row_address"].eq(current["row_address"] + Mux(row_ends, layer.row_step, 0)),
            after["address"].eq(
                Mux(row_ends, current["row_address"] + layer.row_step, current["address"] + layer.pixel_step)
            ),
        ]

        initial = {"column": 0, "x": 0, "y": 0, "row_address": layer.input_start, "address": layer.input_start}
        with m.If(self.start):
            m.d.sync += [start[name].eq(initial[name]) for name in start]
            m.d.sync += pixels_left.eq(layer.output_pixels)

        with m.If(running):
            m.d.sync += pixel.eq(pixel + 1)
            m.d.sync += [current[name].eq(after[name]) for name in current]
            with m.If(last_pixel):
                m.d.sync += running.eq(0)
                with m.If(this_pass.last_of_job):
                    m.d.sync += bank.eq(~bank)
                    # The pass offset is in the addresses, so the next strip starts where this one would have gone on.
                    with m.If(pixels_left == strip_pixels):
                        m.d.sync += [start[name].eq(initial[name]) for name in start]
                        m.d.sync += pixels_left.eq(layer.output_pixels)
                    with m.Else():
                        offset = this_pass.activation_offset
                        m.d.sync += [start[name].eq(after[name]) for name in ("column", "x", "y")]
                        m.d.sync += [start[name].eq(after[name] - offset) for name in ("row_address", "address")]
                        m.d.sync += pixels_left.eq(pixels_left - strip_pixels)

        with m.If(self.take):
            offset = self.next_pass.activation_offset
            m.d.sync += [
                running.eq(1),
                this_pass.eq(self.next_pass),
                pixel.eq(0),
                age.eq(0),
                strip_pixels.eq(Mux(pixels_left < machine.strip_pixels, pixels_left, machine.strip_pixels)),
            ]
            m.d.sync += [current[name].eq(start[name]) for name in ("column", "x", "y")]
            m.d.sync += [current[name].eq(start[name] + offset) for name in ("row_address", "address")]

        x = Signal(signed(SIZE_BITS + 2))
        y = Signal(signed(SIZE_BITS + 2))
        m.d.comb += [
            x.eq(current["x"] + this_pass.kernel_column - layer.padding),
            y.eq(current["y"] + this_pass.kernel_row - layer.padding),
        ]
        inside = (x >= 0) & (x < layer.input_width) & (y >= 0) & (y < layer.input_height)
        m.d.comb += [
            self.read_address.eq(current["address"]),
            self.step.swap.eq(running & (pixel == 0)),
            self.step.groups.eq(Mux(running & inside, this_pass.groups, 0)),
            self.step.valid.eq(running),
            self.step.clears.eq(this_pass.clears),
            self.step.doubles.eq(this_pass.doubles),
            self.step.subtracts.eq(this_pass.subtracts),
            self.step.bank.eq(bank),
            self.step.address.eq(pixel),
            self.step.ends_job.eq(running & last_pixel & this_pass.last_of_job),
        ]
        return m
