"""Which proof covers which stream, queue and memory port of the board's design.

A test walks the design and fails if one is missing here. Memories of which every address is in range by their
construction, because their words are a power of two, need no proof: the test looks at the depths instead.

Not covered: the feeder's walk through a tile with the DSP datapath, which simulation alone tests, and what lies outside
the sizes that a proof's claim names.

What proofs take for granted is proved of the other side: a bench with a unit cut assumes what its own proofs say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BY_CONSTRUCTION = "by construction"
"""Instead of a proof's name: there are as many words as addresses."""

STREAMS: Mapping[str, str] = {
    "FrameReceiver.o": "board.receiver_keeps_rules",
    "FrameTransmitter.o": "board.transmitter_keeps_rules",
    "HostLink.o": "board.link_keeps_rules",
    "HostLink.control.aw": "board.link_keeps_rules",
    "HostLink.control.w": "board.link_keeps_rules",
    "HostLink.control.ar": "board.link_keeps_rules",
    "HostLink.load.t": "board.link_keeps_rules",
    "HostLink.image.t": "board.link_keeps_rules",
    "RegisterFile.bus.b": "bus.register_file_keeps_rules",
    "RegisterFile.bus.r": "bus.register_file_keeps_rules",
    "AxiAccelerator.control.b": "bus.register_file_keeps_rules",
    "AxiAccelerator.control.r": "bus.register_file_keeps_rules",
    "AxiAccelerator.commands": "bus.accelerator_keeps_queues",
    "AxiAccelerator.result.t": "bus.accelerator_keeps_queues",
    "ImageUnpacker.o": "bus.image_unpacker_keeps_rules",
    "Accelerator.result": "result_buffer.keeps_rules",
    "ResultBuffer.o": "result_buffer.keeps_rules",
}
"""Sender and stream -> proof of its rule. ``HostLink`` withdraws words that the machine does not take in time."""


@dataclass(frozen=True)
class Ports:
    """Which proofs keep the addresses of a memory in range.

    Parameters
    ----------
    write, read : tuple of str
        Proofs of what drives the port, or ``BY_CONSTRUCTION``.
    """

    write: tuple[str, ...]
    read: tuple[str, ...]


NEEDS_NONE = Ports((BY_CONSTRUCTION,), (BY_CONSTRUCTION,))
LOADED = ("load_port.addresses_in_range",)

MEMORIES: Mapping[str, Ports] = {
    "FrameReceiver.store": Ports(("board.receiver_keeps_rules",), ("board.receiver_keeps_rules",)),
    "FrameTransmitter.store": Ports(
        ("board.transmitter_keeps_rules", "board.link_keeps_rules"), ("board.transmitter_keeps_rules",)
    ),
    "AxiAccelerator.commands": Ports(("bus.accelerator_keeps_queues",), ("bus.accelerator_keeps_queues",)),
    "WeightSwitch.buffers": NEEDS_NONE,
    "WeightLoader.ninth": NEEDS_NONE,
    "Accelerator.weight_memory": Ports(LOADED, ("weight_loader.reads_in_range",)),
    "Accelerator.tile_memory": Ports(LOADED, ("weight_loader.reads_in_range",)),
    "Accelerator.staging_memory": Ports(("weight_loader.keeps_halves",), ("weight_feeder.reads_in_range",)),
    "Accelerator.layer_memory": Ports(LOADED, ("sequencer.addresses_in_range",)),
    "Accelerator.table_memory": Ports(LOADED, ("drain.addresses_in_range",)),
    "Accelerator.skip_table_memory": Ports(LOADED, ("drain.addresses_in_range",)),
    "Accelerator.activation_memory": Ports(
        ("drain.addresses_in_range", "max_pool.addresses_in_range"),
        ("weight_feeder.notes_units", "activation_streamer.reads_in_range", "max_pool.addresses_in_range"),
    ),
    "Accelerator.skip_memory": Ports(("drain.addresses_in_range",), ("drain.addresses_in_range",)),
    "Accelerator.image_memory": NEEDS_NONE,
    "ImageLoader.raw": NEEDS_NONE,
    "Accumulator.stored": NEEDS_NONE,
    "Accumulator.drained": NEEDS_NONE,
    "ResultBuffer.memory": Ports(
        ("drain.addresses_in_range", "result_buffer.keeps_rules"), ("result_buffer.keeps_rules",)
    ),
}
"""Owner and memory -> proofs of its addresses. Of several alike, as banks are, the name has no number."""
