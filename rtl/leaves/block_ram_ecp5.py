"""ECP5's block RAM with its output register: 18 kilobits that clock twice as fast as without."""

from __future__ import annotations

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal, Value

BYTE_BITS = 9
"""Bits that share a write enable in the widest shapes."""

SHAPES = {512: 36, 1024: 18, 2048: 9, 4096: 4, 8192: 2, 16384: 1}
"""Words and bits of a block; the deepest are the narrowest, so that no words need choosing between blocks."""

BLOCK_ADDRESS_BITS = 14


def shape_for(depth: int) -> tuple[int, int] | None:
    """Return the (words, bits) of the widest block of at least ``depth`` words, or ``None`` if there is none."""
    return next(((words, bits) for words, bits in SHAPES.items() if words >= depth), None)


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


def block_count(width: int, depth: int, granularity: int) -> int | None:
    """Return how many blocks a memory takes, or ``None`` if it is too deep for one."""
    shape = shape_for(depth)
    return None if shape is None else len(split(width, granularity, shape[1]))


def build(
    m: Module,
    *,
    depth: int,
    granularity: int,
    write_address: Value,
    write_data: Value,
    write_enable: Value,
    read_address: Value,
    read_enable: Value,
    read_data: Signal,
) -> None:
    """Add the blocks of a two-cycle memory to ``m``: port A writes, port B reads.

    A block of 36 bits shows the lower half of the word at the outputs of port A; both output registers are in use.
    A word that is read while it is written is undefined.
    """
    shape = shape_for(depth)
    assert shape is not None
    words, block_bits = shape
    low = BLOCK_ADDRESS_BITS - (words - 1).bit_length()
    clock = ClockSignal("sync")
    for index, parts in enumerate(split(len(write_data), granularity, block_bits)):
        data: list[Value] = [Const(0, 1)] * 36
        enables: list[Value] = [Const(0, 1)] * 4
        shown = Signal(36, name=f"block_{index}_shown")
        for first, bits, at in parts:
            for bit in range(bits):
                data[at + bit] = write_data[first + bit]
                enables[(at + bit) // BYTE_BITS] = write_enable[(first + bit) // granularity]
            m.d.comb += read_data[first : first + bits].eq(shown[at : at + bits])
        writes = Cat(enables).any()
        address_a: list[Value] = [Const(0, 1)] * low + list(write_address)
        address_b: list[Value] = [Const(0, 1)] * low + list(read_address)
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
            "i_CEB": read_enable,
            "i_WEB": Const(0, 1),
            "i_OCEB": Const(1, 1),
            "i_RSTB": Const(0, 1),
        }
        for bit in range(3):
            ports[f"i_CSA{bit}"] = ports[f"i_CSB{bit}"] = Const(0, 1)
        for bit in range(BLOCK_ADDRESS_BITS):
            ports[f"i_ADA{bit}"], ports[f"i_ADB{bit}"] = address_a[bit], address_b[bit]
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
