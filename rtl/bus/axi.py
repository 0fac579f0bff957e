"""Signatures of the AXI4 interfaces, and their names in Verilog.

See "AMBA AXI Protocol Specification" (ARM IHI 0022) for AXI4-Lite and "AMBA AXI-Stream Protocol Specification"
(ARM IHI 0051). No output of the bus package depends on an input within a cycle, as AXI demands.
"""

from amaranth.hdl import unsigned
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

DATA_BITS = 32


class Response(enum.Enum, shape=unsigned(2)):
    """BRESP and RRESP."""

    OKAY = 0
    SLVERR = 2


class Axi4LiteSignature(wiring.Signature):
    """AXI4-Lite with 32 bits of data, as the manager sees it; AWPROT and ARPROT are left out.

    Parameters
    ----------
    address_bits : int
    """

    def __init__(self, address_bits: int):
        super().__init__(
            {
                "awaddr": Out(address_bits),
                "awvalid": Out(1),
                "awready": In(1),
                "wdata": Out(DATA_BITS),
                "wstrb": Out(DATA_BITS // 8),
                "wvalid": Out(1),
                "wready": In(1),
                "bresp": In(Response),
                "bvalid": In(1),
                "bready": Out(1),
                "araddr": Out(address_bits),
                "arvalid": Out(1),
                "arready": In(1),
                "rdata": In(DATA_BITS),
                "rresp": In(Response),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


class Axi4StreamSignature(wiring.Signature):
    """AXI4-Stream with 32 bits of data, as the transmitter sees it.

    Parameters
    ----------
    keep : bool
        With TKEEP.
    last : bool
        With TLAST.
    """

    def __init__(self, *, keep: bool = False, last: bool = False):
        members = {"tdata": Out(DATA_BITS), "tvalid": Out(1), "tready": In(1)}
        if keep:
            members["tkeep"] = Out(DATA_BITS // 8)
        if last:
            members["tlast"] = Out(1)
        super().__init__(members)
