"""From the recorded writes of the accelerator to the tensors it stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hwsim import spec
from hwsim.machine import Machine
from hwsim.network import Network
from hwsim.program import AssignmentProgram
from hwsim.tensor_places import read_codes, read_skip_codes
from sim_tests import packing

Records = Mapping[str, np.ndarray]
Stored = dict[tuple[str, str], np.ndarray]


class TraceError(AssertionError):
    """The hardware did not do what its program says: wrong layers, or a stored form that was not written."""


@dataclass(frozen=True)
class LayerRun:
    """One layer of one image, as the hardware ran it.

    Parameters
    ----------
    layer : str
    cycles : int
        Machine cycles from the end of the layer before (or from the image's start) to the end of this one.
    stored : dict of (tensor, form) to ndarray, shape (c, h, w)
        Codes (uint8) and skip codes (int16) that it wrote.
    """

    layer: str
    cycles: int
    stored: Stored


class MemoryReplay:
    """Activation and skip memory, rebuilt from their recorded writes.

    Parameters
    ----------
    machine : Machine
    code, skip : mapping of str to ndarray
        Decoded recordings of the two memories' write ports.
    """

    def __init__(self, machine: Machine, code: Records, skip: Records) -> None:
        self._machine = machine
        self._granules_per_bank = machine.groups * machine.lane_runs
        granules = machine.banks * self._granules_per_bank
        granule_bits = machine.activation_bits // granules
        self._code_cycle, self._skip_cycle = code["cycle"], skip["cycle"]
        self._code_address = packing.unpack(code["trace_code_address"], machine.word_address_bits, machine.banks)
        self._skip_address = skip["trace_skip_address"]
        enable = packing.unpack(code["trace_code_enable"], 1, granules)
        bits = packing.unpack(code["trace_code_data"], 1, machine.activation_bits).astype(np.uint8)
        self._code_enable = enable.astype(bool)
        self._code_bits = bits.reshape(-1, granules, granule_bits)
        self._skip_codes = packing.unpack(skip["trace_skip_data"], spec.SKIP_BITS, machine.requantizers).astype(
            np.uint8
        )
        self._codes = np.zeros((machine.activation_words, granules, granule_bits), dtype=np.uint8)
        self._skips = np.zeros((machine.skip_words, machine.requantizers), dtype=np.uint8)

    def layer(self, network: Network, part: AssignmentProgram, name: str, first: int, last: int) -> Stored:
        """Apply the writes of cycles ``first .. last``, and return the stored forms of layer ``name``.

        Raises
        ------
        TraceError
            If a bit of a stored form was not written in these cycles.
        """
        codes_written = self._apply_codes(first, last)
        skips_written = self._apply_skips(first, last)
        place, shape = part.places[name], network.shape(name)
        words = self._machine.activation_words
        stored: Stored = {}
        if place.code_start is not None:
            stored[name, "code"] = read_codes(self._machine, self._codes.reshape(words, -1), place, shape)
            written = read_codes(self._machine, codes_written.reshape(words, -1), place, shape)
            slot = self._machine.group_bits << self._machine.slot_index(place.code_bits or spec.MAX_BITS)
            _check_written(written == spec.unsigned_high(slot), part, name, "code")
        if place.skip_start is not None:
            signed = network.skip_range(name)[0] < 0
            stored[name, "skip"] = read_skip_codes(self._skips, place, shape, signed)
            _check_written(read_skip_codes(skips_written, place, shape, False) == 1, part, name, "skip")
        return stored

    def _apply_codes(self, first: int, last: int) -> np.ndarray:
        here = slice(*np.searchsorted(self._code_cycle, (first, last + 1)))
        records, granules = np.nonzero(self._code_enable[here])
        addresses = self._code_address[here][records, granules // self._granules_per_bank]
        written = np.zeros_like(self._codes)
        self._codes[addresses, granules] = self._code_bits[here][records, granules]
        written[addresses, granules] = 1
        return written

    def _apply_skips(self, first: int, last: int) -> np.ndarray:
        here = slice(*np.searchsorted(self._skip_cycle, (first, last + 1)))
        written = np.zeros_like(self._skips)
        self._skips[self._skip_address[here]] = self._skip_codes[here]
        written[self._skip_address[here]] = 1
        return written


def _check_written(written: np.ndarray, part: AssignmentProgram, name: str, form: str) -> None:
    if not written.all():
        raise TraceError(
            f"assignment {part.assignment.name}, layer {name}: {int((~written).sum())} of {written.size} values of its "
            f"{form} were never written"
        )


def layer_runs(
    network: Network, part: AssignmentProgram, replay: MemoryReplay, done: Records, start_cycle: int
) -> list[LayerRun]:
    """Return the layers of one image in order.

    Parameters
    ----------
    network : Network
    part : AssignmentProgram
    replay : MemoryReplay
    done : mapping of str to ndarray, shape (layers,)
        The image's own records of layers done.
    start_cycle : int
        First cycle whose writes may belong to the image.

    Raises
    ------
    TraceError
        If other layers were run than those of the assignment, or a stored form was not written.
    """
    names = [layer.name for layer in network]
    slots = done["trace_layer_slot"].tolist()
    if slots != [part.slot + index for index in range(len(names))]:
        raise TraceError(f"assignment {part.assignment.name}: the layers at slots {slots} were run")
    runs, first, before = [], start_cycle, 0
    # While the last cycle of a layer lasts, the machine's counter does not have it yet.
    counted = (done["cycles"] + 1).tolist()
    for name, cycle, cycles in zip(names, done["cycle"].tolist(), counted, strict=True):
        runs.append(LayerRun(name, cycles - before, replay.layer(network, part, name, first, cycle)))
        first, before = cycle + 1, cycles
    return runs
