"""From accumulator to stored code: multiply, add, shift, clamp."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwsim import spec
from rtl.checks import check_count
from rtl.leaves.signed_product import Ecp5SignedProduct, SignedProduct
from rtl.targets import target_of

COARSE_SHIFT_LOG2 = 3
"""The shift is done in two stages: by multiples of 2**3, then by 0 .. 7."""


def sum_range(
    operand_bits: int, skip_bits: int, multiplier_bits: int, skip_multiplier_bits: int, addend_bits: int
) -> tuple[int, int]:
    """Return the lowest and the highest ``operand * M + skip * K + B`` of signed operands of these widths."""
    low = spec.signed_low(addend_bits) + spec.signed_low(operand_bits) * spec.signed_high(multiplier_bits)
    high = spec.signed_high(addend_bits) + spec.signed_low(operand_bits) * spec.signed_low(multiplier_bits)
    low = min(low, spec.signed_low(addend_bits) + spec.signed_high(operand_bits) * spec.signed_low(multiplier_bits))
    if skip_bits:
        low += min(
            spec.signed_low(skip_bits) * spec.signed_high(skip_multiplier_bits),
            spec.signed_high(skip_bits) * spec.signed_low(skip_multiplier_bits),
        )
        high += spec.signed_low(skip_bits) * spec.signed_low(skip_multiplier_bits)
    return low, high


class Requantizer(wiring.Component):
    """``clamp((operand * M + skip * K + B) >> S, low, high)``: equals ``spec.requantize``.

    Latency: ``LATENCY`` cycles. Throughput: one a cycle; all members are sampled in the same cycle, so every operand
    brings its own parameters. The sum has ``sum_bits`` bits, enough for every input, so equality needs no condition
    but ``low <= high``.

    Stages: inputs | products | products | their sum with B | coarse shift | fine shift | compare | clamp.

    Parameters
    ----------
    operand_bits : int
        Width of the signed operand (accumulator, or skip code in the second requantization).
    skip_bits : int
        Width of the signed skip code; 0 leaves out ``skip`` and ``skip_multiplier``.
    multiplier_bits, skip_multiplier_bits, addend_bits : int
        Widths of the signed M, K and B. ``skip_multiplier_bits`` is not used if ``skip_bits`` is 0.
    shift_max : int
        Largest S. Every value the ``shift`` member can hold is shifted by, also above ``shift_max``.
    output_bits : int
        Width of the signed ``low``, ``high`` and ``result``: an unsigned 8-bit code needs 9.

    Members
    -------
    operand : In(signed(operand_bits))
    multiplier : In(signed(multiplier_bits))
    skip : In(signed(skip_bits))
    skip_multiplier : In(signed(skip_multiplier_bits))
    addend : In(signed(addend_bits))
    shift : In(range(shift_max + 1))
    low, high : In(signed(output_bits))
    result : Out(signed(output_bits))
    """

    LATENCY = 8

    def __init__(
        self,
        operand_bits: int,
        skip_bits: int,
        multiplier_bits: int,
        skip_multiplier_bits: int,
        addend_bits: int,
        shift_max: int,
        output_bits: int,
    ) -> None:
        self.operand_bits = check_count(operand_bits, 2, 48, "operand_bits")
        self.skip_bits = check_count(skip_bits, 0, 48, "skip_bits")
        self.multiplier_bits = check_count(multiplier_bits, 2, 48, "multiplier_bits")
        self.skip_multiplier_bits = check_count(skip_multiplier_bits, 2 if skip_bits else 0, 48, "skip_multiplier_bits")
        self.addend_bits = check_count(addend_bits, 2, 96, "addend_bits")
        self.shift_max = check_count(shift_max, 1, 127, "shift_max")
        self.output_bits = check_count(output_bits, 2, 64, "output_bits")
        self.sum_bits = spec.signed_bits(
            *sum_range(operand_bits, skip_bits, multiplier_bits, skip_multiplier_bits, addend_bits)
        )
        members = {
            "operand": In(signed(self.operand_bits)),
            "multiplier": In(signed(self.multiplier_bits)),
            "addend": In(signed(self.addend_bits)),
            "shift": In(range(self.shift_max + 1)),
            "low": In(signed(self.output_bits)),
            "high": In(signed(self.output_bits)),
            "result": Out(signed(self.output_bits)),
        }
        if self.skip_bits:
            members["skip"] = In(signed(self.skip_bits))
            members["skip_multiplier"] = In(signed(self.skip_multiplier_bits))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()

        def register(value: Value, name: str, bits: int | None = None) -> Signal:
            shape = Value.cast(value).shape() if bits is None else Shape(bits, signed=True)
            held = Signal(shape, name=name, reset_less=True)
            m.d.sync += held.eq(value)
            return held

        def delay(value: Value, name: str, cycles: int) -> Value:
            for cycle in range(cycles):
                value = register(value, f"{name}_{cycle + 1}")
            return value

        def multiply(a: Value, b: Value, name: str) -> Value:
            fits = Ecp5SignedProduct.cells(len(a), len(b)) is not None
            kind = Ecp5SignedProduct if target_of(platform).multipliers and fits else SignedProduct
            m.submodules[name] = leaf = kind(len(a), len(b))
            m.d.comb += [leaf.a.eq(a), leaf.b.eq(b)]
            return leaf.product

        sum_bits = self.sum_bits
        sum_of_terms = multiply(self.operand, self.multiplier, "product") + delay(self.addend, "addend", 3)
        if self.skip_bits:
            sum_of_terms = sum_of_terms + multiply(self.skip, self.skip_multiplier, "skip_product")
        total = register(sum_of_terms[:sum_bits].as_signed(), "total", sum_bits)

        shift = delay(self.shift, "shift", 4)
        fine_bits = min(COARSE_SHIFT_LOG2, len(shift))
        coarse = Signal(signed(sum_bits))
        m.d.comb += coarse.eq(total)
        if len(shift) > fine_bits:
            with m.Switch(shift[fine_bits:]):
                for step in range(1, 1 << (len(shift) - fine_bits)):
                    with m.Case(step):
                        m.d.comb += coarse.eq(total >> min(step << fine_bits, sum_bits - 1))
        coarse_shifted = register(coarse, "coarse_shifted")
        fine_shift = register(shift[:fine_bits], "fine_shift")
        shifted = register(coarse_shifted >> fine_shift, "shifted", sum_bits)

        low, high = delay(self.low, "low", 6), delay(self.high, "high", 6)
        # Most of the bits only tell whether the value fits.
        value, upper = shifted[: self.output_bits].as_signed(), shifted[min(self.output_bits, sum_bits) - 1 :]
        fits = ~(upper.any() ^ upper.all())
        above = register(Mux(fits, value > high, ~shifted[-1]), "above")
        below = register(Mux(fits, value < low, shifted[-1]), "below")
        kept = register(value, "kept", self.output_bits)
        clamped = Mux(above, register(high, "high_7"), Mux(below, register(low, "low_7"), kept))
        m.d.comb += self.result.eq(register(clamped, "clamped", self.output_bits))
        return m
