"""Requantizes finished strips of accumulators into the stored forms of the output tensor."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwsim import spec
from hwsim.machine import ACCUMULATOR_ARRIVAL_CYCLES, CODE_WRITE_CYCLES, LANE_BITS, SIZE_BITS, Machine, bits_for
from rtl.countdown import Countdown, Loop
from rtl.delay import delay
from rtl.leaves.memory import TwoCycleMemory
from rtl.records import struct
from rtl.requantizer import Requantizer

SKIP_OPERAND_BITS = spec.SKIP_BITS + 1
"""A skip code, signed or unsigned, as a signed operand."""


def output_layout(machine: Machine) -> data.StructLayout:
    """Return the layout of the controls that travel with one group of accumulators through the requantizers."""
    return data.StructLayout(
        {
            "valid": 1,
            "skip_address": range(machine.skip_words),
            "unit_address": machine.unit_address_bits,
            "first_chunk": range(max(2, machine.groups)),
            "lane_run": range(max(2, machine.bank_lanes // machine.requantizers)),
            "result_address": range(max(2, machine.result_words)),
        }
    )


class Drain(wiring.Component):
    """Empties accumulator banks through ``requantizers`` parallel requantizers.

    For every job (a strip of a tile) and every group of ``requantizers`` channels of it: ``requantizers`` + 2 cycles
    read the group's M, K, B and S, then one pixel a cycle is requantized.

    Members
    -------
    layer : In
        Descriptor of the running layer.
    start : In(1)
        Begin a layer, one cycle.
    bank_ready : In(1)
        A bank is finished.
    bank_release : Out(1)
        The oldest finished bank has been read, one cycle.
    done : Out(1)
        Every stored form of the layer's output has been written, one cycle.
    accumulator_bank, accumulator_address : Out
        Read address into the accumulator memory.
    accumulators : In
        Its data, ``columns`` accumulators, two cycles later.
    table_address : Out; table_data : In
        Requantizer tables (M, B, S), two cycles.
    skip_table_address : Out; skip_table_data : In
        Skip multipliers K of the layers that add, two cycles; read together with the others.
    skip_read_address : Out; skip_read_data : In
        Skip memory, two cycles; a word is ``requantizers`` codes of 8 bits.
    skip_write_address, skip_write_data, skip_write_enable : Out
    code_write_address, code_write_data, code_write_enable : Out
        For each bank of the activation memory: word, unit, and an enable for every run of lanes of every group; to be
        kept in a register ahead of the memory.
    result_address, result_data, result_enable : Out
        Result memory; a word is ``requantizers`` logits of 32 bits.
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        super().__init__(
            {
                "layer": In(struct(machine.layer_layout)),
                "start": In(1),
                "bank_ready": In(1),
                "bank_release": Out(1),
                "done": Out(1),
                "accumulator_bank": Out(1),
                "accumulator_address": Out(range(machine.strip_pixels)),
                "accumulators": In(data.ArrayLayout(signed(machine.accumulator_bits), machine.columns)),
                "table_address": Out(range(machine.table_words)),
                "table_data": In(struct(machine.table_layout)),
                "skip_table_address": Out(range(max(2, machine.skip_table_words))),
                "skip_table_data": In(machine.requantizer.skip_multiplier_bits),
                "skip_read_address": Out(range(machine.skip_words)),
                "skip_read_data": In(machine.requantizers * spec.SKIP_BITS),
                "skip_write_address": Out(range(machine.skip_words)),
                "skip_write_data": Out(machine.requantizers * spec.SKIP_BITS),
                "skip_write_enable": Out(1),
                "code_write_address": Out(data.ArrayLayout(machine.word_address_bits, machine.banks)),
                "code_write_data": Out(data.ArrayLayout(machine.unit_bits, machine.banks)),
                "code_write_enable": Out(data.ArrayLayout(machine.groups * machine.lane_runs, machine.banks)),
                "result_address": Out(range(max(2, machine.result_words))),
                "result_data": Out(machine.requantizers * spec.LOGIT_BITS),
                "result_enable": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        machine = self.machine
        layer = self.layer
        requantizers = machine.requantizers
        # The job that comes next. Emptying a job takes more cycles than working these registers out one by one.
        pixels_left = Signal(2 * SIZE_BITS)
        pixels_after = Signal(2 * SIZE_BITS)
        next_pixels = Signal(range(machine.strip_pixels + 1))
        next_is_last_strip = Signal()
        whole_strips = pixels_left[machine.strip_pixels.bit_length() - 1 :].any()
        groups_left = Signal(SIZE_BITS)
        next_groups = Signal(range(machine.groups_of_channels + 1))
        next_is_last_tile = Signal()
        m.d.sync += [
            next_pixels.eq(Mux(whole_strips, machine.strip_pixels, pixels_left)),
            next_is_last_strip.eq(pixels_left <= machine.strip_pixels),
            pixels_after.eq(Mux(next_is_last_strip, layer.output_pixels, pixels_left - machine.strip_pixels)),
            next_groups.eq(Mux(groups_left < machine.groups_of_channels, groups_left, machine.groups_of_channels)),
            next_is_last_tile.eq(groups_left <= machine.groups_of_channels),
        ]

        # This job: its strip of pixels, its groups of channels, and where it is.
        strip_pixels = Signal.like(next_pixels)
        is_last_strip, is_last_tile = Signal(), Signal()
        groups = Countdown(len(next_groups), "groups")
        pixels = Countdown(len(strip_pixels), "pixels")
        group = Signal(range(max(2, machine.groups_of_channels)))
        tile_channel_group = Signal(SIZE_BITS)
        channel_group = Signal(SIZE_BITS)
        pixel = Signal(range(machine.strip_pixels))
        bank = Signal()
        # Distance of a pixel from the tensor's start: where the strip starts, where it is, where the next one starts.
        skip_offset = {name: Signal(range(machine.skip_words), name=f"skip_offset_{name}") for name in ("start", "now")}
        unit_offset = {name: Signal(machine.unit_address_bits, name=f"unit_offset_{name}") for name in ("start", "now")}
        columns = {name: Loop(m, layer.output_width, f"columns_{name}") for name in ("start", "now")}

        tables = Signal(data.ArrayLayout(struct(machine.table_layout), requantizers))
        skip_multipliers = Signal(data.ArrayLayout(machine.requantizer.skip_multiplier_bits, requantizers))
        code_table = Signal(struct(machine.table_layout))
        table_address = Signal(range(machine.table_words))
        skip_table_address = Signal.like(self.skip_table_address)
        reads = Countdown(bits_for(requantizers), "reads")
        settle = Countdown(bits_for(output_latency() + 1), "settle")

        reading_table = Signal()
        reading_code_table = Signal()
        issue = Signal()

        m.d.comb += [self.table_address.eq(table_address), self.skip_table_address.eq(skip_table_address)]
        table_arrives = delay(m, reading_table, TwoCycleMemory.LATENCY, "table_arrives")
        code_table_arrives = delay(m, reading_code_table, TwoCycleMemory.LATENCY, "code_table_arrives")
        with m.If(table_arrives):
            # Entries arrive in channel order and are shifted in from the top.
            m.d.sync += [
                tables.eq(Cat(tables.as_value()[machine.table_layout.bits :], self.table_data)),
                skip_multipliers.eq(
                    Cat(skip_multipliers.as_value()[len(self.skip_table_data) :], self.skip_table_data)
                ),
            ]
        with m.If(code_table_arrives):
            m.d.sync += code_table.eq(self.table_data)

        def begin_pixels():
            return [
                skip_offset["now"].eq(skip_offset["start"]),
                unit_offset["now"].eq(unit_offset["start"]),
                *columns["now"].set(columns["start"].left, columns["start"].is_last),
            ]

        def begin_tensor():
            return [
                skip_offset["start"].eq(0),
                unit_offset["start"].eq(0),
                *columns["start"].begin(),
            ]

        row_end_units = Signal(machine.unit_address_bits)
        m.d.sync += row_end_units.eq(layer.output_units + layer.output_row_gap)
        next_skip_offset = skip_offset["now"] + layer.channel_groups
        next_unit_offset = unit_offset["now"] + Mux(columns["now"].is_last, row_end_units, layer.output_units)

        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start & ~layer.is_max_pool):
                    m.d.sync += [
                        tile_channel_group.eq(0),
                        groups_left.eq(layer.channel_groups),
                        pixels_left.eq(layer.output_pixels),
                        *begin_tensor(),
                        table_address.eq(layer.table_start + layer.channel_groups * requantizers),
                    ]
                    m.next = "READ CODE TABLE"
            with m.State("READ CODE TABLE"):
                m.d.comb += reading_code_table.eq(1)
                m.next = "WAIT BANK"
            with m.State("WAIT BANK"):
                m.d.sync += [
                    group.eq(0),
                    channel_group.eq(tile_channel_group),
                    *begin_pixels(),
                    *groups.begin(next_groups),
                    strip_pixels.eq(next_pixels),
                    is_last_strip.eq(next_is_last_strip),
                    is_last_tile.eq(next_is_last_tile),
                ]
                with m.If(self.bank_ready):
                    m.d.sync += pixels_left.eq(pixels_after)
                    with m.If(next_is_last_strip):
                        m.d.sync += groups_left.eq(groups_left - machine.groups_of_channels)
                    m.next = "BEGIN GROUP"
            with m.State("BEGIN GROUP"):
                m.d.sync += [
                    table_address.eq(layer.table_start + channel_group * requantizers),
                    skip_table_address.eq(layer.skip_table_start + channel_group * requantizers),
                    *reads.begin(requantizers),
                    pixel.eq(0),
                    *pixels.begin(strip_pixels),
                ]
                m.next = "READ TABLE"
            with m.State("READ TABLE"):
                m.d.comb += reading_table.eq(1)
                m.d.sync += [
                    table_address.eq(table_address + 1),
                    skip_table_address.eq(skip_table_address + 1),
                    *reads.step(),
                ]
                with m.If(reads.is_last):
                    m.next = "TABLE ARRIVES"
            with m.State("TABLE ARRIVES"):
                m.next = "STREAM"
            with m.State("STREAM"):
                m.d.comb += issue.eq(1)
                m.d.sync += [
                    pixel.eq(pixel + 1),
                    *pixels.step(),
                    skip_offset["now"].eq(next_skip_offset),
                    unit_offset["now"].eq(next_unit_offset),
                    *columns["now"].step_or_begin(),
                ]
                with m.If(pixels.is_last):
                    with m.If(~groups.is_last):
                        m.d.sync += [*groups.step(), group.eq(group + 1), channel_group.eq(channel_group + 1)]
                        m.d.sync += begin_pixels()
                        m.next = "BEGIN GROUP"
                    with m.Else():
                        m.d.comb += self.bank_release.eq(1)
                        m.d.sync += [
                            bank.eq(~bank),
                            skip_offset["start"].eq(next_skip_offset),
                            unit_offset["start"].eq(next_unit_offset),
                            *columns["start"].set(*columns["now"].after()),
                        ]
                        m.next = "WAIT BANK"
                        with m.If(is_last_strip):
                            m.d.sync += [tile_channel_group.eq(channel_group + 1), *begin_tensor()]
                            with m.If(is_last_tile):
                                m.d.sync += settle.begin(output_latency() + 1)
                                m.next = "SETTLE"
            with m.State("SETTLE"):
                m.d.sync += settle.step()
                with m.If(settle.is_last):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"

        # A channel group is a number of whole chunks of bank_lanes channels, or a part of one.
        runs_bits = machine.lane_runs.bit_length() - 1
        chunks = max(1, requantizers // machine.bank_lanes)
        chunk = (channel_group >> runs_bits) * chunks
        first_chunk = Signal(range(max(2, machine.groups)))
        unit = Signal(SIZE_BITS)
        with m.Switch(layer.output_slot_index):
            for slot in machine.slots:
                chunk_bits = machine.activations_per_lane(slot).bit_length() - 1
                with m.Case(machine.slot_index(slot)):
                    m.d.comb += [first_chunk.eq(chunk & ((1 << chunk_bits) - 1)), unit.eq(chunk >> chunk_bits)]
        # Where a group's pixels begin: worked out while its table is read.
        skip_read_start, skip_write_start = Signal.like(self.skip_read_address), Signal.like(self.skip_write_address)
        unit_start = Signal(machine.unit_address_bits)
        group_first_chunk = Signal.like(first_chunk)
        m.d.sync += [
            skip_read_start.eq(layer.skip_start + channel_group),
            skip_write_start.eq(layer.skip_output_start + channel_group),
            unit_start.eq(layer.output_start + unit),
            group_first_chunk.eq(first_chunk),
        ]
        issued = Signal(output_layout(machine))
        m.d.comb += [
            issued.valid.eq(issue),
            issued.skip_address.eq(skip_write_start + skip_offset["now"]),
            issued.unit_address.eq(unit_start + unit_offset["now"]),
            issued.first_chunk.eq(group_first_chunk),
            issued.lane_run.eq(channel_group[:runs_bits] if runs_bits else 0),
            issued.result_address.eq(channel_group),
            self.accumulator_bank.eq(bank),
            self.accumulator_address.eq(pixel),
            self.skip_read_address.eq(skip_read_start + skip_offset["now"]),
        ]
        # The accumulators and the skip codes come from far apart, so they get a register before the multipliers.
        arrived = delay(m, issued, TwoCycleMemory.LATENCY + ACCUMULATOR_ARRIVAL_CYCLES, "arrived")
        arrived_group = delay(m, group, TwoCycleMemory.LATENCY, "arrived_group")

        first = delay(m, arrived, Requantizer.LATENCY, "first")
        second = delay(m, first, Requantizer.LATENCY, "second")
        widths = machine.requantizer
        logit_low, logit_high = spec.signed_low(spec.LOGIT_BITS), spec.signed_high(spec.LOGIT_BITS)
        low, high = Signal(signed(spec.LOGIT_BITS)), Signal(signed(spec.LOGIT_BITS))
        with m.If(layer.makes_logits):
            m.d.sync += [low.eq(logit_low), high.eq(logit_high)]
        with m.Elif(layer.makes_skip & layer.makes_signed_skip):
            m.d.sync += [low.eq(spec.signed_low(spec.SKIP_BITS)), high.eq(spec.signed_high(spec.SKIP_BITS))]
        with m.Elif(layer.makes_skip):
            m.d.sync += [low.eq(0), high.eq(spec.unsigned_high(spec.SKIP_BITS))]
        with m.Else():
            m.d.sync += [low.eq(0), high.eq(layer.code_high)]

        codes = []
        for lane in range(requantizers):
            requantizer = m.submodules[f"requantizer_{lane}"] = Requantizer(
                operand_bits=machine.accumulator_bits,
                skip_bits=SKIP_OPERAND_BITS,
                multiplier_bits=widths.multiplier_bits,
                skip_multiplier_bits=widths.skip_multiplier_bits,
                addend_bits=widths.addend_bits,
                shift_max=widths.shift_max,
                output_bits=spec.LOGIT_BITS,
            )
            accumulator = Signal(signed(machine.accumulator_bits), name=f"accumulator_{lane}")
            with m.Switch(arrived_group):
                for index in range(machine.groups_of_channels):
                    with m.Case(index):
                        m.d.comb += accumulator.eq(self.accumulators[index * requantizers + lane])
            skip_code = self.skip_read_data.word_select(lane, spec.SKIP_BITS)
            skip_sign = skip_code[-1] & layer.skip_is_signed
            skip_operand = Mux(layer.adds, Cat(skip_code, skip_sign), 0)
            m.d.comb += [
                requantizer.operand.eq(delay(m, accumulator, ACCUMULATOR_ARRIVAL_CYCLES, f"operand_{lane}")),
                requantizer.skip.eq(delay(m, skip_operand, ACCUMULATOR_ARRIVAL_CYCLES, f"skip_{lane}")),
                requantizer.multiplier.eq(tables[lane].multiplier),
                requantizer.skip_multiplier.eq(skip_multipliers[lane]),
                requantizer.addend.eq(tables[lane].addend),
                requantizer.shift.eq(tables[lane].shift),
                requantizer.low.eq(low),
                requantizer.high.eq(high),
                self.result_data.word_select(lane, spec.LOGIT_BITS).eq(requantizer.result),
                self.skip_write_data.word_select(lane, spec.SKIP_BITS).eq(requantizer.result),
            ]
            code_requantizer = m.submodules[f"code_requantizer_{lane}"] = Requantizer(
                operand_bits=SKIP_OPERAND_BITS,
                skip_bits=0,
                multiplier_bits=widths.multiplier_bits,
                skip_multiplier_bits=0,
                addend_bits=widths.addend_bits,
                shift_max=widths.shift_max,
                output_bits=LANE_BITS + 1,
            )
            m.d.comb += [
                code_requantizer.operand.eq(requantizer.result),
                code_requantizer.multiplier.eq(code_table.multiplier),
                code_requantizer.addend.eq(code_table.addend),
                code_requantizer.shift.eq(code_table.shift),
                code_requantizer.low.eq(0),
                code_requantizer.high.eq(layer.code_high),
            ]
            direct = delay(m, requantizer.result[:LANE_BITS], Requantizer.LATENCY, f"direct_{lane}")
            code = Signal(LANE_BITS, name=f"code_{lane}")
            m.d.sync += code.eq(Mux(layer.makes_skip, code_requantizer.result[:LANE_BITS], direct))
            codes.append(code)

        m.d.comb += [
            self.result_address.eq(first.result_address),
            self.result_enable.eq(first.valid & layer.makes_logits),
            self.skip_write_address.eq(first.skip_address),
            self.skip_write_enable.eq(first.valid & layer.makes_skip),
        ]
        self._write_codes(m, codes, second)
        return m

    def _write_codes(self, m, codes, written):
        """Send every chunk of ``bank_lanes`` codes to its bank, and its bits to the groups of its slot.

        ``written`` comes a cycle ahead of the codes. Cycle 1: the chunks' unit addresses. Cycle 2: their banks, words
        and groups, and the codes cut into groups. Then every bank takes the chunk that is its own.
        """
        machine = self.machine
        layer = self.layer
        bits = machine.group_bits
        bank_bits = machine.banks.bit_length() - 1
        size = min(machine.bank_lanes, machine.requantizers)
        chunks = len(codes) // size
        words, hits, group_runs, group_enables = [], [], [], []
        for chunk in range(chunks):
            unit_address = Signal(machine.unit_address_bits, name=f"unit_address_{chunk}")
            part_of_unit = Signal(len(written.first_chunk) + 1, name=f"part_of_unit_{chunk}")
            # enables[group], runs[group]: whether and with what this chunk writes a group of its unit.
            enables = Signal(machine.groups, name=f"enables_{chunk}")
            runs = Signal(data.ArrayLayout(size * bits, machine.groups), name=f"runs_{chunk}")
            hit = Signal(machine.banks, name=f"hit_{chunk}")
            word = Signal(machine.word_address_bits, name=f"word_{chunk}")
            own = codes[chunk * size : (chunk + 1) * size]
            position = (written.first_chunk + chunk)[: len(part_of_unit)]
            with m.Switch(layer.output_slot_index):
                for slot in machine.slots:
                    index = machine.slot_index(slot)
                    per_lane = machine.activations_per_lane(slot)
                    with m.Case(index):
                        m.d.sync += [
                            unit_address.eq(written.unit_address + (position >> per_lane.bit_length() - 1)),
                            part_of_unit.eq(position & (per_lane - 1)),
                        ]
                        for group in range(machine.groups):
                            part = (group & ((1 << index) - 1)) * bits
                            m.d.sync += [
                                runs[group].eq(Cat(code[part : part + bits] for code in own)),
                                enables[group].eq(part_of_unit == group >> index),
                            ]
            m.d.sync += [
                word.eq(unit_address[bank_bits:]),
                hit.eq(Cat(unit_address[:bank_bits] == bank if bank_bits else 1 for bank in range(machine.banks))),
            ]
            words.append(word)
            hits.append(hit)
            group_runs.append(runs)
            group_enables.append(enables)
        run_enables = delay(
            m,
            Cat(written.valid & layer.makes_code & (written.lane_run == run) for run in range(machine.lane_runs)),
            2,
            "run_enables",
        )

        for bank in range(machine.banks):
            enable, word_data = [], []
            for hit, word in zip(hits, words, strict=True):
                with m.If(hit[bank]):
                    m.d.comb += self.code_write_address[bank].eq(word)
            for group in range(machine.groups):
                run = Signal(size * bits, name=f"run_{bank}_{group}")
                writes = Signal(name=f"writes_{bank}_{group}")
                for hit, runs, enables in zip(hits, group_runs, group_enables, strict=True):
                    with m.If(hit[bank] & enables[group]):
                        m.d.comb += [run.eq(runs[group]), writes.eq(1)]
                for lane_run in range(machine.lane_runs):
                    word_data.append(run)
                    enable.append(writes & run_enables[lane_run])
            m.d.comb += [
                self.code_write_data[bank].eq(Cat(word_data)),
                self.code_write_enable[bank].eq(Cat(enable)),
            ]


def output_latency() -> int:
    """Return the cycles from issuing the last pixel until its code has been written."""
    arrival_cycles = TwoCycleMemory.LATENCY + ACCUMULATOR_ARRIVAL_CYCLES
    return arrival_cycles + 2 * Requantizer.LATENCY + CODE_WRITE_CYCLES
