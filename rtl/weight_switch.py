"""Stored codes to narrower ones, plane by plane, on the load path of the array."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hwsim import spec
from rtl.checks import check_count


class WeightSwitch(wiring.Component):
    """Switch the codes of ``weights`` weights in parallel, one plane a cycle: equals ``spec.switch``.

    The ``spec.planes_read`` stored planes arrive top plane first and are kept, in two buffers used in turn. The
    switched planes leave bottom plane first, so that the rounding bit ripples upwards serially: at pass position i the
    plane is ``spec.plane_bit(spec.switch(code, stored_bits, target_bits), target_bits, i)``, from position
    ``spec.planes_applied(target_bits) - 1`` down to 0.

    A rounding bit that would overflow (positive code, all kept bits below the sign one) is dropped before it ripples:
    that is the saturation. A bipolar weight leaves as ones (the pass that subtracts), then as its inverted sign.

    Latency: ``LATENCY`` cycles from the cycle of ``last`` to the first plane, then one plane a cycle. Throughput: a
    group may begin in the cycle after ``last``; from the ``last`` of one group to the next ``last`` there must be at
    least ``planes_applied`` cycles of the former (the planes that the latter reads take their time anyway).

    Parameters
    ----------
    weights : int
        Weights switched in parallel.
    stored_bits_max : int
        Widest stored code, 2 .. 8.

    Members
    -------
    plane : In(weights)
        Bit i is that of weight i.
    valid : In(1)
        A plane arrives; gaps are allowed.
    first, last : In(1)
        The plane is the first (the signs) or the last of its group; both, if it is the only one.
    target_bits : In(range(stored_bits_max + 1))
        Width to switch to, 1 .. stored_bits_max; sampled with ``last``.
    rounds : In(1)
        The last plane is the rounding bit, that is ``stored_bits > target_bits > 1``; sampled with ``last``.
    o_plane : Out(weights)
    o_position : Out(range(stored_bits_max))
        Pass position of the plane, as in ``spec.plane_bit``: 0 is the first pass.
    o_valid : Out(1)
    """

    LATENCY = 3

    def __init__(self, weights: int, stored_bits_max: int = spec.MAX_BITS) -> None:
        self.weights = check_count(weights, 1, 4096, "weights of a weight switch")
        self.stored_bits_max = check_count(stored_bits_max, 2, spec.MAX_BITS, "stored_bits_max")
        super().__init__(
            {
                "plane": In(self.weights),
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "target_bits": In(range(self.stored_bits_max + 1)),
                "rounds": In(1),
                "o_plane": Out(self.weights),
                "o_position": Out(range(self.stored_bits_max)),
                "o_valid": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        position_bits = len(self.o_position)

        # Arrival: the plane at address `position` of the buffer being filled. The read is asynchronous, so that the
        # planes fit distributed RAM: 1.5 LUT4 a weight on ECP5.
        m.submodules.buffers = planes = memory.Memory(shape=unsigned(self.weights), depth=2 << position_bits, init=[])
        write, read = planes.write_port(), planes.read_port(domain="comb")
        fills = Signal()
        arrivals = Signal(position_bits)
        position = Signal(position_bits)
        m.d.comb += position.eq(arrivals)
        with m.If(self.first):
            m.d.comb += position.eq(0)
        m.d.comb += [write.addr.eq(Cat(position, fills)), write.data.eq(self.plane), write.en.eq(self.valid)]

        # Before the last plane this is "positive, and all kept bits below the sign are one"; in the cycle after it,
        # the rounding bit that ripples. One LUT4 a weight: plane, itself, and the two bits of the operation.
        ripple = Signal(self.weights)
        done = self.valid & self.last
        with m.If(self.valid):
            m.d.sync += [arrivals.eq(position + 1), ripple.eq(ripple & self.plane)]
            with m.If(self.first):
                m.d.sync += ripple.eq(~self.plane)
            with m.If(self.last):
                m.d.sync += ripple.eq(0)
            with m.If(self.last & self.rounds):
                m.d.sync += ripple.eq(self.plane & ~ripple)

        # Departure: addresses, then the planes read, then the planes rounded.
        reads, read_start, read_bipolar = Signal(), Signal(), Signal()
        read_position = Signal(position_bits)
        drains = Signal()
        m.d.sync += [read_start.eq(0), read_position.eq(read_position - 1)]
        with m.If(read_position == 0):
            m.d.sync += reads.eq(0)
        with m.If(done):
            bipolar = self.target_bits <= 1
            m.d.sync += [
                fills.eq(~fills),
                drains.eq(fills),
                reads.eq(1),
                read_start.eq(1),
                read_bipolar.eq(bipolar),
                read_position.eq((self.target_bits - 1)[:position_bits]),
            ]
            with m.If(bipolar):
                m.d.sync += read_position.eq(1)
        m.d.comb += read.addr.eq(Cat(read_position, drains))

        kept, kept_ripple = Signal(self.weights), Signal(self.weights)
        kept_position = Signal(position_bits)
        rounds_now, kept_start, kept_ones = Signal(), Signal(), Signal()
        m.d.sync += [
            kept.eq(read.data),
            kept_ripple.eq(ripple),
            kept_position.eq(read_position),
            rounds_now.eq(reads),
            kept_start.eq(read_start),
            kept_ones.eq(read_start & read_bipolar),
        ]

        carry, added = Signal(self.weights), Signal(self.weights)
        m.d.comb += added.eq(carry)
        with m.If(kept_start):
            m.d.comb += added.eq(kept_ripple)
        m.d.sync += [
            carry.eq(kept & added),
            self.o_plane.eq(kept ^ added),
            self.o_position.eq(kept_position),
            self.o_valid.eq(rounds_now),
        ]
        with m.If(kept_ones):
            # A bipolar weight: a plane of ones now, and the carry inverts the sign in the next cycle.
            m.d.sync += [carry.eq(~0), self.o_plane.eq(~0)]
        return m
