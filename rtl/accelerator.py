"""The whole machine: it runs networks from a program, one image after another, each at any resident assignment."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hwsim import spec
from hwsim.machine import LANE_BITS, LOAD_WORD_BITS, Machine
from rtl.accumulator import Accumulator
from rtl.activation_streamer import ActivationStreamer
from rtl.array import Array
from rtl.delay import delay
from rtl.drain import SKIP_OPERAND_BITS, Drain
from rtl.dsp_array import DspArray
from rtl.image_loader import ImageLoader
from rtl.leaves.memory import GatheredMemory, TwoCycleMemory
from rtl.leaves.signed_product import Ecp5SignedProduct
from rtl.load_port import LoadPort
from rtl.max_pool import MaxPool
from rtl.records import struct
from rtl.result_buffer import RESULT, ResultBuffer
from rtl.sequencer import Sequencer
from rtl.weight_feeder import WeightFeeder
from rtl.weight_loader import WeightLoader


def make_array(machine, words):
    """Return the array of the machine's datapath and its accumulator of ``words`` words."""
    kind, digit_shifts = Array, ()
    if machine.datapath == "dsp":
        kind, digit_shifts = DspArray, machine.digit_shifts
    array = kind(machine.lanes, machine.columns, machine.group_bits, machine.slots, machine.weight_port_bits)
    return array, Accumulator(machine.columns, array.sum_bits, machine.accumulator_bits, words, digit_shifts)


def multiplier_count(machine):
    """Return the multipliers that a machine takes where they are cells of their own."""
    widths = machine.requantizer
    factors = (
        (machine.accumulator_bits, widths.multiplier_bits),
        (SKIP_OPERAND_BITS, widths.skip_multiplier_bits),
        (SKIP_OPERAND_BITS, widths.multiplier_bits),
    )
    each = sum(Ecp5SignedProduct.cells(*pair) or 0 for pair in factors)
    return machine.requantizers * each + (machine.lanes * machine.columns if machine.datapath == "dsp" else 0)


def check_multipliers(machine, target):
    """Raise ``ValueError`` if a machine takes more multipliers than a target has."""
    what = f"{machine.lanes} lanes x {machine.columns} columns and {machine.requantizers} requantizers"
    target.require_multipliers(multiplier_count(machine), what)


