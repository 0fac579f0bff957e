"""Runs the layers of one image after another: fetch a descriptor, start the engines, wait until the layer is stored."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hwsim.machine import LOAD_WORD_BITS, Machine
from rtl.leaves.memory import TwoCycleMemory
from rtl.multiple import multiple
from rtl.records import struct


class Sequencer(wiring.Component):
    """Takes run commands and walks the descriptors of an assignment.

    Cycles are counted from the one in which a command has been taken and both barriers (image ready, result space)
    are open, until the last layer is stored; the cycles spent at the barriers are counted apart.

    Members
    -------
    run : In(stream.Signature(range(layer_slots)))
        Slot of the first layer of the assignment to run the next image at.
    image_ready : In(1)
        The image memory holds an image.
    image_release : Out(1)
    result_free : In(1)
        A half of the result memory is free.
    result_done : Out(1)
        It holds the logits now, one cycle.
    layers_address : Out; layers_data : In
        Descriptor memory, 32-bit words, two cycles.
    layer : Out
        Descriptor of the running layer.
    image_start : Out(1)
        The loader may begin with ``first_slot``, one cycle.
    first_slot : Out
    layer_start : Out(1)
        Every engine may begin the layer, one cycle.
    layer_done : In(1)
        The layer's output has been stored, one cycle.
    busy : Out(1)
    slot : Out
        Slot of the running layer.
    cycles : Out(32)
        Cycles of the image so far, barriers not counted.
    stall_cycles : Out(32)
        Cycles spent at the barriers since reset.
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        slots = range(max(2, machine.layer_slots))
        super().__init__(
            {
                "run": In(stream.Signature(slots)),
                "image_ready": In(1),
                "image_release": Out(1),
                "result_free": In(1),
                "result_done": Out(1),
                "layers_address": Out(range(max(2, machine.layer_slots * machine.layer_layout.load_words))),
                "layers_data": In(LOAD_WORD_BITS),
                "layer": Out(struct(machine.layer_layout)),
                "image_start": Out(1),
                "first_slot": Out(slots),
                "layer_start": Out(1),
                "layer_done": In(1),
                "busy": Out(1),
                "slot": Out(slots),
                "cycles": Out(32),
                "stall_cycles": Out(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        machine = self.machine
        words = machine.layer_layout.load_words

        record = Signal(words * LOAD_WORD_BITS)
        fetched = Signal(struct(machine.layer_layout))
        address = Signal.like(self.layers_address)
        reads_left = Signal(range(words + 1))
        words_left = Signal(range(words + 1))
        m.d.comb += [
            fetched.eq(record),
            self.layer.eq(fetched),
            self.layers_address.eq(address),
            self.first_slot.eq(self.slot),
        ]

        reading = Signal()
        arrives = reading
        for _ in range(TwoCycleMemory.LATENCY):
            stage = Signal()
            m.d.sync += stage.eq(arrives)
            arrives = stage
        with m.If(arrives):
            m.d.sync += [
                record.eq(record >> LOAD_WORD_BITS),
                record[-LOAD_WORD_BITS:].eq(self.layers_data),
                words_left.eq(words_left - 1),
            ]

        # Both barriers change long before a command comes to them, but for what it waits for.
        is_open = Signal()
        m.d.sync += is_open.eq(self.image_ready & self.result_free)

        counting = Signal()
        with m.If(counting):
            m.d.sync += self.cycles.eq(self.cycles + 1)

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.run.ready.eq(1)
                with m.If(self.run.valid):
                    m.d.sync += self.slot.eq(self.run.payload)
                    m.next = "BARRIER"
            with m.State("BARRIER"):
                m.d.comb += self.busy.eq(1)
                with m.If(is_open):
                    m.d.comb += self.image_start.eq(1)
                    m.d.sync += [
                        self.cycles.eq(0),
                        address.eq(multiple(self.slot, words)),
                        reads_left.eq(words),
                        words_left.eq(words),
                    ]
                    m.next = "FETCH"
                with m.Else():
                    m.d.sync += self.stall_cycles.eq(self.stall_cycles + 1)
            with m.State("FETCH"):
                m.d.comb += [self.busy.eq(1), counting.eq(1), reading.eq(reads_left != 0)]
                with m.If(reading):
                    m.d.sync += [address.eq(address + 1), reads_left.eq(reads_left - 1)]
                with m.If(words_left == 0):
                    m.next = "START"
            with m.State("START"):
                # The engines have had a cycle to derive registers of their own from the descriptor.
                m.d.comb += [self.busy.eq(1), counting.eq(1), self.layer_start.eq(1)]
                m.next = "LAYER"
            with m.State("LAYER"):
                m.d.comb += [self.busy.eq(1), counting.eq(1)]
                with m.If(self.layer_done):
                    m.d.sync += [self.slot.eq(self.slot + 1), reads_left.eq(words), words_left.eq(words)]
                    m.next = "FETCH"
                    with m.If(fetched.is_last):
                        m.d.comb += [self.image_release.eq(1), self.result_done.eq(1)]
                        m.next = "IDLE"
        return m
