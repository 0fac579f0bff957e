"""The AXI form of the accelerator with the port names that FPGA tools know."""

from amaranth.hdl import ClockDomain, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwsim.machine import Machine
from rtl.bus.axi_accelerator import AxiAccelerator

INTERFACES = {
    "control": "s_axi",
    "load": "s_axis_load",
    "image": "s_axis_image",
    "result": "m_axis_result",
}
"""Member of ``AxiAccelerator`` -> prefix of its ports."""


class AxiTop(wiring.Component):
    """One clock, and a reset that is sampled by it.

    ARESETN, active low, is registered once; inside, the reset is synchronous and active high. It must be released
    synchronously to ACLK, as AXI demands, and must be low for at least one rising edge.

    Members
    -------
    aclk, aresetn : In(1)
    s_axi_*, s_axis_load_*, s_axis_image_*, m_axis_result_*
        Members of ``AxiAccelerator`` in the order of its signatures.
    interrupt : Out(1)
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        self.accelerator = AxiAccelerator(machine)
        members = {"aclk": In(1), "aresetn": In(1), "interrupt": Out(1)}
        for path, member, _ in self.accelerator.signature.flatten(self.accelerator):
            if path[0] in INTERFACES:
                members[port_name(path)] = member
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = domain = ClockDomain(local=True)
        reset = Signal(init=1, reset_less=True)
        m.d.comb += [domain.clk.eq(self.aclk), domain.rst.eq(reset)]
        m.d.sync += reset.eq(~self.aresetn)
        m.submodules.accelerator = accelerator = self.accelerator
        m.d.comb += self.interrupt.eq(accelerator.interrupt)
        for path, member, inner in accelerator.signature.flatten(accelerator):
            if path[0] not in INTERFACES:
                continue
            outer = getattr(self, port_name(path))
            m.d.comb += inner.eq(outer) if member.flow == wiring.In else outer.eq(inner)
        return m


def port_name(path) -> str:
    """Return the name of a port from the path of a member, for example ``s_axi_awaddr``."""
    return "_".join((INTERFACES[path[0]], *path[1:]))
