"""Fills the memories of the machine from one stream of 32-bit words."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hwsim.machine import LOAD_COUNT_BITS, LOAD_TARGETS, LOAD_WORD_BITS, Machine, bits_for
from rtl.countdown import Countdown


def record_words(machine: Machine) -> dict[str, int]:
    """Return how many words of the load stream one record of each target takes."""
    return {target: -(-bits // LOAD_WORD_BITS) for target, bits in record_bits(machine).items()}


def record_bits(machine: Machine) -> dict[str, int]:
    """Return the bits of one record of each target."""
    return {
        "weights": machine.weight_word_bits,
        "tables": machine.table_layout.bits,
        "skip_tables": machine.requantizer.skip_multiplier_bits,
        "layers": LOAD_WORD_BITS,
        "tiles": machine.tiles_layout.bits,
        "image": machine.image_layout.bits,
    }


def record_counts(machine: Machine) -> dict[str, int]:
    """Return how many records each target holds."""
    return {
        "weights": machine.weight_words,
        "tables": machine.table_words,
        "skip_tables": machine.skip_table_words,
        "layers": machine.layer_slots * machine.layer_layout.load_words,
        "tiles": machine.layer_slots,
        "image": 1,
    }


class LoadPort(wiring.Component):
    """Unpacks packets: a header (target in the top 4 bits, number of records below), a start address, the records.

    A record is sent low word first. A record beyond its target's last one is dropped, and so is one for no target.
    Throughput: one word a cycle; ``i`` is always ready.

    Members
    -------
    i : In(stream.Signature(32))
    address : Out(32)
        Record address of the write.
    <target>_data, <target>_write : Out
        One pair for each target of ``hwsim.machine.LOAD_TARGETS``.
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        members = {"i": In(stream.Signature(LOAD_WORD_BITS)), "address": Out(LOAD_WORD_BITS)}
        for target, bits in record_bits(machine).items():
            members[f"{target}_data"] = Out(bits)
            members[f"{target}_write"] = Out(1)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        sizes = record_words(self.machine)
        bits = record_bits(self.machine)
        counts = record_counts(self.machine)
        longest = max(sizes.values())

        target = Signal(LOAD_WORD_BITS - LOAD_COUNT_BITS)
        records, words = Countdown(LOAD_COUNT_BITS, "records"), Countdown(bits_for(longest), "words")
        words_of_target = Signal(range(longest + 1))
        count_of_target, count = (Signal(range(max(counts.values()) + 1)) for _ in range(2))
        # Words are shifted in from the top, so a record of n words lies in the top n words.
        shifted = Signal(longest * LOAD_WORD_BITS)
        write = Signal()
        next_address = Signal(LOAD_WORD_BITS)

        # Registers ahead of the memories, which lie all over the chip.
        address = Signal(LOAD_WORD_BITS)
        m.d.sync += self.address.eq(address)
        with m.Switch(target):
            for name, number in LOAD_TARGETS.items():
                with m.Case(number):
                    m.d.comb += [words_of_target.eq(sizes[name]), count_of_target.eq(counts[name])]
                low = (longest - sizes[name]) * LOAD_WORD_BITS
                m.d.sync += [
                    getattr(self, f"{name}_data").eq(shifted[low : low + bits[name]]),
                    getattr(self, f"{name}_write").eq(write & (target == number)),
                ]
            with m.Default():
                m.d.comb += words_of_target.eq(1)

        m.d.sync += write.eq(0)
        m.d.comb += self.i.ready.eq(1)
        with m.FSM():
            with m.State("HEADER"):
                with m.If(self.i.valid):
                    m.d.sync += [
                        target.eq(self.i.payload[LOAD_COUNT_BITS:]),
                        *records.begin(self.i.payload[:LOAD_COUNT_BITS]),
                    ]
                    m.next = "ADDRESS"
            with m.State("ADDRESS"):
                with m.If(self.i.valid):
                    m.d.sync += [
                        next_address.eq(self.i.payload),
                        *words.begin(words_of_target),
                        count.eq(count_of_target),
                    ]
                    m.next = "RECORD"
                    with m.If(records.left == 0):
                        m.next = "HEADER"
            with m.State("RECORD"):
                with m.If(self.i.valid):
                    m.d.sync += [shifted.eq(shifted[LOAD_WORD_BITS:]), shifted[-LOAD_WORD_BITS:].eq(self.i.payload)]
                    m.d.sync += words.step()
                    with m.If(words.is_last):
                        m.d.sync += [
                            write.eq(next_address < count),
                            address.eq(next_address),
                            next_address.eq(next_address + 1),
                            *words.begin(words_of_target),
                            *records.step(),
                        ]
                        with m.If(records.is_last):
                            m.next = "HEADER"
        return m
