"""How images are laid out for the first layer: the ring of windows, and the image loader's record."""

from __future__ import annotations

from hwsim import spec
from hwsim.image_ring import lead_windows
from hwsim.layer_geometry import image_steps, layer_geometry, padded_channels, tile_count, window
from hwsim.machine import Machine, bits_for
from hwsim.network import IMAGE, Network


def image_words_per_window(network: Network, machine: Machine) -> int:
    """Return the image words that the window of one output pixel takes."""
    return padded_channels(machine, network, network.layer(network.readers(IMAGE)[0])) // machine.lanes


def image_lead(network: Network, machine: Machine, ring_words: int) -> int | None:
    """Return the windows to lay out before the first layer may begin, or None if a ring of that size is too small.

    Layers of several tiles read the image several times; then, and if several layers read it, all of it must be there.
    """
    readers = [network.layer(name) for name in network.readers(IMAGE)]
    first = readers[0]
    geometry = layer_geometry(network, first)
    kernel, _, _ = window(network, first)
    words = image_words_per_window(network, machine)
    windows = geometry.output_pixels
    if len(readers) > 1 or tile_count(machine, geometry) > 1:
        return windows if windows * words <= ring_words else None
    passes = len(machine.planes_of_passes(spec.MAX_BITS, spec.MAX_BITS)) * words
    return lead_windows(
        windows=windows,
        row_windows=geometry.output_width,
        window_cycles=kernel[0] * kernel[1] * image_steps(network, machine),
        strip_pixels=machine.strip_pixels,
        strip_cycles=machine.strip_pixels * passes,
        capacity=ring_words // words,
    )


def image_ring_words(network: Network, machine: Machine) -> int:
    """Return the depth of the smallest ring that serves a network's images, a power of two."""
    ring_words = 2
    while image_lead(network, machine, ring_words) is None:
        ring_words *= 2
    return ring_words


def image_fields(network: Network, machine: Machine) -> dict[str, int]:
    """Return the geometry record for the image loader and the result buffer.

    Raises
    ------
    ValueError
        If the image memory is too small for the network.
    """
    first = network.layer(network.readers(IMAGE)[0])
    kernel, stride, padding = window(network, first)
    channels, height, width = network.image_shape
    _, out_height, out_width = network.shape(first.name)
    steps = image_steps(network, machine)
    window_words = image_words_per_window(network, machine)
    lead = image_lead(network, machine, machine.image_words)
    if lead is None:
        need = image_ring_words(network, machine)
        raise ValueError(f"the network needs image_words = {need}, the machine has {machine.image_words}")
    address_mask = (1 << bits_for(machine.raw_image_words - 1)) - 1
    return {
        "channels": channels,
        "height": height,
        "width": width,
        "output_height": out_height,
        "output_width": out_width,
        "kernel_height": kernel[0],
        "kernel_width": kernel[1],
        "stride": stride,
        "padding": padding,
        "steps": steps,
        "start": -padding * (width + 1) * steps & address_mask,
        "row_step": width * steps & address_mask,
        "window_step": stride * steps & address_mask,
        "window_row_step": stride * width * steps & address_mask,
        "image_bytes": channels * height * width,
        "words": out_height * out_width * window_words & machine.image_words - 1,
        "windows_held": machine.image_words // window_words,
        "windows_lead": lead,
        "classes": network.classes,
    }