class Accelerator(wiring.Component):
    """Weight loader, array, drain and memories around one sequencer.

    One clock; a synchronous reset, which stops what runs and keeps what has been loaded.

    ::

        load --> weights --> weight loader (switch) --> staging --> feeder --\\
                 descriptors --> sequencer                                     array --> accumulators --> drain
        image --> image loader --> image memory --> streamer ----------------/              tables --/   |  |
                                   activation memory --/   ^---------------------------------------------+  +--> result
                                   skip memory ------------------------------------------------------------^

    Members
    -------
    load : In(stream.Signature(32))
        Program words, see ``hwsim.program.Program.load_words``.
    run : In(stream.Signature)
        Layer slot where an assignment begins: run the next image at it.
    image : In(stream.Signature(8))
        Pixels, unsigned, in (row, column, channel) order.
    result : Out(stream.Signature(RESULT))
        Logits, signed 32 bits, and a mark on the last one of an image.
    busy : Out(1)
    cycles, stall_cycles : Out(32)
        See ``Sequencer``.
    weight_planes_read : Out(32)
        Words read from the weight memory since reset.
    image_bytes : Out
        Bytes of an image of the loaded network, 0 before a program has been loaded.
    trace_* : Out
        What is stored, as it is stored, for a testbench; leave them open in a design.
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        self.array, self.accumulator = make_array(machine, 2 * machine.strip_pixels)
        slots = range(max(2, machine.layer_slots))
        super().__init__(
            {
                "load": In(stream.Signature(LOAD_WORD_BITS)),
                "run": In(stream.Signature(slots)),
                "image": In(stream.Signature(spec.IMAGE_BITS)),
                "result": Out(stream.Signature(RESULT)),
                "busy": Out(1),
                "cycles": Out(32),
                "stall_cycles": Out(32),
                "weight_planes_read": Out(32),
                "image_bytes": Out(dict(machine.image_layout.fields)["image_bytes"]),
                "trace_code_enable": Out(machine.banks * machine.groups * machine.lane_runs),
                "trace_code_address": Out(machine.banks * machine.word_address_bits),
                "trace_code_data": Out(machine.activation_bits),
                "trace_skip_enable": Out(1),
                "trace_skip_address": Out(range(machine.skip_words)),
                "trace_skip_data": Out(machine.requantizers * spec.SKIP_BITS),
                "trace_layer_done": Out(1),
                "trace_layer_slot": Out(slots),
            }
        )

    def elaborate(self, platform):
        machine = self.machine
        m = Module()

        def memory(name, width, depth, granularity=None, read_enable=1, kind=TwoCycleMemory):
            part = kind(width, max(2, depth), granularity)
            m.submodules[f"{name}_memory"] = part
            m.d.comb += part.read_enable.eq(read_enable)
            return part

        m.submodules.weight_loader = loader = WeightLoader(machine)
        weights = memory(
            "weight",
            machine.weight_word_bits,
            machine.weight_words,
            read_enable=loader.weight_read,
            kind=GatheredMemory,
        )
        staging = memory("staging", machine.weight_port_bits, 2 * machine.staging_words)
        tables = memory("table", machine.table_layout.bits, machine.table_words)
        skip_tables = memory("skip_table", machine.requantizer.skip_multiplier_bits, machine.skip_table_words)
        layers = memory("layer", LOAD_WORD_BITS, machine.layer_slots * machine.layer_layout.load_words)
        tiles = memory("tile", machine.tiles_layout.bits, machine.layer_slots)
        granule = machine.bank_lanes // machine.lane_runs * machine.group_bits
        activations = [
            memory(f"activation_{bank}", machine.unit_bits, machine.activation_words, granule)
            for bank in range(machine.banks)
        ]
        images = memory("image", machine.activation_bits, machine.image_words, LANE_BITS)
        skips = memory("skip", machine.requantizers * spec.SKIP_BITS, machine.skip_words)

        m.submodules.load_port = load_port = LoadPort(machine)
        m.submodules.sequencer = sequencer = Sequencer(machine)
        m.submodules.weight_feeder = feeder = WeightFeeder(machine)
        m.submodules.activation_streamer = streamer = ActivationStreamer(machine, Accumulator.HAZARD_CYCLES)
        m.submodules.array = array = self.array
        m.submodules.accumulator = accumulator = self.accumulator
        m.submodules.drain = drain = Drain(machine)
        m.submodules.max_pool = max_pool = MaxPool(machine)
        m.submodules.image_loader = image_loader = ImageLoader(machine)
        m.submodules.result_buffer = result_buffer = ResultBuffer(machine)
        wiring.connect(m, wiring.flipped(self.load), load_port.i)
        wiring.connect(m, wiring.flipped(self.run), sequencer.run)
        wiring.connect(m, wiring.flipped(self.image), image_loader.i)
        wiring.connect(m, result_buffer.o, wiring.flipped(self.result))

        # Like the memories, it keeps what was loaded through a reset.
        geometry = Signal(struct(machine.image_layout), reset_less=True)
        with m.If(load_port.image_write):
            m.d.sync += geometry.eq(load_port.image_data)
        loaded = {
            "weights": weights,
            "tables": tables,
            "skip_tables": skip_tables,
            "layers": layers,
            "tiles": tiles,
        }
        for target, part in loaded.items():
            m.d.comb += [
                part.write_address.eq(load_port.address),
                part.write_data.eq(getattr(load_port, f"{target}_data")),
                part.write_enable.eq(getattr(load_port, f"{target}_write")),
            ]

        layer = sequencer.layer
        layer_done = drain.done | max_pool.done
        for engine in (feeder, streamer, drain, max_pool):
            m.d.comb += [engine.layer.eq(layer), engine.start.eq(sequencer.layer_start)]
        m.d.comb += [
            image_loader.geometry.eq(geometry),
            sequencer.image_ready.eq(image_loader.image_ready),
            image_loader.image_start.eq(sequencer.image_start),
            image_loader.image_release.eq(sequencer.image_release),
            image_loader.strip_release.eq(streamer.image_release),
            image_loader.strip_pixels.eq(streamer.image_release_pixels),
            sequencer.result_free.eq(result_buffer.free),
            result_buffer.done.eq(sequencer.result_done),
            result_buffer.classes.eq(geometry.classes),
            self.image_bytes.eq(geometry.image_bytes),
            layers.read_address.eq(sequencer.layers_address),
            sequencer.layers_data.eq(layers.read_data),
            sequencer.layer_done.eq(layer_done),
            self.busy.eq(sequencer.busy),
            self.cycles.eq(sequencer.cycles),
            self.stall_cycles.eq(sequencer.stall_cycles),
        ]

        # Weights: memory -> switch -> staging -> array.
        m.d.comb += [
            loader.start.eq(sequencer.image_start),
            loader.slot.eq(sequencer.first_slot),
            tiles.read_address.eq(loader.tiles_address),
            loader.tiles_data.eq(tiles.read_data),
            weights.read_address.eq(loader.weight_address),
            loader.weight_data.eq(weights.read_data),
            staging.write_address.eq(loader.staging_address),
            staging.write_data.eq(loader.staging_data),
            staging.write_enable.eq(loader.staging_write),
            loader.tile_release.eq(feeder.tile_release),
            feeder.tile_ready.eq(loader.tile_ready),
            staging.read_address.eq(feeder.staging_address),
            feeder.staging_data.eq(staging.read_data),
            array.weight_data.eq(feeder.weight_data),
            array.weight_row.eq(feeder.weight_row),
            array.weight_groups.eq(feeder.weight_groups),
            array.weight_write.eq(feeder.weight_write),
        ]
        with m.If(loader.weight_read):
            m.d.sync += self.weight_planes_read.eq(self.weight_planes_read + 1)

        # Activations: image or activation memory -> array -> accumulators.
        bank_bits = machine.banks.bit_length() - 1
        pool_bank = max_pool.read_address[:bank_bits]
        if bank_bits:
            pool_bank = delay(m, pool_bank, MaxPool.ARRIVAL_CYCLES, "pool_bank")
        # Registers around the memories that many parts share: they are large, and lie all over the chip.
        m.d.sync += images.read_address.eq(streamer.image_address)
        m.d.comb += [
            streamer.pass_ready.eq(feeder.pass_ready),
            streamer.next_pass.eq(feeder.next_pass),
            feeder.take.eq(streamer.take),
            streamer.image_base.eq(image_loader.base),
            images.write_address.eq(image_loader.write_address),
            images.write_data.eq(image_loader.write_data),
            images.write_enable.eq(image_loader.write_enable),
            max_pool.read_data.eq(streamer.read_data.as_value().word_select(pool_bank, machine.unit_bits)),
            array.activations.eq(
                Cat(
                    streamer.activations[bank][(group * machine.bank_lanes) * machine.group_bits :][
                        : machine.bank_lanes * machine.group_bits
                    ]
                    for group in range(machine.groups)
                    for bank in range(machine.banks)
                )
            ),
            array.enable.eq(~0),
            array.swap.eq(streamer.step.swap),
        ]
        for bank, part in enumerate(activations):
            # The image memory holds whole lanes, one after another; a unit holds groups of its lanes.
            image_unit = Cat(
                images.read_data[(bank * machine.bank_lanes + lane) * LANE_BITS :][
                    group * machine.group_bits : (group + 1) * machine.group_bits
                ]
                for group in range(machine.groups)
                for lane in range(machine.bank_lanes)
            )
            m.d.sync += part.read_address.eq(
                Mux(layer.is_max_pool, max_pool.read_address >> bank_bits, streamer.read_address[bank])
            )
            m.d.sync += streamer.read_data[bank].eq(Mux(layer.reads_image, image_unit, part.read_data))
        with m.Switch(layer.slot_index):
            for slot in machine.slots:
                with m.Case(machine.slot_index(slot)):
                    m.d.comb += array.slot.eq(array.slot_index(slot))
        step = delay(m, streamer.step, array.LATENCY - accumulator.SUMS_DELAY, "step")
        m.d.comb += [
            accumulator.sums.eq(array.sums),
            accumulator.valid.eq(step.valid),
            accumulator.address.eq(Cat(step.address, step.accumulator_bank)),
            accumulator.clears.eq(step.clears),
        ]
        if machine.datapath == "dsp":
            m.d.comb += [
                array.weight_slot.eq(array.slot),
                array.weight_bit.eq(feeder.weight_bit),
                array.weight_clear.eq(feeder.weight_clear),
                array.signed_planes.eq(Mux(streamer.step.subtracts, layer.first_digit_planes, 0)),
                *(
                    accumulator.shift[at].eq(step.doubles & (layer.slot_index == machine.slot_index(bits)))
                    for at, bits in enumerate(machine.digit_shifts)
                ),
            ]
        else:
            m.d.comb += [accumulator.doubles.eq(step.doubles), accumulator.subtracts.eq(step.subtracts)]
        job_ends = delay(m, step.ends_job, accumulator.SUMS_DELAY + accumulator.LATENCY, "job_ends")

        # Two accumulator banks: taken by the streamer, finished by the last word of a job, released by the drain.
        used, ready = Signal(2), Signal(2)
        m.d.sync += [
            used.eq(used + streamer.bank_take - drain.bank_release),
            ready.eq(ready + job_ends - drain.bank_release),
        ]
        m.d.comb += [
            streamer.bank_free.eq(used != 2),
            drain.bank_ready.eq(ready != 0),
            accumulator.drain_address.eq(Cat(drain.accumulator_address, drain.accumulator_bank)),
            accumulator.drain_read.eq(1),
            drain.accumulators.eq(accumulator.drain_data),
            tables.read_address.eq(drain.table_address),
            drain.table_data.eq(tables.read_data),
            skip_tables.read_address.eq(drain.skip_table_address),
            drain.skip_table_data.eq(skip_tables.read_data),
            skips.read_address.eq(drain.skip_read_address),
            drain.skip_read_data.eq(skips.read_data),
            skips.write_address.eq(drain.skip_write_address),
            skips.write_data.eq(drain.skip_write_data),
            skips.write_enable.eq(drain.skip_write_enable),
            result_buffer.write_address.eq(drain.result_address),
            result_buffer.write_data.eq(drain.result_data),
            result_buffer.write_enable.eq(drain.result_enable),
        ]
        for bank, part in enumerate(activations):
            with m.If(layer.is_max_pool):
                written = max_pool.write_enable & (max_pool.write_address[:bank_bits] == bank)
                m.d.sync += [
                    part.write_address.eq(max_pool.write_address >> bank_bits),
                    part.write_data.eq(max_pool.write_data),
                    part.write_enable.eq(written.replicate(len(part.write_enable))),
                ]
            with m.Else():
                m.d.sync += [
                    part.write_address.eq(drain.code_write_address[bank]),
                    part.write_data.eq(drain.code_write_data[bank]),
                    part.write_enable.eq(drain.code_write_enable[bank]),
                ]
            m.d.comb += [
                self.trace_code_enable.word_select(bank, len(part.write_enable)).eq(part.write_enable),
                self.trace_code_address.word_select(bank, machine.word_address_bits).eq(part.write_address),
                self.trace_code_data.word_select(bank, machine.unit_bits).eq(part.write_data),
            ]
        m.d.comb += [
            self.trace_skip_enable.eq(skips.write_enable),
            self.trace_skip_address.eq(skips.write_address),
            self.trace_skip_data.eq(skips.write_data),
            self.trace_layer_done.eq(layer_done),
            self.trace_layer_slot.eq(sequencer.slot),
        ]
        return m
