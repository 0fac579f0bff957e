"""Stored codes to narrower ones, plane by plane, on the load path of the array."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
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

        # Before the last plane this is "positive, and all kept bits below the sign are one"; in the cycle after a
        # rounding bit, that bit, unless it would overflow. One LUT4 a weight: plane, itself, and two shared controls.
        ripple = Signal(self.weights, reset_less=True)
        done = self.valid & self.last
        is_rounding_bit = Signal()
        m.d.comb += is_rounding_bit.eq(self.last & self.rounds)
        with m.If(self.valid):
            m.d.sync += [
                arrivals.eq(position + 1),
                ripple.eq(
                    Mux(self.first, ~self.plane, self.plane & (ripple ^ is_rounding_bit.replicate(self.weights)))
                ),
            ]

        # Departure: addresses, then the planes read, then the planes rounded.
        reads, read_start, read_rounds, read_bipolar = Signal(), Signal(), Signal(), Signal()
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
                read_rounds.eq(self.rounds & ~bipolar),
                read_bipolar.eq(bipolar),
                read_position.eq((self.target_bits - 1)[:position_bits]),
            ]
            with m.If(bipolar):
                m.d.sync += read_position.eq(1)
        m.d.comb += read.addr.eq(Cat(read_position, drains))

        # A bipolar weight: ones, as a plane of zeros with every carry set; then the sign, inverted by carries set
        # again. Flip-flops are reset for that, which costs no LUT; so the carry is kept inverted.
        ones = read_start & read_bipolar
        kept, kept_ripple = Signal(self.weights, reset_less=True), Signal(self.weights, reset_less=True)
        kept_position = Signal(position_bits)
        keeps, kept_start, kept_ones = Signal(), Signal(), Signal()
        m.d.sync += [
            kept.eq(Mux(ones, 0, read.data)),
            kept_ripple.eq(Mux(read_rounds, ripple, 0)),
            kept_position.eq(read_position),
            keeps.eq(reads),
            kept_start.eq(read_start & ~read_bipolar),
            kept_ones.eq(ones),
        ]

        no_carry = Signal(self.weights, reset_less=True)
        rounded = Signal(self.weights, reset_less=True)
        added = Signal(self.weights)
        m.d.comb += [added.eq(Mux(kept_start, kept_ripple, ~no_carry)), self.o_plane.eq(rounded)]
        m.d.sync += [
            no_carry.eq(Mux(ones | kept_ones, 0, ~(kept & added))),
            rounded.eq(kept ^ added),
            self.o_position.eq(kept_position),
            self.o_valid.eq(keeps),
        ]
        return m
