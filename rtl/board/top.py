"""The accelerator on a board with nothing but a clock, a serial line, a button and lights."""

from amaranth.hdl import ClockDomain, Module, Signal
from amaranth.lib import cdc, wiring
from amaranth.lib.wiring import In, Out

from hwsim.machine import Machine
from rtl.board.host_link import HostLink
from rtl.board.uart_receiver import UartReceiver
from rtl.board.uart_transmitter import UartTransmitter
from rtl.bus.axi_accelerator import AxiAccelerator

NAME = "bitswitch_board"
HEARTBEAT_BITS = 24


class BoardTop(wiring.Component):
    """UART, host link and accelerator on the board's clock.

    ::

        uart_rx --> receiver --> host link --> AxiAccelerator
        uart_tx <-- transmitter <---/   ^-----------/

    Everything is reset for a cycle after the FPGA has been configured, and while the button is held.

    Parameters
    ----------
    machine : Machine
    cycles_per_bit : int
        Of the UART, 4 .. 65,536.
    patience_cycles : int
        See ``HostLink``.

    Members
    -------
    clock, button, uart_rx : In(1)
        Button and line belong to no clock.
    uart_tx : Out(1)
    light_alive : Out(1)
        Blinks.
    light_answered : Out(1)
        A request has been answered since reset.
    light_broken : Out(1)
        A broken frame has come since reset.
    esp32_boot : Out(1)
        High, so that the microcontroller on the board leaves the FPGA alone.
    """

    def __init__(self, machine: Machine, cycles_per_bit: int, patience_cycles: int):
        self.machine, self.cycles_per_bit, self.patience_cycles = machine, cycles_per_bit, patience_cycles
        super().__init__(
            {
                "clock": In(1),
                "button": In(1),
                "uart_rx": In(1),
                "uart_tx": Out(1),
                "light_alive": Out(1),
                "light_answered": Out(1),
                "light_broken": Out(1),
                "esp32_boot": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = domain = ClockDomain(local=True)
        reset, pressed = Signal(init=1, reset_less=True), Signal()
        m.submodules.button = cdc.FFSynchronizer(self.button, pressed)
        m.d.comb += [domain.clk.eq(self.clock), domain.rst.eq(reset)]
        m.d.sync += reset.eq(pressed)

        m.submodules.receiver = receiver = UartReceiver(self.cycles_per_bit)
        m.submodules.transmitter = transmitter = UartTransmitter(self.cycles_per_bit)
        m.submodules.link = link = HostLink(self.patience_cycles)
        m.submodules.accelerator = accelerator = AxiAccelerator(self.machine)
        wiring.connect(m, link.o, transmitter.i)
        for name in ("control", "load", "image", "result"):
            wiring.connect(m, getattr(link, name), getattr(accelerator, name))
        heartbeat = Signal(HEARTBEAT_BITS)
        m.d.comb += [
            receiver.line.eq(self.uart_rx),
            link.data.eq(receiver.data),
            link.valid.eq(receiver.valid),
            link.framing_error.eq(receiver.framing_error),
            link.interrupt.eq(accelerator.interrupt),
            self.uart_tx.eq(transmitter.line),
            self.light_alive.eq(heartbeat[-1]),
            self.esp32_boot.eq(1),
        ]
        m.d.sync += [
            heartbeat.eq(heartbeat + 1),
            self.light_answered.eq(self.light_answered | link.answered),
            self.light_broken.eq(self.light_broken | link.broken),
        ]
        return m
