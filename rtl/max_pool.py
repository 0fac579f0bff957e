"""Max pooling, unit by unit: the largest code of a window, in every slot of every lane of a bank."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwsim.machine import ACTIVATION_ARRIVAL_CYCLES, SIZE_BITS, Machine, bits_for
from rtl.countdown import Countdown, Loop
from rtl.delay import delay
from rtl.leaves.memory import TwoCycleMemory
from rtl.records import struct


class MaxPool(wiring.Component):
    """Reads the units of every window, one a cycle, and writes their slot-wise maximum.

    Pixels outside the image are skipped as code 0, which never wins. A layer takes one cycle for each tap of each unit
    of each output pixel. Latency: ``LATENCY`` cycles from a window's last tap until its maximum has been written.

    Members
    -------
    layer : In
        Descriptor of the running layer.
    start : In(1)
        Begin a layer, one cycle.
    done : Out(1)
        Every output unit has been written, one cycle.
    read_address : Out; read_data : In
        Unit of the activation memory, ``ARRIVAL_CYCLES``: there are registers ahead of the memory and behind it.
    write_address, write_data, write_enable : Out
        Unit of the activation memory; to be kept in a register ahead of it.
    """

    ARRIVAL_CYCLES = 1 + TwoCycleMemory.LATENCY + ACTIVATION_ARRIVAL_CYCLES
    LATENCY = ARRIVAL_CYCLES + 3

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

        kernel_columns, kernel_rows, units, columns, pixels = (
            Loop(m, getattr(layer, field), f"{field}_loop")
            for field in ("kernel_width", "kernel_height", "units", "output_width", "output_pixels")
        )
        # The tap being read: its place in the image; where its window and its row of taps begin, and what comes after.
        x, y, left, top = (Signal(signed(SIZE_BITS + 2), name=name) for name in ("x", "y", "left", "top"))
        next_row, next_pixel, window_address, tap_row_address, tap_address, output_address = (
            Signal(address_bits, name=f"{name}_address")
            for name in ("next_row", "next_pixel", "window", "tap_row", "tap", "output")
        )
        first_tap = Signal()
        row_end_units = Signal(address_bits)
        m.d.sync += row_end_units.eq(layer.output_row_gap + 1)

        running = Signal()
        # Kept in a register, like ``is_last`` of the loops: much is decided by it.
        last_tap = Signal()
        m.d.comb += self.read_address.eq(tap_address)

        def begin_taps(address):
            return [
                window_address.eq(address),
                tap_row_address.eq(address),
                tap_address.eq(address),
                *kernel_columns.begin(),
                *kernel_rows.begin(),
                first_tap.eq(1),
                last_tap.eq(kernel_columns.is_single & kernel_rows.is_single),
            ]

        def begin_window(address, window_left, window_top):
            return [left.eq(window_left), x.eq(window_left), top.eq(window_top), y.eq(window_top), *begin_taps(address)]

        settle = Countdown(bits_for(self.LATENCY + 1), "settle")
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [
                    *units.begin(),
                    *columns.begin(),
                    *pixels.begin(),
                    next_row.eq(layer.input_start + layer.row_step),
                    next_pixel.eq(layer.input_start + layer.pixel_step),
                    output_address.eq(layer.output_start),
                    *begin_window(layer.input_start, -layer.padding, -layer.padding),
                ]
                with m.If(self.start & layer.is_max_pool):
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += running.eq(1)
                m.d.sync += first_tap.eq(0)
                with m.If(~kernel_columns.is_last):
                    m.d.sync += [
                        *kernel_columns.step(),
                        last_tap.eq((kernel_columns.left == 2) & kernel_rows.is_last),
                        x.eq(x + 1),
                        tap_address.eq(tap_address + layer.units),
                    ]
                with m.Elif(~last_tap):
                    next_tap_row = tap_row_address + layer.kernel_row_step
                    m.d.sync += [
                        *kernel_columns.begin(),
                        *kernel_rows.step(),
                        last_tap.eq(kernel_columns.is_single & (kernel_rows.left == 2)),
                        x.eq(left),
                        y.eq(y + 1),
                        tap_row_address.eq(next_tap_row),
                        tap_address.eq(next_tap_row),
                    ]
                with m.Else():
                    m.d.sync += [output_address.eq(output_address + 1), *units.step_or_begin()]
                    with m.If(~units.is_last):
                        m.d.sync += begin_window(window_address + 1, left, top)
                    with m.Else():
                        m.d.sync += [*pixels.step(), *columns.step_or_begin()]
                        with m.If(columns.is_last):
                            m.d.sync += [
                                output_address.eq(output_address + row_end_units),
                                next_row.eq(next_row + layer.row_step),
                                next_pixel.eq(next_row + layer.pixel_step),
                                *begin_window(next_row, -layer.padding, top + layer.stride),
                            ]
                        with m.Else():
                            m.d.sync += [
                                next_pixel.eq(next_pixel + layer.pixel_step),
                                *begin_window(next_pixel, left + layer.stride, top),
                            ]
                        with m.If(pixels.is_last):
                            m.d.sync += settle.begin(self.LATENCY + 1)
                            m.next = "SETTLE"
            with m.State("SETTLE"):
                m.d.sync += settle.step()
                with m.If(settle.is_last):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"

        # Outside the image there is nothing to keep: decided a cycle before the unit arrives.
        inside = Signal()
        m.d.comb += inside.eq((x >= 0) & (x < layer.input_width) & (y >= 0) & (y < layer.input_height))
        keep = delay(m, inside, self.ARRIVAL_CYCLES, "keep")
        arrived = Signal(machine.unit_bits)
        m.d.sync += arrived.eq(Mux(keep, self.read_data, 0))

        controls = delay(m, Cat(running, first_tap, last_tap, output_address), self.ARRIVAL_CYCLES + 1, "controls")
        valid, first, last, address = controls[0], controls[1], controls[2], controls[3:]
        held = Signal(machine.unit_bits)
        largest = Signal(machine.unit_bits)
        m.d.comb += largest.eq(self._maximum(m, arrived, Mux(first, 0, held)))
        with m.If(valid):
            m.d.sync += held.eq(largest)
        m.d.sync += [
            self.write_enable.eq(valid & last),
            self.write_address.eq(address),
            self.write_data.eq(largest),
        ]
        return m

    def _maximum(self, m, left, right):
        """Return the slot-wise maximum of two units.

        Slots are 1, 2, 4 ... groups wide and begin at multiples of that: runs of 2^k groups are compared for every k,
        each from the two halves of it, and a group goes with the run that its slot is.
        """
        machine = self.machine
        bits = machine.group_bits
        left_unit = Signal(machine.unit_bits)
        right_unit = Signal(machine.unit_bits)
        m.d.comb += [left_unit.eq(left), right_unit.eq(right)]
        parts = [[None] * machine.bank_lanes for _ in range(machine.groups)]
        for lane in range(machine.bank_lanes):
            words = [
                (
                    left_unit.word_select(group * machine.bank_lanes + lane, bits),
                    right_unit.word_select(group * machine.bank_lanes + lane, bits),
                )
                for group in range(machine.groups)
            ]
            # greater[k][run], equal[k][run]: the left run of 2^k groups is the greater one, or they are equal.
            greater, equal = [[a > b for a, b in words]], [[a == b for a, b in words]]
            while len(greater[-1]) > 1:
                tops, bottoms = greater[-1][1::2], greater[-1][::2]
                equal_tops, equal_bottoms = equal[-1][1::2], equal[-1][::2]
                greater.append(
                    [top | (same & bottom) for top, same, bottom in zip(tops, equal_tops, bottoms, strict=True)]
                )
                equal.append([top & bottom for top, bottom in zip(equal_tops, equal_bottoms, strict=True)])
            for group, (a, b) in enumerate(words):
                chosen = Signal(name=f"chosen_{lane}_{group}")
                with m.Switch(self.layer.slot_index):
                    for slot in machine.slots:
                        index = machine.slot_index(slot)
                        with m.Case(index):
                            m.d.comb += chosen.eq(greater[index][group >> index])
                parts[group][lane] = Mux(chosen, a, b)
        return Cat(*(part for group in parts for part in group))
