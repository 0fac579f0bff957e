"""The registers of a table behind an AXI4-Lite port."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.bus.axi import DATA_BITS, Axi4LiteSignature, Response
from rtl.bus.register_map import ADDRESS_BITS, REGISTER_BYTES, Access, Register


class RegisterFile(wiring.Component):
    """Answers reads and writes, one at a time each; a read takes two cycles, a write two.

    Addresses are rounded down to a word. SLVERR is the answer to an address without a register (reads give 0), to a
    write of a read-only register, to a read of a command, to a command with a byte strobe low, and to a command that
    is not accepted; none of these changes anything.

    Parameters
    ----------
    registers : sequence of Register

    Members
    -------
    bus : In(Axi4LiteSignature(ADDRESS_BITS))
    <register>_<field> : In
        Of read registers: the value.
    <register>_<field> : Out
        Of read, write registers (0 after reset), of clear registers, and of commands: the value written, valid with
        ``<register>_write``.
    <register>_<field>_set : In(bits)
        Of clear registers: bits to set.
    <register>_write : Out(1)
        Of commands: written and accepted, one cycle.
    <register>_accept : In(1)
        Of commands: what ``<register>_<field>`` holds now can be accepted.
    """

    def __init__(self, registers: Sequence[Register]):
        self.registers = tuple(registers)
        members = {"bus": In(Axi4LiteSignature(ADDRESS_BITS))}
        for register in self.registers:
            if register.access is Access.COMMAND:
                members[f"{register.name}_write"] = Out(1)
                members[f"{register.name}_accept"] = In(1)
            for field in register.fields:
                name = f"{register.name}_{field.name}"
                members[name] = In(field.bits) if register.access is Access.READ else Out(field.bits)
                if register.access is Access.CLEAR:
                    members[f"{name}_set"] = In(field.bits)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        bus = self.bus
        low = REGISTER_BYTES.bit_length() - 1

        # Reads: the answer is registered, and the next address is taken after it.
        value, is_readable = Signal(DATA_BITS), Signal()
        with m.Switch(bus.araddr[low:]):
            for register in self.registers:
                if register.access is not Access.COMMAND:
                    with m.Case(register.address >> low):
                        m.d.comb += is_readable.eq(1)
                        for field in register.fields:
                            m.d.comb += value[field.low : field.low + field.bits].eq(self._value(register, field))
        m.d.comb += bus.arready.eq(~bus.rvalid)
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [
                bus.rvalid.eq(1),
                bus.rdata.eq(value),
                bus.rresp.eq(Response.SLVERR),
            ]
            with m.If(is_readable):
                m.d.sync += bus.rresp.eq(Response.OKAY)
        with m.Elif(bus.rready):
            m.d.sync += bus.rvalid.eq(0)

        # Writes: address and data come in any order, each is held until both are there.
        address, data, strobe = Signal(ADDRESS_BITS - low), Signal(DATA_BITS), Signal(DATA_BITS // 8)
        has_address, has_data = Signal(), Signal()
        m.d.comb += [bus.awready.eq(~has_address), bus.wready.eq(~has_data)]
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [has_address.eq(1), address.eq(bus.awaddr[low:])]
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += [has_data.eq(1), data.eq(bus.wdata), strobe.eq(bus.wstrb)]
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        writes, is_accepted = Signal(), Signal()
        m.d.comb += writes.eq(has_address & has_data & ~bus.bvalid)
        with m.If(writes):
            m.d.sync += [has_address.eq(0), has_data.eq(0), bus.bvalid.eq(1), bus.bresp.eq(Response.SLVERR)]
            with m.If(is_accepted):
                m.d.sync += bus.bresp.eq(Response.OKAY)

        strobe_bits = Cat(bit.replicate(8) for bit in strobe)
        for register in self.registers:
            if register.access is Access.COMMAND:
                for field in register.fields:
                    m.d.comb += self._value(register, field).eq(data[field.low : field.low + field.bits])
            if register.access is Access.CLEAR:
                for field in register.fields:
                    setting = getattr(self, f"{register.name}_{field.name}_set")
                    m.d.sync += self._value(register, field).eq(self._value(register, field) | setting)
        with m.Switch(address):
            for register in self.registers:
                if register.access is Access.READ:
                    continue
                with m.Case(register.address >> low):
                    if register.access is Access.COMMAND:
                        m.d.comb += [
                            is_accepted.eq(strobe.all() & getattr(self, f"{register.name}_accept")),
                            getattr(self, f"{register.name}_write").eq(writes & is_accepted),
                        ]
                        continue
                    m.d.comb += is_accepted.eq(1)
                    for field in register.fields:
                        held = self._value(register, field)
                        bits = slice(field.low, field.low + field.bits)
                        written, enabled = data[bits], strobe_bits[bits]
                        if register.access is Access.CLEAR:
                            setting = getattr(self, f"{register.name}_{field.name}_set")
                            after = (held & ~(written & enabled)) | setting
                        else:
                            after = (held & ~enabled) | (written & enabled)
                        with m.If(writes):
                            m.d.sync += held.eq(after)
        return m

    def _value(self, register, field):
        return getattr(self, f"{register.name}_{field.name}")
