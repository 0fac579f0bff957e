"""ECP5's block RAM with its output register: 18 kilobits that clock twice as fast as without."""

from __future__ import annotations

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal, Value
from amaranth.lib import wiring

from rtl.leaves.memory_stack import MemoryStack, Segment, members, segments_of

DEPTH_MIN = 33
"""Shallower memories are left to the synthesizer: yosys puts them into distributed RAM, and deeper ones here."""

BYTE_BITS = 9
"""Bits that share a write enable in the widest shapes."""

SHAPES = {512: 36, 1024: 18, 2048: 9, 4096: 4, 8192: 2, 16384: 1}
"""Words and bits of a block."""

BLOCK_ADDRESS_BITS = 14


def stack(width: int, depth: int, granularity: int) -> tuple[Segment, ...]:
    """Return the segments of a memory, each of one shape of block: the fewest blocks and, of those, fewest segments."""
    piece = min(SHAPES)
    sizes = [(words // piece, len(split(width, granularity, bits))) for words, bits in SHAPES.items()]
    # (blocks, segments, pieces of the last segment) of the best stack of so many pieces.
    best: list[tuple[int, int, int]] = [(0, 0, 0)]
    for pieces in range(1, -(-depth // piece) + 1):
        options = []
        for size, blocks in sizes:
            below = best[max(0, pieces - size)]
            options.append((below[0] + blocks, below[1] + 1, size))
        best.append(min(options))
    chosen = []
    pieces = len(best) - 1
    while pieces > 0:
        chosen.append(best[pieces][2])
        pieces -= chosen[-1]
    return segments_of(size * piece for size in chosen)


def split(width: int, granularity: int, block_bits: int) -> list[list[tuple[int, int, int]]]:
    """Return the data bits of every block: a list of (first data bit, bits, first bit in the block).

    Parts with a write enable of their own begin at a byte of the block; narrow blocks hold one part or less.
    """
    blocks: list[list[tuple[int, int, int]]] = [[]]
    used = 0
    for first in range(0, width, granularity):
        done = 0
        while done < granularity:
            if used >= block_bits:
                blocks.append([])
                used = 0
            bits = min(granularity - done, block_bits - used)
            blocks[-1].append((first + done, bits, used))
            used += bits
            done += bits
        if granularity < width:
            used = -(-used // BYTE_BITS) * BYTE_BITS if block_bits > BYTE_BITS else block_bits
    return blocks


def block_count(width: int, depth: int, granularity: int) -> int:
    """Return how many blocks a memory takes; shallow ones take none."""
    if depth < DEPTH_MIN:
        return 0
    segments = stack(width, depth, granularity)
    return sum(len(split(width, granularity, SHAPES[segment.words])) for segment in segments)


def build(width: int, depth: int, granularity: int, *, gathers: bool = False) -> wiring.Component:
    """Return a two-cycle memory made of blocks; one of three cycles, with registers behind its segments, if asked."""
    segments = stack(width, depth, granularity)
    if len(segments) == 1 and not gathers:
        return BlockRam(width, depth, granularity, segments[0].words)

    def block_ram(segment: Segment) -> BlockRam:
        return BlockRam(width, segment.words, granularity, segment.words)

    return MemoryStack(width, depth, granularity, segments, block_ram, gathers)


class BlockRam(wiring.Component):
    """The two-cycle memory, in blocks of one shape side by side: port A writes, port B reads.

    A word that is read while it is written is undefined.

    Parameters
    ----------
    width, depth, granularity : int
        See ``rtl.leaves.memory.TwoCycleMemory``.
    block_words : int
        Words of a block, one of ``SHAPES``; at least ``depth``.

    Members
    -------
    write_address, write_data, write_enable, read_address, read_enable, read_data
        See ``rtl.leaves.memory.TwoCycleMemory``.
    """

    def __init__(self, width: int, depth: int, granularity: int, block_words: int) -> None:
        self.granularity = granularity
        self.block_words = block_words
        super().__init__(members(width, depth, granularity))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        block_bits = SHAPES[self.block_words]
        low = BLOCK_ADDRESS_BITS - (self.block_words.bit_length() - 1)
        clock = ClockSignal("sync")
        for index, parts in enumerate(split(len(self.write_data), self.granularity, block_bits)):
            data: list[Value] = [Const(0, 1)] * 36
            enables: list[Value] = [Const(0, 1)] * 4
            shown = Signal(36, name=f"block_{index}_shown")
            for first, bits, at in parts:
                for bit in range(bits):
                    data[at + bit] = self.write_data[first + bit]
                    enables[(at + bit) // BYTE_BITS] = self.write_enable[(first + bit) // self.granularity]
                m.d.comb += self.read_data[first : first + bits].eq(shown[at : at + bits])
            writes = Cat(enables).any()
            address_a: list[Value] = [Const(0, 1)] * low + list(self.write_address)
            address_b: list[Value] = [Const(0, 1)] * low + list(self.read_address)
            if block_bits >= 18:
                address_a[: block_bits // BYTE_BITS] = enables[: block_bits // BYTE_BITS]
            address_a += [Const(0, 1)] * (BLOCK_ADDRESS_BITS - len(address_a))
            address_b += [Const(0, 1)] * (BLOCK_ADDRESS_BITS - len(address_b))
            ports: dict[str, Value] = {
                "i_CLKA": clock,
                "i_CEA": writes,
                "i_WEA": Const(1, 1),
                "i_OCEA": Const(1, 1),
                "i_RSTA": Const(0, 1),
                "i_CLKB": clock,
                "i_CEB": self.read_enable,
                "i_WEB": Const(0, 1),
                "i_OCEB": Const(1, 1),
                "i_RSTB": Const(0, 1),
            }
            for bit in range(3):
                ports[f"i_CSA{bit}"] = ports[f"i_CSB{bit}"] = Const(0, 1)
            for bit in range(BLOCK_ADDRESS_BITS):
                ports[f"i_ADA{bit}"], ports[f"i_ADB{bit}"] = address_a[bit], address_b[bit]
            # A block of 36 bits shows the lower half of the word at the outputs of port A.
            for bit in range(18):
                ports[f"i_DIA{bit}"] = data[bit]
                if block_bits == 36:
                    ports[f"i_DIB{bit}"] = data[18 + bit]
                    ports[f"o_DOA{bit}"], ports[f"o_DOB{bit}"] = shown[bit], shown[18 + bit]
                elif bit < block_bits:
                    ports[f"o_DOB{bit}"] = shown[bit]
            m.submodules[f"block_{index}"] = Instance(
                "DP16KD",
                p_DATA_WIDTH_A=block_bits,
                p_DATA_WIDTH_B=block_bits,
                p_REGMODE_A="OUTREG",
                p_REGMODE_B="OUTREG",
                p_RESETMODE="SYNC",
                p_WRITEMODE_A="NORMAL",
                p_WRITEMODE_B="NORMAL",
                p_CSDECODE_A="0b000",
                p_CSDECODE_B="0b000",
                p_GSR="DISABLED",
                **ports,
            )
        return m
