"""Programs: memories hold what the layouts say, no word is used twice, and what does not fit is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hwsim import spec, tensor_places
from hwsim.assignments import uniform_assignments
from hwsim.layer_geometry import input_units, layer_geometry, window
from hwsim.machine import LOAD_TARGETS, MEMORY_NAMES, Machine
from hwsim.network import AveragePool2d, Conv2d, Linear, MaxPool2d, assignment_from_weights, uniform_assignment
from hwsim.precision import CATALOG, WidthSet
from hwsim.program import Program, accumulator_bound, build, describe, fit_machine, requirements
from hwsim.random_network import (
    SMALL,
    AveragePool,
    Convolution,
    Hidden,
    MaximumPool,
    Residual,
    random_assignment,
    random_network,
)
from hwsim.tensor_places import read_codes, read_skip_codes

VARIED = (
    Convolution(channels=10, kernel=5, stride=2),
    MaximumPool(kernel=3, stride=2, padding=1),
    Convolution(channels=22, kernel=1),
    Residual(channels=36),
    AveragePool(kernel=2, stride=1),
    Hidden(features=20),
)


def varied_program(widths: WidthSet, lanes: int = 16, columns: int = 8) -> Program:
    network = random_network(3, widths, (3, 11, 9), VARIED, classes=7)
    assignments = [*uniform_assignments(network), random_assignment(network, 5)]
    machine = fit_machine(network, assignments, Machine.sized(widths, widths, lanes, columns))
    return build(network, machine, assignments)


@pytest.fixture(scope="module", params=CATALOG.values(), ids=str)
def program(request: pytest.FixtureRequest) -> Program:
    return varied_program(request.param)


def stored_code(program: Program, layer: Conv2d | Linear, indices: tuple[int, ...], start: int) -> int:
    """Return one stored code from the weight memory, found by the words of the module's docstring alone."""
    machine, network = program.machine, program.network
    channels, height, width = network.shape(layer.input)
    if isinstance(layer, Linear):
        out, flat = indices
        channel, tap = divmod(flat, height * width)
        padded = -(-channels // machine.channel_multiple) * machine.channel_multiple
        taps = height * width
    elif layer.input == "image":
        out, channel, row, column = indices
        step, byte = divmod(channel, machine.image_channels)
        steps = -(-channels // machine.image_channels)
        at = (row * layer.kernel[1] + column) * steps + step
        word, position = divmod(at, machine.lanes // machine.image_channels)
        channel = word * machine.lanes + position * machine.image_channels + byte
        words = -(-layer.kernel[0] * layer.kernel[1] * steps // (machine.lanes // machine.image_channels))
        tap, taps, padded = 0, 1, words * machine.lanes
    else:
        out, channel, row, column = indices
        tap, taps = row * layer.kernel[1] + column, layer.kernel[0] * layer.kernel[1]
        padded = -(-channels // machine.channel_multiple) * machine.channel_multiple
    tile, column_of_tile = divmod(out, machine.columns)
    chunk, lane = divmod(channel, machine.bank_lanes)
    chunks = padded // machine.bank_lanes
    part, bit = divmod(lane * machine.columns + column_of_tile, machine.weight_port_bits)
    bundle, row_of_bundle = divmod((tap * chunks + chunk) * machine.unit_rows + part, 9)
    row_of_layer = tile * taps * chunks * machine.unit_rows + 9 * bundle + row_of_bundle
    if machine.weight_port_bits % 8 == 0:
        spare = machine.weight_port_bits // 8
        rows_of_tile = taps * chunks * machine.unit_rows
        if row_of_bundle == 8:
            row_of_bundle, bit = bit // spare, machine.weight_port_bits + bit % spare
        row_of_layer = tile * (rows_of_tile - rows_of_tile // 9) + 8 * bundle + row_of_bundle
    planes = program.weight_words[start + row_of_layer * layer.stored_bits :][: layer.stored_bits, bit]
    code = 0
    for plane in planes:
        code = code << 1 | int(plane)
    return code - (code >> layer.stored_bits - 1 << layer.stored_bits)


def test_weight_memory_holds_every_stored_code(program: Program) -> None:
    rng = np.random.default_rng(1)
    part = next(iter(program.assignments.values()))
    compared = 0
    for layer, fields in zip(program.network.layers, part.tiles, strict=True):
        if not isinstance(layer, Conv2d | Linear):
            continue
        for _ in range(200):
            indices = tuple(int(rng.integers(size)) for size in layer.codes.shape)
            assert stored_code(program, layer, indices, fields["weight_start"]) == layer.codes[indices]
            compared += 1
    assert compared == 200 * len(program.network.weight_layers)


def test_weight_padding_is_zero(program: Program) -> None:
    ones = sum(
        int((layer.codes.astype(np.int64)[..., None] >> np.arange(layer.stored_bits) & 1).sum())
        for layer in program.network.weight_layers
    )
    pools = {program.network.shape(layer.input)[0] for layer in program.network if isinstance(layer, AveragePool2d)}
    assert int(program.weight_words.sum()) == ones + sum(pools)


def live_ranges(program: Program, name: str, form: str) -> list[tuple[str, int, int, int, int]]:
    """Return (tensor, first word, words, made by, last read by) of every place of a form."""
    machine, network = program.machine, program.network
    order = {layer.name: index for index, layer in enumerate(network.layers)}
    ranges = []
    for tensor, place in program.assignments[name].places.items():
        channels, height, width = network.shape(tensor)
        readers = network.readers(tensor) if form == "code" else network.adders(tensor)
        if not readers:
            continue
        last = max(order[reader] for reader in readers)
        if form == "code":
            assert place.code_start is not None and place.code_start % machine.banks == 0
            first = place.code_start // machine.banks
            words = -(-height * place.pitch * place.units // machine.banks)
        else:
            assert place.skip_start is not None
            first = place.skip_start
            words = height * width * -(-channels // machine.requantizers)
        ranges.append((tensor, first, words, order[tensor], last))
    return ranges


@pytest.mark.parametrize("form", ["code", "skip"])
def test_tensors_that_live_together_do_not_overlap(program: Program, form: str) -> None:
    depth = program.machine.activation_words if form == "code" else program.machine.skip_words
    for name in program.assignments:
        ranges = live_ranges(program, name, form)
        for tensor, first, words, made, last in ranges:
            assert 0 <= first and first + words <= depth
            for other, other_first, other_words, other_made, other_last in ranges:
                if other != tensor and made <= other_last and other_made <= last:
                    older, newer = (other, tensor) if made > other_made else (tensor, other)
                    if form == "skip" and first == other_first and max(made, other_made) == min(last, other_last):
                        # The sum's skip code replaces the one that it adds, word by word.
                        assert getattr(program.network.layer(newer), "skip", None) == older and words == other_words
                        continue
                    if form == "code" and max(made, other_made) == min(last, other_last):
                        # A layer may write over what it reads for the last time, as the next test shows.
                        continue
                    assert first + words <= other_first or other_first + other_words <= first, (tensor, other)


def overwritten_reads(program: Program, name: str) -> tuple[int, int]:
    """Return (codes read that had been written over, tensors that begin within their layer's input) of one image.

    Strips are stored as early as the machine ever does: as soon as they have been read.
    """
    machine, network = program.machine, program.network
    part = program.assignments[name]
    owner = np.full((machine.activation_words * machine.banks, 4), -1)
    wrong = overlaps = 0

    def addresses(tensor: str, y: int, x: int) -> range:
        place = part.places[tensor]
        start = place.code_start + (y * place.pitch + x) * place.units
        return range(start, start + place.units)

    for number, layer in enumerate(network.layers):
        _, out_height, out_width = network.shape(layer.name)
        (kernel_height, kernel_width), stride, padding = window(network, layer)
        pools = isinstance(layer, MaxPool2d)
        tiles = 1 if pools else -(-layer_geometry(network, layer).output_channels // machine.columns)
        pixels = out_height * out_width
        strip = 1 if pools else machine.strip_pixels
        source = layer.input if layer.input != "image" else None
        if source is not None:
            _, height, width = network.shape(source)
            place, own = part.places[source], part.places[layer.name].code_start
            first, last = addresses(source, 0, 0)[0], addresses(source, height - 1, width - 1)[-1]
            end = None if own is None else addresses(layer.name, out_height - 1, out_width - 1)[-1]
            overlaps += own is not None and own <= last and first <= end and place.code_start is not None
        for start in [start for _ in range(tiles) for start in range(0, pixels, strip)]:
            strip_of = range(start, min(start + strip, pixels))
            for pixel in strip_of if source is not None else ():
                for tap in range(kernel_height * kernel_width):
                    y = pixel // out_width * stride + tap // kernel_width - padding
                    x = pixel % out_width * stride + tap % kernel_width - padding
                    if 0 <= y < height and 0 <= x < width:
                        made = list(network.layers).index(network.layer(source))
                        for unit, address in enumerate(addresses(source, y, x)):
                            wrong += tuple(owner[address]) != (made, y, x, unit)
            for pixel in strip_of if part.places[layer.name].code_start is not None else ():
                y, x = divmod(pixel, out_width)
                for unit, address in enumerate(addresses(layer.name, y, x)):
                    owner[address] = number, y, x, unit
    return wrong, overlaps


IN_PLACE = (
    Convolution(channels=8),
    Residual(channels=8),
    Convolution(channels=8, kernel=1),
    Residual(channels=16),
    AveragePool(),
)


def in_place_program() -> Program:
    network = random_network(2, CATALOG["8-4-2"], (3, 14, 11), IN_PLACE, classes=5)
    assignments = [*uniform_assignments(network), random_assignment(network, 2)]
    machine = Machine.sized(network.width_set, network.width_set, 16, 8, strip_pixels=16)
    return build(network, fit_machine(network, assignments, machine), assignments)


def test_no_code_is_read_after_it_was_written_over(program: Program) -> None:
    for name in program.assignments:
        assert overwritten_reads(program, name)[0] == 0


def test_tensors_are_written_in_place_of_what_they_are_made_from() -> None:
    program = in_place_program()
    for name in program.assignments:
        wrong, overlaps = overwritten_reads(program, name)
        assert (wrong, overlaps >= 3) == (0, True)


def test_a_lead_too_small_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    lead_of = tensor_places._lowest_lead

    def short_lead(*arguments: object) -> int | None:
        lead = lead_of(*arguments)  # type: ignore[arg-type]
        return lead if not lead else lead - 1

    monkeypatch.setattr(tensor_places, "_lowest_lead", short_lead)
    program = in_place_program()
    assert any(overwritten_reads(program, name)[0] for name in program.assignments)


@pytest.mark.parametrize("lanes", [4, 16, 64])
def test_units_of_a_step_lie_in_different_banks(lanes: int) -> None:
    program = varied_program(CATALOG["8-6-4-2"], lanes=lanes)
    machine, network = program.machine, program.network
    steps = 0
    for part in program.assignments.values():
        for layer in network:
            if isinstance(layer, MaxPool2d) or layer.input == "image":
                continue
            place = part.places[layer.input]
            units = input_units(machine, network, layer, part.assignment.activation_bits(layer.name))
            assert units == place.units
            (height, width), _, _ = window(network, layer)
            offsets = [
                (row * place.pitch + column) * units + unit
                for row in range(height)
                for column in range(width)
                for unit in range(units)
            ]
            for first in range(0, len(offsets), machine.banks):
                # Unit number v of the window must lie in the bank that position v of the array is rotated from.
                for number, offset in enumerate(offsets[first : first + machine.banks]):
                    assert offset % machine.banks == number
                steps += 1
    assert steps > 0


def test_codes_are_read_back_from_the_memory_as_documented(program: Program) -> None:
    machine, network = program.machine, program.network
    rng = np.random.default_rng(2)
    for part in program.assignments.values():
        for layer in network:
            place, shape = part.places[layer.name], network.shape(layer.name)
            if place.code_start is not None:
                bits = part.assignment.code_bits(layer.name)
                assert bits == place.code_bits and bits is not None
                codes = rng.integers(0, 1 << bits, shape).astype(np.uint8)
                memory = np.zeros((machine.activation_words, machine.activation_bits), np.uint8)
                for (channel, y, x), code in np.ndenumerate(codes):
                    write_code(machine, memory, place, bits, (channel, y, x), int(code))
                assert np.array_equal(read_codes(machine, memory, place, shape), codes)
            if place.skip_start is not None:
                low, high = network.skip_range(layer.name)
                skips = rng.integers(low, high + 1, shape).astype(np.int16)
                words = np.zeros((machine.skip_words, machine.requantizers), np.uint8)
                groups = -(-shape[0] // machine.requantizers)
                for (channel, y, x), code in np.ndenumerate(skips):
                    group, lane = divmod(channel, machine.requantizers)
                    words[place.skip_start + (y * shape[2] + x) * groups + group, lane] = int(code) & 255
                assert np.array_equal(read_skip_codes(words, place, shape, low < 0), skips)


def write_code(machine, memory, place, bits, position, code):  # type: ignore[no-untyped-def]
    """Put one code where the docstring of ``hwsim.machine`` says."""
    channel, y, x = position
    slot = max(spec.slot_bits(bits), machine.group_bits)
    unit, within = divmod(channel, machine.bank_lanes * (8 // slot))
    index, lane = divmod(within, machine.bank_lanes)
    address = place.code_start + (y * place.pitch + x) * place.units + unit
    word, bank = divmod(address, machine.banks)
    for bit in range(slot):
        group, bit_of_group = divmod(index * slot + bit, machine.group_bits)
        at = (group * machine.bank_lanes + lane) * machine.group_bits + bit_of_group
        memory[word, bank * machine.unit_bits + at] = code >> bit & 1


def test_load_stream_holds_every_memory(program: Program) -> None:
    machine = program.machine
    words = program.load_words()
    assert words.dtype == np.uint32
    record_words = {
        "weights": -(-machine.weight_word_bits // 32),
        "tables": machine.table_layout.load_words,
        "skip_tables": -(-machine.requantizer.skip_multiplier_bits // 32),
        "layers": 1,
        "tiles": machine.tiles_layout.load_words,
        "image": machine.image_layout.load_words,
    }
    names = {number: name for name, number in LOAD_TARGETS.items()}
    found: dict[str, list[int]] = {}
    position = 0
    while position < len(words):
        header, start = int(words[position]), int(words[position + 1])
        name, count = names[header >> 28], header & (1 << 28) - 1
        assert start == 0 and name not in found
        size = record_words[name]
        body = words[position + 2 : position + 2 + count * size].reshape(count, size)
        found[name] = [sum(int(word) << 32 * index for index, word in enumerate(record)) for record in body]
        position += 2 + count * size
    assert tuple(found["tables"]) == program.tables
    assert tuple(found["skip_tables"]) == program.skip_tables
    assert machine.image_layout.unpack(found["image"][0]) == program.image
    rows = [sum(int(bit) << index for index, bit in enumerate(row)) for row in program.weight_words]
    assert found["weights"] == rows
    layers = [dict(fields) for part in program.assignments.values() for fields in part.layers]
    size = machine.layer_layout.load_words
    records = np.array(found["layers"], dtype=object).reshape(-1, size)
    packed = [sum(int(word) << 32 * index for index, word in enumerate(record)) for record in records]
    assert [machine.layer_layout.unpack(record) for record in packed] == layers
    tiles = [dict(fields) for part in program.assignments.values() for fields in part.tiles]
    assert [machine.tiles_layout.unpack(record) for record in found["tiles"]] == tiles


def test_layer_integers_are_those_of_the_engine() -> None:
    program = varied_program(CATALOG["8-6-4-2"])
    for name, part in program.assignments.items():
        for layer in program.network.weight_layers:
            integers = program.layer_integers(layer.name, name)
            bits = part.assignment.weight_bits(layer.name)
            total = np.zeros(layer.codes.shape, np.int64)
            for position, plane in enumerate(integers.planes):
                sign = -1 if spec.plane_subtracts(bits, position) else 1
                total = 2 * total + sign * plane.astype(np.int64)
            assert np.array_equal(total, integers.weights)
            expected = [spec.switch(int(code), layer.stored_bits, bits) for code in layer.codes.reshape(-1)]
            assert integers.weights.reshape(-1).tolist() == expected
            assert integers.requantizers is part.requantizers[layer.name]
    with pytest.raises(ValueError, match="layer average1 has no weights"):
        program.layer_integers("average1", "W8A8")
    with pytest.raises(ValueError, match="the program has no assignment 'W5A5'; it has W8A8"):
        program.layer_integers("conv1", "W5A5")


@pytest.mark.parametrize("name", MEMORY_NAMES)
def test_a_memory_that_is_too_small_is_named_with_by_how_much(name: str) -> None:
    network = random_network(7, CATALOG["8-4"], (1, 8, 8), SMALL)
    assignments = uniform_assignments(network)
    machine = fit_machine(network, assignments, Machine.sized(network.width_set, network.width_set, 16, 8))
    need = requirements(network, machine, assignments)[name]
    if need == 1:
        pytest.skip("one word is the least a memory can have")
    build(network, dataclasses.replace(machine, **{name: need}), assignments)
    # The image ring is a power of two.
    have = need // 2 if name == "image_words" else need - 1
    told = f"the network needs {name} = {need}, the machine has {have}: {need - have} too few"
    with pytest.raises(ValueError, match=told):
        build(network, dataclasses.replace(machine, **{name: have}), assignments)


def test_what_the_machine_cannot_do_is_refused() -> None:
    network = random_network(7, CATALOG["8-6-4-2"], (1, 8, 8), SMALL)
    all_widths = [uniform_assignment(network, bits) for bits in network.width_set]
    machine = fit_machine(network, all_widths, Machine.sized(network.width_set, network.width_set, 16, 8))

    def refused(message: str, machine: Machine = machine, assignments: object = all_widths) -> None:
        with pytest.raises(ValueError, match=message):
            build(network, machine, assignments)  # type: ignore[arg-type]

    refused("a program must have at least one assignment", assignments=[])
    refused("must name each assignment once, not W8A8 twice", assignments=[all_widths[0], all_widths[0]])
    narrow = WidthSet((8, 4))
    refused(
        "W6A6, layer block1_a: .*weight width must be one of {8, 4}", dataclasses.replace(machine, weight_widths=narrow)
    )
    refused(
        "W6A6, layer block1_a: reads 6-bit activations, the machine has {8, 4}",
        dataclasses.replace(machine, activation_widths=narrow),
    )
    refused(
        "accumulators reach .* and need [0-9]+ bits, the machine has 14",
        dataclasses.replace(machine, accumulator_bits=14),
    )
    other = random_network(8, CATALOG["8-6-4-2"], (1, 8, 8), SMALL)
    refused("assignment W8A8 is of another network", assignments=[uniform_assignment(other, 8)])


def test_accumulators_are_as_wide_as_the_weights_need() -> None:
    widths = CATALOG["8-6-4-2"]
    network = random_network(1, widths, (1, 6, 6), (Convolution(channels=64), Convolution(channels=16, kernel=5)))
    sized = Machine.sized(widths, widths, 16, 8)
    found = {bits: fit_machine(network, [uniform_assignment(network, bits)], sized) for bits in widths}
    assert {bits: machine.accumulator_bits for bits, machine in found.items()} == {8: 25, 6: 24, 4: 24, 2: 24}
    everywhere = [uniform_assignment(network, bits) for bits in widths]
    assert fit_machine(network, everywhere, sized) == fit_machine(network, everywhere[::-1], sized)
    build(network, fit_machine(network, everywhere, sized), everywhere)
    with pytest.raises(ValueError, match=r"layer conv2: accumulators .* need 25 bits, the machine has 24"):
        build(network, dataclasses.replace(found[8], accumulator_bits=24), everywhere)
    wide = dataclasses.replace(sized, accumulator_bits=30)
    assert fit_machine(network, everywhere, wide).accumulator_bits == 30


def test_a_layer_that_switches_by_floor_reads_no_rounding_plane() -> None:
    network = random_network(7, CATALOG["8-6-4-2"], (1, 8, 8), SMALL)
    chosen = network.weight_layers[1].name
    layers = [dataclasses.replace(one, switch_rule="floor") if one.name == chosen else one for one in network]
    floors = dataclasses.replace(network, layers=tuple(layers))
    machine = Machine.sized(network.width_set, network.width_set, 16, 8)
    machine = fit_machine(network, [uniform_assignment(network, 8)], machine)
    for bits in network.width_set:
        found, other = (build(one, machine, [uniform_assignment(one, bits)]) for one in (floors, network))
        tiles = [one.assignments[f"W{bits}A{bits}"].tiles for one in (found, other)]
        for layer, mine, theirs in zip(network, *tiles, strict=True):
            if layer.name == chosen:
                assert (mine["planes_read"], mine["rounds"]) == (bits, 0)
                assert (theirs["planes_read"], theirs["rounds"]) == (min(bits + 1, 8), int(bits < 8))
            else:
                assert mine == theirs


def test_a_layer_too_large_for_the_descriptors_is_refused() -> None:
    widths = CATALOG["8"]
    network = random_network(1, widths, (1, 1040, 4), (Convolution(channels=4, kernel=1), AveragePool()))
    machine = Machine.sized(widths, widths, 4, 4)
    with pytest.raises(ValueError, match="layer conv1: input height must be at most 1023, not 1040"):
        build(network, machine, [uniform_assignment(network, 8)])


def test_bipolar_weights_need_full_units() -> None:
    widths = WidthSet((8, 1))
    network = random_network(1, widths, (1, 6, 6), (Convolution(channels=6), Convolution(channels=8), AveragePool()))
    assignment = uniform_assignment(network, 1)
    machine = fit_machine(network, [assignment], Machine.sized(widths, widths, 8, 8))
    # No word is shorter than that of one lane.
    with pytest.raises(ValueError, match="layer conv2: bipolar weights need input channels in a multiple of 8, not 6"):
        build(network, machine, [assignment])


@pytest.mark.parametrize(("channels", "banks"), [(32, 8), (16, 16), (8, 32), (24, 32), (48, 16)])
def test_a_machine_gets_the_fewest_banks_whose_words_bipolar_channels_fill(channels: int, banks: int) -> None:
    widths = WidthSet((2, 1))
    sketches = (Convolution(channels=channels), Convolution(channels=8), AveragePool())
    network = random_network(1, widths, (1, 6, 6), sketches)
    sized = Machine.sized(widths, widths, 32, 16)
    assert sized.banks == 8
    assignments = [uniform_assignment(network, bits) for bits in widths]
    machine = fit_machine(network, assignments, sized)
    build(network, machine, assignments)
    assert machine.banks == banks
    # The rest is as if so many banks had been asked for, and without bipolar weights nothing changes.
    assert machine == fit_machine(network, assignments, Machine.sized(widths, widths, 32, 16, banks=banks))
    assert fit_machine(network, assignments[:1], sized).banks == 8
    assert fit_machine(network, assignments, dataclasses.replace(sized, banks=32, weight_port_bits=16)).banks == 32


def test_more_banks_leave_no_more_requantizers_than_a_word_has_channels() -> None:
    wide, bipolar = WidthSet((8,)), WidthSet((8, 1))
    network = random_network(1, bipolar, (1, 6, 6), (Convolution(channels=6), Convolution(channels=8), AveragePool()))
    weights = {layer.name: 1 for layer in network.weight_layers}
    assignment = assignment_from_weights(network, "W1A8", weights, lambda tensor: 8)
    sized = Machine.sized(bipolar, wide, 16, 8)
    assert (sized.banks, sized.requantizers, sized.weight_port_bits) == (4, 4, 32)
    machine = fit_machine(network, [assignment], sized)
    build(network, machine, [assignment])
    assert (machine.banks, machine.requantizers, machine.weight_port_bits) == (8, 2, 16)


def plane_serial_extremes(weights: np.ndarray, bits: int, activations: np.ndarray) -> tuple[int, int]:
    """Return the lowest and highest value an accumulator takes on its way, one index at a time."""
    accumulator = low = high = 0
    for position in range(spec.planes_applied(bits)):
        for index, (weight, activation) in enumerate(zip(weights, activations, strict=True)):
            plane_sum = spec.plane_bit(int(weight), bits, position) * int(activation)
            subtracts = spec.plane_subtracts(bits, position)
            accumulator = spec.accumulate(accumulator, plane_sum, position > 0 and index == 0, subtracts)
            low, high = min(low, accumulator), max(high, accumulator)
    return low, high


@pytest.mark.parametrize("bits", range(1, 9))
def test_accumulators_never_leave_their_bound(bits: int) -> None:
    rng = np.random.default_rng(bits)
    reached = 0
    low_weight = spec.signed_low(bits) if bits > 1 else -1
    high_weight = spec.signed_high(bits) if bits > 1 else 1
    for case in range(300):
        weights = rng.integers(low_weight, high_weight + 1, 5)
        if case == 0:
            weights[:] = high_weight
        if bits == 1:
            weights[weights == 0] = -1
        activations = np.full(5, 255) if case == 0 else rng.choice([0, 255, int(rng.integers(256))], 5)
        low, high = accumulator_bound(weights.astype(np.int8).reshape(1, -1), bits, 8)
        seen_low, seen_high = plane_serial_extremes(weights, bits, activations)
        assert low <= seen_low and seen_high <= high
        reached += seen_high > 0.8 * high
    assert reached


def test_first_layer_is_laid_out_as_rows_of_lanes() -> None:
    network = random_network(3, CATALOG["8"], (3, 11, 9), VARIED, classes=7)
    geometry = layer_geometry(network, network.layers[0])
    assert (geometry.kernel, geometry.stride, geometry.padding) == ((1, 1), 1, 0)
    assert geometry.input_channels == 75


def test_a_window_of_more_units_than_are_counted_is_refused() -> None:
    widths = CATALOG["8-6-4-2"]
    network = random_network(3, widths, (1, 31, 31), (Convolution(channels=4, kernel=31, padding=0),), classes=2)
    machine = Machine.sized(widths, widths, 8, 4, banks=4)
    assert describe(network, machine, uniform_assignment(network, 8))
    with pytest.raises(
        ValueError, match="layer conv1: units of a pixel or image window must be at most 1023, not 1924"
    ):
        describe(network, dataclasses.replace(machine, image_channels=3), uniform_assignment(network, 8))
