"""The accelerator behind AXI4-Lite and AXI4-Stream."""

from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out

from hwsim.machine import Machine
from rtl.accelerator import Accelerator
from rtl.bus import register_map
from rtl.bus.axi import Axi4LiteSignature, Axi4StreamSignature
from rtl.bus.image_unpacker import ImageUnpacker
from rtl.bus.register_file import RegisterFile


class AxiAccelerator(wiring.Component):
    """Registers, a queue of run commands and AXI streams around the accelerator. One clock, synchronous reset.

    ::

        control --> registers --> command queue --> run \\
                        |  ^--- status, counters -------- accelerator --> result
                    interrupt                           /  /
        load ------------------- while idle -----------/  /
        image --> image unpacker ------------------------/

    Members
    -------
    control : In(Axi4LiteSignature(ADDRESS_BITS))
        See ``rtl.bus.register_map``.
    load : In(Axi4StreamSignature())
        ``hwsim.program.Program.load_words``. Taken only while no image is computed and no command waits.
    image : In(Axi4StreamSignature(keep=True, last=True))
        See ``ImageUnpacker``. While one image is computed the next is laid out and a third received,
        and no more.
    result : Out(Axi4StreamSignature(last=True))
        Logits, signed 32 bits; TLAST comes with the last of an image.
    interrupt : Out(1)
        Level, high while an enabled bit of ``interrupt_status`` is set.
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        super().__init__(
            {
                "control": In(Axi4LiteSignature(register_map.ADDRESS_BITS)),
                "load": In(Axi4StreamSignature()),
                "image": In(Axi4StreamSignature(keep=True, last=True)),
                "result": Out(Axi4StreamSignature(last=True)),
                "interrupt": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        machine = self.machine
        m.submodules.registers = registers = RegisterFile(register_map.REGISTERS)
        wiring.connect(m, wiring.flipped(self.control), registers.bus)

        # The register "reset" resets all of this, and nothing else.
        work, is_reset = Module(), registers.reset_machine
        m.submodules.work = ResetInserter(is_reset)(work)
        work.submodules.accelerator = accelerator = Accelerator(machine)
        work.submodules.unpacker = unpacker = ImageUnpacker(len(accelerator.image_bytes))
        work.submodules.commands = commands = fifo.SyncFIFOBuffered(
            width=len(accelerator.run.payload), depth=register_map.COMMAND_QUEUE_DEPTH
        )
        was_busy, image_done, result_end, has_room = Signal(), Signal(), Signal(), Signal()
        images_done, cycles = Signal(32), Signal(32)
        images_waiting = Signal(range(register_map.IMAGES_WAITING_MAX + 1))
        results_waiting = Signal(range(register_map.RESULTS_WAITING_MAX + 1))
        work.d.comb += [
            accelerator.run.payload.eq(commands.r_data),
            accelerator.run.valid.eq(commands.r_rdy),
            commands.r_en.eq(accelerator.run.ready),
            commands.w_data.eq(registers.run_slot),
            commands.w_en.eq(registers.run_write),
            # The machine is idle for at least one cycle after every image.
            image_done.eq(was_busy & ~accelerator.busy),
            result_end.eq(self.result.tvalid & self.result.tready & self.result.tlast),
            unpacker.image_bytes.eq(accelerator.image_bytes),
            # No more images than are counted: a ring deep enough for several small ones would take them.
            has_room.eq(images_waiting != register_map.IMAGES_WAITING_MAX),
            accelerator.image.payload.eq(unpacker.o.payload),
            accelerator.image.valid.eq(unpacker.o.valid & has_room),
            unpacker.o.ready.eq(accelerator.image.ready & has_room),
        ]
        work.d.sync += [
            was_busy.eq(accelerator.busy),
            images_waiting.eq(images_waiting + unpacker.image_end - image_done),
            results_waiting.eq(results_waiting + image_done - result_end),
        ]
        with work.If(image_done):
            work.d.sync += [images_done.eq(images_done + 1), cycles.eq(accelerator.cycles)]

        is_idle = ~accelerator.busy & (commands.level == 0)
        m.d.comb += [
            accelerator.load.payload.eq(self.load.tdata),
            accelerator.load.valid.eq(self.load.tvalid & is_idle),
            self.load.tready.eq(accelerator.load.ready & is_idle & ~is_reset),
            unpacker.i.tdata.eq(self.image.tdata),
            unpacker.i.tkeep.eq(self.image.tkeep),
            unpacker.i.tlast.eq(self.image.tlast),
            unpacker.i.tvalid.eq(self.image.tvalid),
            self.image.tready.eq(unpacker.i.tready & ~is_reset),
            self.result.tdata.eq(accelerator.result.payload.value),
            self.result.tlast.eq(accelerator.result.payload.last),
            self.result.tvalid.eq(accelerator.result.valid),
            accelerator.result.ready.eq(self.result.tready),
        ]

        for name, fields in register_map.configuration(machine).items():
            for field, value in fields.items():
                m.d.comb += getattr(registers, f"{name}_{field}").eq(value)
        m.d.comb += [
            registers.run_accept.eq(commands.w_rdy & (registers.run_slot < machine.layer_slots) & ~is_reset),
            registers.status_busy.eq(accelerator.busy),
            registers.status_loaded.eq(accelerator.image_bytes != 0),
            registers.status_images_waiting.eq(images_waiting),
            registers.status_results_waiting.eq(results_waiting),
            registers.status_command_space.eq(register_map.COMMAND_QUEUE_DEPTH - commands.level),
            registers.loaded_image_bytes_value.eq(accelerator.image_bytes),
            registers.interrupt_status_image_done_set.eq(image_done),
            registers.interrupt_status_image_size_error_set.eq(unpacker.size_error),
            self.interrupt.eq(
                (registers.interrupt_enable_image_done & registers.interrupt_status_image_done)
                | (registers.interrupt_enable_image_size_error & registers.interrupt_status_image_size_error)
            ),
            registers.cycles_value.eq(cycles),
            registers.stall_cycles_value.eq(accelerator.stall_cycles),
            registers.images_done_value.eq(images_done),
            registers.weight_planes_read_value.eq(accelerator.weight_planes_read),
        ]
        return m
