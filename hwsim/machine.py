"""The machine: its configuration, its memories and the bit layouts that a program and the hardware share.

The array is bit-serial over weight planes and parallel over activation bits. A *lane* holds 8 activation bits, split
into ``8 / g`` groups of ``g`` bits; an activation of width a takes a slot of 1, 2, 4 or 8 bits, so a lane holds
``8 / slot`` activations.

The lanes are cut into *banks*, each with an activation memory of its own. A bank's word is a *unit*: ``bank_lanes``
lanes of one pixel. Channel ``c`` of a pixel at slot s lies in unit ``c // (bank_lanes * 8 / s)``, lane
``c % bank_lanes``, groups ``j * s / g`` to ``(j + 1) * s / g - 1`` with ``j = c // bank_lanes % (8 / s)``. So a run of
``bank_lanes`` channels always loads the same lanes from the weight memory, whatever the slot.

A tensor is a row of units, unit address ``((y * pitch) + x) * units_per_pixel + unit``, and unit address A lies in bank
``A % banks``, word ``A // banks``. The units that a k x k kernel reads for one output pixel are numbered tap by tap;
step q of a pass takes units ``q * banks`` to ``(q + 1) * banks - 1`` in one cycle. They lie in different banks because
the pitch is congruent to the kernel's width modulo ``banks / gcd(units_per_pixel, banks)``: narrow layers, whose pixels
do not fill the lanes, take several taps at once (*tap packing*).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hwsim import spec
from hwsim.precision import WidthSet
from hwsim.requantize import RequantizerFormat

LANE_BITS = 8
LOAD_WORD_BITS = 32

LOAD_TARGETS: Mapping[str, int] = {"weights": 0, "tables": 1, "layers": 2, "tiles": 3, "image": 4, "skip_tables": 5}
"""Memories that the load port fills, and their number in a packet header."""

LOAD_TARGET_BITS = 4
LOAD_COUNT_BITS = LOAD_WORD_BITS - LOAD_TARGET_BITS

SIZE_BITS = 10
"""Bits of an image dimension: heights and widths up to 1023."""

KERNEL_BITS = 5
"""Bits of a kernel side, a stride and a padding: up to 31."""

ACCUMULATOR_BITS_MOST = 32

BYTE_BITS = 8
BUNDLE_ROWS = 9
"""Block RAMs keep a ninth bit with every byte: eight weight rows have room for one more in theirs."""

MEMORY_LATENCY_CYCLES = 2
WEIGHT_ARRIVAL_CYCLES = MEMORY_LATENCY_CYCLES + 3
"""From the cycle of a weight plane in the loader to the switch: registers before and behind the weight memory."""

FEEDER_PASS_CYCLES = 2
"""From the cycle in which a pass is taken to the first weight row of the next one: the loops go on, a step begins."""

LAYOUT_ROW_CYCLES = 2
IMAGE_WRITE_CYCLES = MEMORY_LATENCY_CYCLES + 1
ADDRESS_LATENCY_CYCLES = 2
ACTIVATION_ARRIVAL_CYCLES = 1
WEIGHT_SWITCH_LATENCY_CYCLES = 3
STAGING_WRITE_CYCLES = 1
ARRAY_LATENCY_CYCLES: Mapping[str, int] = {"planes": 9, "dsp": 10}
ACCUMULATOR_LATENCY_CYCLES = 2
ACCUMULATOR_HAZARD_CYCLES = 5
ACCUMULATOR_ARRIVAL_CYCLES = 1
REQUANTIZER_LATENCY_CYCLES = 8
CODE_WRITE_CYCLES = 3
MAX_POOL_LATENCY_CYCLES = MEMORY_LATENCY_CYCLES + 5
"""Pipeline depths that ``hwsim.timing`` counts with; the hardware's own are checked against them."""

DATAPATHS = ("planes", "dsp")
"""What the array applies to the activations in a cycle: a plane of the weights, or a digit as wide as their slot."""

