"""Max pooling, unit by unit: the largest code of a window, in every slot of every lane of a bank."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwsim.machine import KERNEL_BITS, SIZE_BITS, Machine
from rtl.leaves.memory import TwoCycleMemory
from rtl.records import struct


class MaxPool(wiring.Component):
    """Reads the units of every window, one a cycle, and writes their slot-wise maximum.

    Pixels outside the image are skipped as code 0, which never wins. A layer takes one cycle for each tap of each unit
    of each output pixel.

    Members
    -------
    layer : In
        Descriptor of the running layer.
    start : In(1)
        Begin a layer, one cycle.
    done : Out(1)
        Every output unit has been written, one cycle.
    read_address : Out; read_data : In
        Unit of the activation memory, two cycles.
    write_address, write_data, write_enable : Out
        Unit of the activation memory.
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        super().__init__(
            {
                "layer": In(struct(machine.layer_layout)),
                "start": In(1),
                "done": Out(1),
                "read_address": Out(machine.unit_address_bits),
                "read_data": In(machine.unit_bits),
                "write_address": Out(machine.unit_address_bits),
                "write_data": Out(machine.unit_bits),
                "write_enable": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        machine = self.machine
        layer = self.layer
        address_bits = machine.unit_address_bits

        kernel_column, kernel_row = Signal(KERNEL_BITS), Signal(KERNEL_BITS)
        unit = Signal(SIZE_BITS)
        column = Signal(SIZE_BITS)
        input_x, input_y = Signal(SIZE_BITS + 1), Signal(SIZE_BITS + 1)
        pixels_left = Signal(2 * SIZE_BITS)
        row_address = Signal(address_bits)
        pixel_address = Signal(address_bits)
        tap_row_address = Signal(address_bits)
        tap_address = Signal(address_bits)
        output_address = Signal(address_bits)

        running = Signal()
        last_column = kernel_column == layer.kernel_width - 1
        last_row = kernel_row == layer.kernel_height - 1
        last_unit = unit == layer.units - 1
        first_tap = (kernel_column == 0) & (kernel_row == 0)
        last_tap = last_column & last_row

        x, y = Signal(signed(SIZE_BITS + 2)), Signal(signed(SIZE_BITS + 2))
        m.d.comb += [
            x.eq(input_x + kernel_column - layer.padding),
            y.eq(input_y + kernel_row - layer.padding),
            self.read_address.eq(tap_address),
        ]
        inside = (x >= 0) & (x < layer.input_width) & (y >= 0) & (y < layer.input_height)

        def begin_window(address):
            return [tap_row_address.eq(address), tap_address.eq(address)]

        settle = Signal(range(4))
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start & layer.is_max_pool):
                    m.d.sync += [
                        unit.eq(0),
                        column.eq(0),
                        input_x.eq(0),
                        input_y.eq(0),
                        kernel_column.eq(0),
                        kernel_row.eq(0),
                        pixels_left.eq(layer.output_pixels - 1),
                        row_address.eq(layer.input_start),
                        pixel_address.eq(layer.input_start),
                        output_address.eq(layer.output_start),
                        *begin_window(layer.input_start),
                    ]
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += running.eq(1)
                with m.If(~last_column):
                    m.d.sync += [
                        kernel_column.eq(kernel_column + 1),
                        tap_address.eq(tap_address + layer.units),
                    ]
                with m.Elif(~last_row):
                    m.d.sync += [kernel_column.eq(0), kernel_row.eq(kernel_row + 1)]
                    m.d.sync += begin_window(tap_row_address + layer.kernel_row_step)
                with m.Else():
                    m.d.sync += [kernel_column.eq(0), kernel_row.eq(0), output_address.eq(output_address + 1)]
                    ends_row = last_unit & (column == layer.output_width - 1)
                    with m.If(ends_row):
                        m.d.sync += output_address.eq(output_address + 1 + layer.output_row_gap)
                    with m.If(~last_unit):
                        m.d.sync += unit.eq(unit + 1)
                        m.d.sync += begin_window(pixel_address + unit + 1)
                    with m.Else():
                        m.d.sync += [unit.eq(0), pixels_left.eq(pixels_left - 1)]
                        with m.If(column == layer.output_width - 1):
                            next_row = row_address + layer.row_step
                            m.d.sync += [
                                column.eq(0),
                                input_x.eq(0),
                                input_y.eq(input_y + layer.stride),
                                row_address.eq(next_row),
                                pixel_address.eq(next_row),
                                *begin_window(next_row),
                            ]
                        with m.Else():
                            next_pixel = pixel_address + layer.pixel_step
                            m.d.sync += [
                                column.eq(column + 1),
                                input_x.eq(input_x + layer.stride),
                                pixel_address.eq(next_pixel),
                                *begin_window(next_pixel),
                            ]
                        with m.If(pixels_left == 0):
                            m.d.sync += settle.eq(TwoCycleMemory.LATENCY + 1)
                            m.next = "SETTLE"
            with m.State("SETTLE"):
                m.d.sync += settle.eq(settle - 1)
                with m.If(settle == 0):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"

        controls = Cat(running, running & inside, first_tap, last_tap, output_address)
        for _ in range(TwoCycleMemory.LATENCY):
            stage = Signal(len(controls))
            m.d.sync += stage.eq(controls)
            controls = stage
        valid, keep, first, last, address = controls[0], controls[1], controls[2], controls[3], controls[4:]

        held = Signal(machine.unit_bits)
        largest = Signal(machine.unit_bits)
        candidate = Mux(keep, self.read_data, 0)
        m.d.comb += largest.eq(self._maximum(m, candidate, Mux(first, 0, held)))
        with m.If(valid):
            m.d.sync += held.eq(largest)
        m.d.sync += [
            self.write_enable.eq(valid & last),
            self.write_address.eq(address),
            self.write_data.eq(largest),
        ]
        return m

    def _maximum(self, m, left, right):
        """Return the slot-wise maximum of two units."""
        machine = self.machine
        bits = machine.group_bits
        left_unit = Signal(machine.unit_bits)
        right_unit = Signal(machine.unit_bits)
        m.d.comb += [left_unit.eq(left), right_unit.eq(right)]
        parts = [[None] * machine.bank_lanes for _ in range(machine.groups)]
        # ends_slot[k]: group k is the top group of a slot.
        ends_slot = Signal(machine.groups)
        with m.Switch(self.layer.slot_index):
            for slot in machine.slots:
                index = machine.slot_index(slot)
                ends = sum(1 << k for k in range(machine.groups) if (k + 1) % (1 << index) == 0)
                with m.Case(index):
                    m.d.comb += ends_slot.eq(ends)
        for lane in range(machine.bank_lanes):
            greater = []
            carry = 0
            for group in range(machine.groups):
                a = left_unit.word_select(group * machine.bank_lanes + lane, bits)
                b = right_unit.word_select(group * machine.bank_lanes + lane, bits)
                wins = Signal(name=f"wins_{lane}_{group}")
                m.d.comb += wins.eq((a > b) | ((a == b) & carry))
                greater.append(wins)
                carry = wins & ~ends_slot[group]
            chosen = greater[-1]
            for group in reversed(range(machine.groups)):
                chosen = Mux(ends_slot[group], greater[group], chosen)
                a = left_unit.word_select(group * machine.bank_lanes + lane, bits)
                b = right_unit.word_select(group * machine.bank_lanes + lane, bits)
                parts[group][lane] = Mux(chosen, a, b)
        return Cat(*(part for group in parts for part in group))
