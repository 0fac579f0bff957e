"""The image loader against the windows of the first layer, at the pace of the stream and of its consumer."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from hwsim import spec
from hwsim.image_layout import image_fields, image_words_per_window
from hwsim.machine import Machine
from hwsim.network import IMAGE, Network, uniform_assignment
from hwsim.precision import CATALOG
from hwsim.program import fit_machine
from hwsim.random_network import AveragePool, Convolution, random_images, random_network
from hwsim.timing import image_interval_cycles, image_load_cycles
from rtl.image_loader import ImageLoader
from rtl.tests.mutation import mutant

WIDTHS = CATALOG["8"]
OVERWRITTEN = -2
CASES = {
    "digits": ((1, 8, 8), Convolution(channels=4)),
    "strided": ((3, 9, 7), Convolution(channels=4, kernel=5, stride=2)),
    "unpadded": ((2, 6, 6), Convolution(channels=4, kernel=3, padding=0)),
    "many channels": ((6, 5, 5), Convolution(channels=4, kernel=(3, 1), padding=0)),
    "pointwise": ((4, 3, 5), Convolution(channels=4, kernel=1, stride=3)),
}


def prepared(name: str, lanes: int) -> tuple[Network, Machine]:
    shape, convolution = CASES[name]
    network = random_network(1, WIDTHS, shape, (convolution, AveragePool()), classes=3)
    assignment = uniform_assignment(network, 8)
    return network, fit_machine(network, [assignment], Machine.sized(WIDTHS, WIDTHS, lanes, 4, strip_pixels=4))


def test_most_images_are_larger_than_their_ring() -> None:
    for lanes in (8, 16):
        larger = []
        for name in CASES:
            network, machine = prepared(name, lanes)
            geometry = image_fields(network, machine)
            larger.append(geometry["output_height"] * geometry["output_width"] > geometry["windows_held"])
        assert sum(larger) >= 3


def windows(network: Network, machine: Machine, image: np.ndarray) -> np.ndarray:
    """Return the lanes of every image word, shape (words, lanes); lanes without a tap are -1."""
    layer = network.layer(network.readers(IMAGE)[0])
    channels, height, width = image.shape
    _, out_height, out_width = network.shape(layer.name)
    steps = -(-channels // machine.image_channels)
    per_word = machine.lanes // machine.image_channels
    kernel_height, kernel_width = layer.kernel
    words = -(-kernel_height * kernel_width * steps // per_word)
    lanes = np.full((out_height * out_width * words, machine.lanes), -1)
    for pixel in range(out_height * out_width):
        for tap in range(kernel_height * kernel_width):
            y = pixel // out_width * layer.stride + tap // kernel_width - layer.padding
            x = pixel % out_width * layer.stride + tap % kernel_width - layer.padding
            for channel in range(channels):
                step, byte = divmod(channel, machine.image_channels)
                word, position = divmod(tap * steps + step, per_word)
                inside = 0 <= y < height and 0 <= x < width
                value = int(image[channel, y, x]) if inside else 0
                lanes[pixel * words + word, position * machine.image_channels + byte] = value
    return lanes


def lay_out(loader: ImageLoader, network: Network, machine: Machine, images: np.ndarray, pause: int = 200):  # type: ignore[no-untyped-def]
    """Return what is read of every image, shape (images, words, lanes), strip by strip, with pauses up to that long."""
    rng = random.Random(pause)
    ring = machine.image_words
    memory = np.full((ring, machine.lanes), -1)
    geometry = image_fields(network, machine)
    windows = geometry["output_height"] * geometry["output_width"]
    words_per_window = image_words_per_window(network, machine)
    seen = []

    async def source(ctx):  # type: ignore[no-untyped-def]
        for name, value in geometry.items():
            ctx.set(getattr(loader.geometry, name), value)
        for value in images.transpose(0, 2, 3, 1).reshape(-1):
            while rng.random() < 0.2:
                await ctx.tick()
            ctx.set(loader.i.payload, int(value))
            ctx.set(loader.i.valid, 1)
            await ctx.tick().until(loader.i.ready)
            ctx.set(loader.i.valid, 0)

    async def recorder(ctx):  # type: ignore[no-untyped-def]
        async for _, _, enable, address, data in ctx.tick().sample(
            loader.write_enable, loader.write_address, loader.write_data
        ):
            for lane in range(machine.lanes):
                if enable >> lane & 1:
                    memory[address, lane] = data >> 8 * lane & 255

    async def pulse(ctx, signal):  # type: ignore[no-untyped-def]
        ctx.set(signal, 1)
        await ctx.tick()
        ctx.set(signal, 0)

    async def consumer(ctx):  # type: ignore[no-untyped-def]
        for _ in images:
            *_, base = await ctx.tick().sample(loader.base).until(loader.image_ready)
            for _ in range(rng.randrange(pause + 1)):
                await ctx.tick()
            await pulse(ctx, loader.image_start)
            read = []
            for first in range(0, windows, machine.strip_pixels):
                pixels = min(machine.strip_pixels, windows - first)
                words = np.arange(first * words_per_window, (first + pixels) * words_per_window) + base
                read.append(memory[words % ring])
                delay = rng.choice((0, 0, rng.randrange(pause // 2 + 1)))
                # The array takes at least this long for a strip, see hwsim.image_ring, and reads it to the end.
                for _ in range(machine.strip_pixels * words_per_window * spec.MAX_BITS + delay):
                    await ctx.tick()
                if not np.array_equal(memory[words % ring], read[-1]):
                    read[-1][:] = OVERWRITTEN
                ctx.set(loader.strip_pixels, pixels)
                await pulse(ctx, loader.strip_release)
            seen.append(np.concatenate(read))
            for _ in range(rng.randrange(pause + 1)):
                await ctx.tick()
            await pulse(ctx, loader.image_release)

    simulator = Simulator(loader)
    simulator.add_clock(1e-6)
    simulator.add_testbench(source)
    simulator.add_testbench(recorder, background=True)
    simulator.add_testbench(consumer)
    simulator.run()
    assert len(seen) == len(images)
    return np.array(seen)


@pytest.mark.parametrize("lanes", [8, 16])
@pytest.mark.parametrize("name", CASES)
def test_windows_are_laid_out(name: str, lanes: int) -> None:
    network, machine = prepared(name, lanes)
    images = random_images(network.image_shape, 5, 4)
    found = lay_out(ImageLoader(machine), network, machine, images)
    compared = 0
    for image, memory in zip(images, found, strict=True):
        expected = windows(network, machine, image)
        used = expected >= 0
        assert np.array_equal(memory[: len(expected)][used], expected[used])
        compared += int(used.sum())
    assert compared > 0


@pytest.mark.parametrize("name", CASES)
def test_an_image_takes_the_predicted_cycles(name: str) -> None:
    network, machine = prepared(name, 8)
    geometry = image_fields(network, machine)
    loader = ImageLoader(machine)
    image = random_images(network.image_shape, 1, 3).transpose(0, 2, 3, 1).reshape(-1)
    ready_after = []

    async def source(ctx):  # type: ignore[no-untyped-def]
        for field, value in geometry.items():
            ctx.set(getattr(loader.geometry, field), value)
        await ctx.tick().repeat(2)
        for value in image:
            ctx.set(loader.i.payload, int(value))
            ctx.set(loader.i.valid, 1)
            assert ctx.get(loader.i.ready)
            await ctx.tick()
        ctx.set(loader.i.valid, 0)

    async def watch(ctx):  # type: ignore[no-untyped-def]
        cycles = 0
        await ctx.tick().repeat(2)
        while not ctx.get(loader.image_ready):
            await ctx.tick()
            cycles += 1
        ready_after.append(cycles)

    simulator = Simulator(loader)
    simulator.add_clock(1e-6)
    simulator.add_testbench(source)
    simulator.add_testbench(watch)
    simulator.run()
    assert ready_after == [image_load_cycles(machine, geometry)]


@pytest.mark.parametrize("name", CASES)
def test_images_follow_each_other_in_the_predicted_cycles(name: str) -> None:
    network, fitted = prepared(name, 16)
    machine = dataclasses.replace(fitted, image_words=1024)
    geometry = image_fields(network, machine)
    loader = ImageLoader(machine)
    images = random_images(network.image_shape, 5, 3)
    writes = []

    async def source(ctx):  # type: ignore[no-untyped-def]
        for field, value in geometry.items():
            ctx.set(getattr(loader.geometry, field), value)
        ctx.set(loader.i.valid, 1)
        for value in images.transpose(0, 2, 3, 1).reshape(-1):
            ctx.set(loader.i.payload, int(value))
            await ctx.tick().until(loader.i.ready)
        ctx.set(loader.i.valid, 0)
        await ctx.tick().repeat(2 * image_interval_cycles(geometry))

    async def recorder(ctx):  # type: ignore[no-untyped-def]
        cycle = 0
        async for _, _, enable in ctx.tick().sample(loader.write_enable):
            cycle += 1
            if enable:
                writes.append(cycle)

    simulator = Simulator(loader)
    simulator.add_clock(1e-6)
    simulator.add_testbench(source)
    simulator.add_testbench(recorder, background=True)
    simulator.run()
    last = np.array(writes).reshape(len(images), -1)[:, -1]
    # The first image is laid out as it comes, and the second one may still wait for that.
    assert np.diff(last)[2:].tolist() == [image_interval_cycles(geometry)] * 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Mux(controls[1], raw.read_data, 0)", "raw.read_data"),
        ("taken != geometry.windows_held", "taken != geometry.windows_held + 1"),
        ("self.base.eq(self.base + geometry.words)", "self.base.eq(self.base)"),
        ("laid >= geometry.windows_lead", "laid >= 0"),
        ("Cat(raw_address, receive_half)", "Cat(raw_address, layout_half)"),
    ],
)
def test_a_mutant_is_caught(old: str, new: str) -> None:
    wrong = mutant(ImageLoader, old, new)
    caught = 0
    for name, lanes, pause in (("strided", 8, 200), ("digits", 16, 0)):
        network, machine = prepared(name, lanes)
        images = random_images(network.image_shape, 3, 2)
        found = lay_out(wrong(machine), network, machine, images, pause)
        for image, there in zip(images, found, strict=True):
            expected = windows(network, machine, image)
            caught += not np.array_equal(there[expected >= 0], expected[expected >= 0])
    assert caught
