"""The trained model that a network file was made from: what PyTorch computes, and on which images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.assignments import select_assignments
from hwsim.network import Assignment, Network
from hwsim.network_file import structure_of, tensors_of
from hwsim.requantize import LayerRequantizers, build_requantizers
from quant.checkpoint import load_checkpoint
from quant.data_sets import load_split
from quant.deploy import StoredTensors, deployed_forward, training_forward_codes
from quant.export import export_network
from quant.hot_swap import at_width
from quant.train import TrainingConfig


def provenance(checkpoint: Path, architecture: str) -> dict[str, str]:
    """Return what a network file says about the checkpoint it was exported from."""
    return {"architecture": architecture, "checkpoint": checkpoint.name, "checkpoint_sha256": _sha256(checkpoint)}


def find_checkpoint(network: Network, candidates: Sequence[Path]) -> Path:
    """Return the first candidate that is the checkpoint a network was exported from, by its checksum.

    Raises
    ------
    ValueError
        If none of them is; the message says whether there was another checkpoint instead.
    """
    expected = network.provenance.get("checkpoint_sha256")
    there = [path for path in candidates if path.is_file()]
    for path in there:
        if expected is None or _sha256(path) == expected:
            return path
    if there:
        raise ValueError(f"the network was made from another checkpoint than {' or '.join(map(str, there))}")
    looked = " nor ".join(dict.fromkeys(str(path) for path in candidates))
    raise ValueError(f"its checkpoint is not found as {looked}")


class Reference:
    """A trained model, the network that it exports, and the images that it was tested on.

    Parameters
    ----------
    checkpoint : Path
        As ``quant.train.train_network`` writes it.
    bits : int, optional
        The width that a model of hot-swap is switched to.
    data_path : str, optional
        Where its images are now, if not where the checkpoint says.

    Raises
    ------
    ValueError
        If the file is no checkpoint of this version.
    """

    def __init__(self, checkpoint: Path, bits: int | None = None, data_path: str | None = None) -> None:
        loaded = load_checkpoint(checkpoint)
        config = TrainingConfig.from_json(loaded.config)
        if data_path is not None:
            config = replace(config, data_path=data_path)
        split = load_split(config)
        self.model = loaded.model if bits is None else at_width(loaded.model, bits)
        self.network = export_network(self.model)
        self.images: NDArray[np.uint8] = split.test_images
        self.labels: NDArray[np.int64] = split.test_labels
        self.float_accuracy: float | None = loaded.results.get("float_accuracy")
        self._tables: dict[str, Mapping[str, LayerRequantizers]] = {}

    def assignment(self, name: str) -> Assignment:
        """Return the assignment of this name, of the network that the model exports."""
        (assignment,) = select_assignments(self.network, name)
        return assignment

    def deployed(
        self, network: Network, name: str, tables: Mapping[str, LayerRequantizers], images: NDArray[np.uint8]
    ) -> StoredTensors:
        """Return every stored tensor that PyTorch computes at the assignment of this name.

        With ``tables``, which are those of ``network``, if that is the network which the model exports; otherwise with
        the tables of the model's own network, so that every difference of the two shows.
        """
        assignment = self.assignment(name)
        if not self.equals(network):
            if name not in self._tables:
                self._tables[name] = build_requantizers(self.network, assignment)
            tables = self._tables[name]
        return deployed_forward(self.model, assignment, tables, images)

    def in_training(self, name: str, images: NDArray[np.uint8]) -> StoredTensors:
        """Return the codes that the float32 training-time forward would store at the assignment of this name."""
        return training_forward_codes(self.model, self.assignment(name), images)

    def equals(self, network: Network) -> bool:
        """Return whether a network is bit for bit the one that the model exports."""
        ours, theirs = tensors_of(self.network), tensors_of(network)
        return (
            structure_of(self.network) == structure_of(network)
            and set(ours) == set(theirs)
            and all(_same(ours[name], theirs[name]) for name in ours)
        )


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