SMALLEST_SLOT_BITS: Mapping[str, int] = {"planes": 1, "dsp": 2}
"""A multiplier of the DSP datapath cannot hold eight activations: those of 1 bit take a slot of 2 bits there."""


def bits_for(value: int) -> int:
    """Return the bits of an unsigned field that holds ``0 .. value``, at least 1."""
    return max(1, int(value).bit_length())


@dataclass(frozen=True)
class FieldLayout:
    """Named unsigned fields packed from bit 0 upward into one record.

    Parameters
    ----------
    fields : tuple of (str, int)
        Names and widths in bits.
    """

    fields: tuple[tuple[str, int], ...]

    @property
    def bits(self) -> int:
        """Bits of one record."""
        return sum(bits for _, bits in self.fields)

    @property
    def load_words(self) -> int:
        """Words of the load port that one record takes."""
        return -(-self.bits // LOAD_WORD_BITS)

    def pack(self, values: Mapping[str, int]) -> int:
        """Return the record as one integer.

        Raises
        ------
        ValueError
            If a field is missing, unknown or does not fit.
        """
        if set(values) != {name for name, _ in self.fields}:
            wrong = set(values) ^ {name for name, _ in self.fields}
            raise ValueError(f"a record must have exactly its layout's fields; {sorted(wrong)} differ")
        record = 0
        position = 0
        for name, bits in self.fields:
            value = int(values[name])
            if not 0 <= value < 1 << bits:
                raise ValueError(f"{name} must fit in {bits} bits, not {value}")
            record |= value << position
            position += bits
        return record

    def unpack(self, record: int) -> dict[str, int]:
        """Return the fields of a record."""
        values = {}
        for name, bits in self.fields:
            values[name] = record & ((1 << bits) - 1)
            record >>= bits
        return values


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Configuration of one machine, checked when made. Everything else is derived from it.

    Parameters
    ----------
    weight_widths, activation_widths : WidthSet
        Widths that layers may use; W8A8 is always there for the first and the last layer.
    lanes : int
        Lanes of a column: activations of 8 bits summed in a cycle. A power of two, 4 .. 64.
    columns : int
        Output channels computed at once, 4 .. 64.
    banks : int
        Activation memories side by side; a power of two that divides lanes.
    requantizers : int
        Accumulators requantized in a cycle; a power of two that divides lanes and columns.
    weight_port_bits : int
        Width of the path from the weight memory into the array; divides bank_lanes * columns. If it is a multiple of
        8, a word of the weight memory has a ninth bit for every byte, see ``hwsim.weight_layout``.
    strip_pixels : int
        Output pixels accumulated at once, a power of two; there are two such strips.
    image_channels : int
        Image channels laid out in a cycle, 1 .. 4; images of more channels take more cycles, of fewer waste lanes.
    datapath : str
        One of ``DATAPATHS``: ``planes``, LUTs and a weight plane a cycle; ``dsp``, a multiplier for each lane and
        column and a weight digit a cycle, see ``rtl.dsp_array``.
    accumulator_bits : int
        Width of an accumulator, signed.
    requantizer : RequantizerFormat
        Widths of M, K, B and S.
    weight_words, staging_words, table_words, skip_table_words, activation_words, skip_words, image_words,
    raw_image_words, layer_slots, result_words : int
        Depths of the memories: weight planes (words of ``weight_word_bits``), switched planes of one tile (there are
        two), requantizer entries, their skip multipliers (of layers that add only), activation words, skip words of
        ``requantizers`` codes, laid out image words (a ring, so a power of two), words of ``image_channels`` bytes of
        the raw image (there are two images), layers of all resident assignments, result words of ``requantizers``
        logits (there are two results).

    Raises
    ------
    ValueError
        If a value breaks its rule; the sentence names both.
    """

    weight_widths: WidthSet
    activation_widths: WidthSet
    lanes: int = 16
    columns: int = 8
    banks: int = 4
    requantizers: int = 4
    weight_port_bits: int = 32
    strip_pixels: int = 64
    image_channels: int = 1
    datapath: str = "planes"
    accumulator_bits: int = 24
    requantizer: RequantizerFormat = field(default_factory=RequantizerFormat)
    weight_words: int = 8192
    staging_words: int = 2048
    table_words: int = 1024
    skip_table_words: int = 1024
    activation_words: int = 1024
    skip_words: int = 2048
    image_words: int = 64
    raw_image_words: int = 64
    layer_slots: int = 64
    result_words: int = 4

    def __post_init__(self) -> None:
        if self.datapath not in DATAPATHS:
            raise ValueError(f"datapath must be {' or '.join(DATAPATHS)}, not {self.datapath!r}")
        _require_power_of_two("lanes", self.lanes, 4, 64)
        _require_range("columns", self.columns, 4, 64)
        _require_power_of_two("requantizers", self.requantizers, 1, 16)
        if self.lanes % self.requantizers or self.columns % self.requantizers:
            raise ValueError(
                f"requantizers must divide lanes and columns, "
                f"not {self.requantizers} for {self.lanes} and {self.columns}"
            )
        _require_power_of_two("banks", self.banks, 1, self.lanes)
        if self.requantizers > self.channel_multiple:
            raise ValueError(
                f"requantizers must be at most bank_lanes * groups = {self.channel_multiple}, not {self.requantizers}"
            )
        _require_range("weight_port_bits", self.weight_port_bits, 1, 512)
        if self.bank_lanes * self.columns % self.weight_port_bits:
            raise ValueError(
                f"weight_port_bits must divide bank_lanes * columns, not {self.weight_port_bits} for "
                f"{self.bank_lanes} * {self.columns}"
            )
        _require_power_of_two("strip_pixels", self.strip_pixels, 4, 4096)
        _require_range("image_channels", self.image_channels, 1, 4)
        _require_range("accumulator_bits", self.accumulator_bits, 12, ACCUMULATOR_BITS_MOST)
        if self.accumulator_bits <= self.sum_bits:
            terms = "products" if self.datapath == "dsp" else "lanes"
            raise ValueError(
                f"accumulator_bits must be more than the {self.sum_bits} bits of a sum of {self.lanes} {terms}, "
                f"not {self.accumulator_bits}"
            )
        for name in MEMORY_NAMES:
            _require_range(name, getattr(self, name), 1, MEMORY_WORDS_MAX.get(name, MEMORY_WORDS_MOST))
        _require_power_of_two("image_words", self.image_words, 2, MEMORY_WORDS_MOST)

    @classmethod
    def sized(
        cls, weight_widths: WidthSet, activation_widths: WidthSet, lanes: int, columns: int, **options: Any
    ) -> Machine:
        """Return a machine of this size, with banks, requantizers and weight port that suit it unless given."""
        if lanes in (4, 8, 16, 32, 64) and columns >= 1:
            banks = options.setdefault("banks", lanes // 4)
            smallest = SMALLEST_SLOT_BITS.get(options.get("datapath", cls.datapath), 1)
            slots = {max(smallest, spec.slot_bits(bits)) for bits in activation_widths} | {LANE_BITS}
            channels = lanes // banks * (LANE_BITS // min(slots))
            # Requantizers take multipliers too: five each on an FPGA whose multipliers have 18 x 18 bits.
            most = 4 if options.get("datapath") == "dsp" else 8
            options.setdefault("requantizers", math.gcd(math.gcd(lanes, columns), min(most, channels)))
            port_bits = lanes // banks * columns
            while port_bits > 64 and port_bits % 2 == 0:
                port_bits //= 2
            options.setdefault("weight_port_bits", port_bits)
        return cls(
            weight_widths=weight_widths, activation_widths=activation_widths, lanes=lanes, columns=columns, **options
        )

    @property
    def group_bits(self) -> int:
        """g: bits of a group, the smallest slot of the activation widths."""
        return min(self.slots)

    @property
    def slots(self) -> tuple[int, ...]:
        """Slot widths in use, widest first; 8 is always one."""
        slots = {self.slot_bits(bits) for bits in self.activation_widths} | {LANE_BITS}
        return tuple(sorted(slots, reverse=True))

    def slot_bits(self, activation_bits: int) -> int:
        """Return the bits of the slot that an activation of this width takes."""
        return max(SMALLEST_SLOT_BITS[self.datapath], spec.slot_bits(activation_bits))

    @property
    def digit_shifts(self) -> tuple[int, ...]:
        """Bits of the digits that may follow others with the DSP datapath: slots of 8 bits hold every weight."""
        return tuple(bits for bits in self.slots if bits < LANE_BITS) or (LANE_BITS,)

    @property
    def groups(self) -> int:
        """Groups of a lane."""
        return LANE_BITS // self.group_bits

    @property
    def activation_bits(self) -> int:
        """Width of an activation word in bits."""
        return self.lanes * LANE_BITS

    @property
    def sum_bits(self) -> int:
        """Width of a column's sum in bits: of one plane, unsigned, or of products, signed."""
        if self.datapath == "dsp":
            return bits_for(self.lanes * spec.unsigned_high(LANE_BITS) ** 2) + 1
        return bits_for(self.lanes * spec.unsigned_high(LANE_BITS))

    @property
    def bank_lanes(self) -> int:
        """Lanes of one bank."""
        return self.lanes // self.banks

    @property
    def unit_bits(self) -> int:
        """Width of a bank's word in bits."""
        return self.bank_lanes * LANE_BITS

    @property
    def channel_multiple(self) -> int:
        """Channels are padded to a multiple of this, so that every slot cuts them into whole units."""
        return self.bank_lanes * self.groups

    @property
    def unit_rows(self) -> int:
        """Words of the weight port that one plane of ``bank_lanes`` indices x ``columns`` takes."""
        return self.bank_lanes * self.columns // self.weight_port_bits

    @property
    def weight_spare_bits(self) -> int:
        """Bits of a weight word beyond a row: one for each byte of it, none if it is not cut into bytes."""
        return 0 if self.weight_port_bits % BYTE_BITS else self.weight_port_bits // BYTE_BITS

    @property
    def weight_word_bits(self) -> int:
        """Width of the weight memory."""
        return self.weight_port_bits + self.weight_spare_bits

    def weight_rows_stored(self, rows: int) -> int:
        """Return how many of a tile's rows have words of their own; the others lie in the spare bits of these."""
        return rows - rows // BUNDLE_ROWS if self.weight_spare_bits else rows

    @property
    def groups_of_channels(self) -> int:
        """Requantizer groups in a tile of output channels."""
        return self.columns // self.requantizers

    def units_per_pixel(self, channels: int, activation_bits: int) -> int:
        """Return the units of one pixel."""
        padded = -(-channels // self.channel_multiple) * self.channel_multiple
        return padded // (self.bank_lanes * self.activations_per_lane(activation_bits))

    def slot_index(self, activation_bits: int) -> int:
        """Return log2 of how many groups an activation of this width occupies."""
        return (self.slot_bits(activation_bits) // self.group_bits).bit_length() - 1

    def activations_per_lane(self, activation_bits: int) -> int:
        """Return how many activations of this width share a lane."""
        return LANE_BITS // max(self.slot_bits(activation_bits), self.group_bits)

    def planes_of_passes(self, weight_bits: int, activation_bits: int) -> tuple[int, ...]:
        """Return how many planes of a weight each pass over an activation word applies, in the order of the passes.

        A digit has as many planes as the slot is wide. The first, whose sign counts, has what is left over.
        """
        planes = spec.planes_applied(weight_bits)
        if self.datapath == "planes":
            return (1,) * planes
        digit = max(self.slot_bits(activation_bits), self.group_bits)
        return ((planes - 1) % digit + 1,) + (digit,) * ((planes - 1) // digit)

    def macs_per_cycle(self, weight_bits: int, activation_bits: int) -> float:
        """Return the peak multiply-accumulates in a cycle at the given widths."""
        per_pass = self.lanes * self.columns * self.activations_per_lane(activation_bits)
        return per_pass / len(self.planes_of_passes(weight_bits, activation_bits))

    @property
    def memory_bits(self) -> dict[str, int]:
        """Bits of every memory."""
        return {
            "weights": self.weight_words * self.weight_word_bits,
            "staging": 2 * self.staging_words * self.weight_port_bits,
            "tables": self.table_words * self.table_layout.bits
            + self.skip_table_words * self.requantizer.skip_multiplier_bits,
            "activations": self.activation_words * self.activation_bits,
            "skip": self.skip_words * self.requantizers * spec.SKIP_BITS,
            "image": self.image_words * self.activation_bits
            + 2 * self.raw_image_words * self.image_channels * spec.IMAGE_BITS,
            "accumulators": 2 * self.strip_pixels * self.columns * self.accumulator_bits,
            "descriptors": self.layer_slots * (self.layer_layout.load_words + self.tiles_layout.load_words) * 32,
            "results": 2 * self.result_words * self.requantizers * spec.LOGIT_BITS,
        }

    @property
    def table_layout(self) -> FieldLayout:
        """One requantizer entry without K, which is kept apart: most layers have none. M and B are two's complement."""
        widths = self.requantizer
        return FieldLayout(
            (
                ("multiplier", widths.multiplier_bits),
                ("addend", widths.addend_bits),
                ("shift", bits_for(widths.shift_max)),
            )
        )

    @property
    def unit_address_bits(self) -> int:
        """Width of a unit address, of the activation memory or of one image."""
        return bits_for(max(self.activation_words, self.image_words) * self.banks - 1)

    @property
    def image_steps_per_word(self) -> int:
        """Taps of ``image_channels`` channels that fill an image word."""
        return self.lanes // self.image_channels

    @property
    def word_address_bits(self) -> int:
        """Width of a word address within a bank."""
        return max(1, self.unit_address_bits - (self.banks.bit_length() - 1))

    @property
    def lane_runs(self) -> int:
        """Runs of lanes of a unit that are written apart."""
        return max(1, self.bank_lanes // self.requantizers)

    @property
    def staging_address_bits(self) -> int:
        """Address width within one half of the staging memory."""
        return bits_for(self.staging_words - 1)

    @property
    def layer_layout(self) -> FieldLayout:
        """Descriptor of one layer, read by the sequencer; see ``hwsim.descriptors`` for what each field holds."""
        address = self.unit_address_bits
        skip = bits_for(self.skip_words - 1)
        return FieldLayout(
            (
                ("is_max_pool", 1),
                ("reads_image", 1),
                ("releases_image", 1),
                ("is_last", 1),
                ("slot_index", 2),
                ("input_start", address),
                ("pixel_step", address),
                ("row_step", address),
                ("kernel_row_step", address),
                ("units", SIZE_BITS),
                ("input_width", SIZE_BITS),
                ("input_height", SIZE_BITS),
                ("output_width", SIZE_BITS),
                ("output_pixels", 2 * SIZE_BITS),
                ("kernel_width", KERNEL_BITS),
                ("kernel_height", KERNEL_BITS),
                ("stride", KERNEL_BITS),
                ("padding", KERNEL_BITS),
                ("tiles", SIZE_BITS),
                ("passes", 4),
                ("subtracts_first", 1),
                ("subtracts_second", 1),
                *((("first_digit_planes", 4),) if self.datapath == "dsp" else ()),
                ("shares_taps", 1),
                ("keeps_weights", 1),
                ("staging_start", self.staging_address_bits),
                ("plane_step", self.staging_address_bits + 1),
                ("table_start", bits_for(self.table_words - 1)),
                ("skip_table_start", bits_for(self.skip_table_words - 1)),
                ("channel_groups", SIZE_BITS),
                ("adds", 1),
                ("skip_is_signed", 1),
                ("skip_start", skip),
                ("makes_skip", 1),
                ("makes_signed_skip", 1),
                ("skip_output_start", skip),
                ("makes_code", 1),
                ("output_start", address),
                ("output_units", SIZE_BITS),
                ("output_row_gap", address),
                ("output_slot_index", 2),
                ("code_high", LANE_BITS),
                ("makes_logits", 1),
            )
        )

    @property
    def tiles_layout(self) -> FieldLayout:
        """Loader's entry for one layer: which stored planes to read, switch and stage."""
        return FieldLayout(
            (
                ("is_last", 1),
                ("has_weights", 1),
                ("rounds", 1),
                ("target_bits", 4),
                ("planes_read", 4),
                ("planes_stored", 4),
                ("tiles", SIZE_BITS),
                ("tile_rows", self.staging_address_bits + 1),
                ("weight_start", bits_for(self.weight_words - 1)),
                ("staging_start", self.staging_address_bits + 1),
            )
        )

    @property
    def image_layout(self) -> FieldLayout:
        """Geometry of image, first layer and result, for the image loader and the result buffer."""
        raw_address = bits_for(self.raw_image_words - 1)
        return FieldLayout(
            (
                ("channels", SIZE_BITS),
                ("height", SIZE_BITS),
                ("width", SIZE_BITS),
                ("output_height", SIZE_BITS),
                ("output_width", SIZE_BITS),
                ("kernel_height", KERNEL_BITS),
                ("kernel_width", KERNEL_BITS),
                ("stride", KERNEL_BITS),
                ("padding", KERNEL_BITS),
                ("steps", SIZE_BITS),
                ("start", raw_address),
                ("row_step", raw_address),
                ("window_step", raw_address),
                ("window_row_step", raw_address),
                ("image_bytes", bits_for(self.raw_image_words * self.image_channels)),
                ("words", bits_for(self.image_words - 1)),
                ("windows_held", bits_for(self.image_words)),
                ("windows_lead", bits_for(self.image_words)),
                ("classes", SIZE_BITS),
            )
        )

    def to_json(self) -> dict[str, object]:
        """Return the configuration as plain values."""
        values = dataclasses.asdict(self)
        values["weight_widths"] = list(self.weight_widths.widths)
        values["activation_widths"] = list(self.activation_widths.widths)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> Machine:
        """Return the machine that ``to_json`` described."""
        arguments = dict(values)
        arguments["weight_widths"] = WidthSet(tuple(arguments["weight_widths"]))  # type: ignore[arg-type]
        arguments["activation_widths"] = WidthSet(tuple(arguments["activation_widths"]))  # type: ignore[arg-type]
        arguments["requantizer"] = RequantizerFormat(**arguments["requantizer"])  # type: ignore[arg-type]
        return cls(**arguments)  # type: ignore[arg-type]


MEMORY_NAMES = (
    "weight_words",
    "staging_words",
    "table_words",
    "skip_table_words",
    "activation_words",
    "skip_words",
    "image_words",
    "raw_image_words",
    "layer_slots",
    "result_words",
)

MEMORY_WORDS_MOST = 1 << 20
"""Words of the deepest memory that the hardware can be given."""

MEMORY_WORDS_MAX: Mapping[str, int] = {
    **dict.fromkeys(("staging_words", "raw_image_words", "result_words"), MEMORY_WORDS_MOST // 2),
    "layer_slots": MEMORY_WORDS_MOST // 16,
}
"""Fewer where the memory has two halves, or several words for each."""


def _require_range(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be {low} .. {high}, not {value}")


def _require_power_of_two(name: str, value: int, low: int, high: int) -> None:
    _require_range(name, value, low, high)
    if value & (value - 1):
        raise ValueError(f"{name} must be a power of two, not {value}")
