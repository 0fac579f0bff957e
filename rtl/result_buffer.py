"""Holds the logits of two images and sends them out one by one."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwsim import spec
from hwsim.machine import SIZE_BITS, Machine
from rtl.countdown import Loop
from rtl.leaves.memory import TwoCycleMemory

RESULT = data.StructLayout({"value": signed(spec.LOGIT_BITS), "last": 1})
"""One logit; ``last`` marks the last of an image."""


class ResultBuffer(wiring.Component):
    """Stores the logits of an image while those of the one before leave.

    Members
    -------
    classes : In
        Number of logits, constant while an image's are stored and sent.
    write_address, write_data, write_enable : In
        A word is ``requantizers`` logits.
    done : In(1)
        The image's logits are complete, one cycle.
    free : Out(1)
        A half is free.
    o : Out(stream.Signature(RESULT))
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        super().__init__(
            {
                "classes": In(SIZE_BITS),
                "write_address": In(range(max(2, machine.result_words))),
                "write_data": In(machine.requantizers * spec.LOGIT_BITS),
                "write_enable": In(1),
                "done": In(1),
                "free": Out(1),
                "o": Out(stream.Signature(RESULT)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        machine = self.machine
        words = max(2, machine.result_words)
        m.submodules.memory = memory = TwoCycleMemory(machine.requantizers * spec.LOGIT_BITS, 2 * words)

        used = Signal(2)
        write_half, read_half = Signal(), Signal()
        sent = Signal()
        m.d.sync += used.eq(used + self.done - sent)
        with m.If(self.done):
            m.d.sync += write_half.eq(~write_half)

        logits = Loop(m, self.classes, "logits")
        lane = Signal(range(max(2, machine.requantizers)))
        word = Signal(range(words))
        m.d.comb += [
            self.free.eq(used != 2),
            memory.write_address.eq(self.write_address + Mux(write_half, words, 0)),
            memory.write_data.eq(self.write_data),
            memory.write_enable.eq(self.write_enable),
            memory.read_address.eq(word + Mux(read_half, words, 0)),
            memory.read_enable.eq(1),
            self.o.payload.value.eq(memory.read_data.word_select(lane, spec.LOGIT_BITS)),
            self.o.payload.last.eq(logits.is_last),
        ]
        wait = Signal(range(TwoCycleMemory.LATENCY + 1))
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [*logits.begin(), lane.eq(0), word.eq(0), wait.eq(TwoCycleMemory.LATENCY)]
                with m.If(used != 0):
                    m.next = "READ"
            with m.State("READ"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.d.sync += [*logits.step(), lane.eq(lane + 1)]
                    with m.If(logits.is_last):
                        m.d.comb += sent.eq(1)
                        m.d.sync += read_half.eq(~read_half)
                        m.next = "IDLE"
                    with m.Elif(lane == machine.requantizers - 1):
                        m.d.sync += [lane.eq(0), word.eq(word + 1), wait.eq(TwoCycleMemory.LATENCY)]
                        m.next = "READ"
        return m
