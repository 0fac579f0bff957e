"""The image loader against the windows of the first layer, at the pace of the stream and of its consumer."""

from __future__ import annotations

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from hwsim.machine import Machine
from hwsim.network import IMAGE, Network, uniform_assignment
from hwsim.precision import CATALOG
from hwsim.program import build, fit_machine
from hwsim.random_network import AveragePool, Convolution, random_images, random_network
from hwsim.timing import image_load_cycles
from rtl.image_loader import ImageLoader
from rtl.tests.mutation import mutant

WIDTHS = CATALOG["8"]
CASES = {
    "digits": ((1, 8, 8), Convolution(channels=4)),
    "strided": ((3, 9, 7), Convolution(channels=4, kernel=5, stride=2)),
    "unpadded": ((2, 6, 6), Convolution(channels=4, kernel=3, padding=0)),
    "many channels": ((6, 5, 5), Convolution(channels=4, kernel=(3, 1), padding=0)),
    "pointwise": ((4, 3, 5), Convolution(channels=4, kernel=1, stride=3)),
}


def prepared(name: str, lanes: int) -> tuple[Network, Machine, dict[str, int]]:
    shape, convolution = CASES[name]
    network = random_network(1, WIDTHS, shape, (convolution, AveragePool()), classes=3)
    assignment = uniform_assignment(network, 8)
    machine = fit_machine(network, [assignment], Machine.sized(WIDTHS, WIDTHS, lanes, 4))
    return network, machine, dict(build(network, machine, [assignment]).image)


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


def lay_out(loader: ImageLoader, machine: Machine, geometry: dict[str, int], images: np.ndarray, seed: int):  # type: ignore[no-untyped-def]
    """Return what is in the image memory whenever an image is released, shape (images, words, lanes)."""
    rng = random.Random(seed)
    memory = np.full((2 * machine.image_words, machine.lanes), -1)
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

    async def consumer(ctx):  # type: ignore[no-untyped-def]
        for _ in images:
            *_, half = await ctx.tick().sample(loader.half).until(loader.image_ready)
            for _ in range(rng.randrange(200)):
                await ctx.tick()
            assert ctx.get(loader.image_ready)
            start = half * machine.image_words
            seen.append(memory[start : start + machine.image_words].copy())
            ctx.set(loader.image_release, 1)
            await ctx.tick()
            ctx.set(loader.image_release, 0)

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
    network, machine, geometry = prepared(name, lanes)
    images = random_images(network.image_shape, 5, 2)
    found = lay_out(ImageLoader(machine), machine, geometry, images, seed=lanes)
    compared = 0
    for image, memory in zip(images, found, strict=True):
        expected = windows(network, machine, image)
        used = expected >= 0
        assert np.array_equal(memory[: len(expected)][used], expected[used])
        compared += int(used.sum())
    assert compared > 0


@pytest.mark.parametrize("name", CASES)
def test_an_image_takes_the_predicted_cycles(name: str) -> None:
    network, machine, geometry = prepared(name, 8)
    loader = ImageLoader(machine)
    image = random_images(network.image_shape, 1, 3).transpose(0, 2, 3, 1).reshape(-1)
    ready_after = []

    async def source(ctx):  # type: ignore[no-untyped-def]
        for field, value in geometry.items():
            ctx.set(getattr(loader.geometry, field), value)
        for value in image:
            ctx.set(loader.i.payload, int(value))
            ctx.set(loader.i.valid, 1)
            assert ctx.get(loader.i.ready)
            await ctx.tick()
        ctx.set(loader.i.valid, 0)

    async def watch(ctx):  # type: ignore[no-untyped-def]
        cycles = 0
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


def test_a_mutant_is_caught() -> None:
    network, machine, geometry = prepared("strided", 8)
    images = random_images(network.image_shape, 3, 2)
    wrong = mutant(ImageLoader, "Mux(controls[1], raw.read_data, 0)", "raw.read_data")
    found = lay_out(wrong(machine), machine, geometry, images, seed=1)
    expected = windows(network, machine, images[0])
    used = expected >= 0
    assert not np.array_equal(found[0][: len(expected)][used], expected[used])
