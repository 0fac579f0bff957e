"""Trained networks that come with the package, in ``sim_tests/networks``, and what each says about itself.

A network's provenance has, besides its training: ``images``, the file of stored test images, ``images_sha256``, and
``measured``, JSON of {assignment: {"accuracy": percent of all test images, "correct": of the stored images,
"tensors_sha256": {"conv1 code": SHA-256}, of every stored tensor of all stored images}}. What is said of the stored
images is what PyTorch computed from the trained checkpoint, so that it stands in for a checkpoint that is not there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim import engine
from hwsim.network import Assignment, Network
from hwsim.requantize import LayerRequantizers

NETWORKS = Path(__file__).resolve().parent / "networks"
README = NETWORKS / "README.md"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def network_files(folder: Path = NETWORKS) -> list[Path]:
    """Return the network files of the folder, by name."""
    return sorted(folder.glob("*.safetensors"))


def listed_checksums(readme: Path = README) -> dict[str, str]:
    """Return the SHA-256 of every file that the table in README.md lists, by name."""
    cells = [line.strip("| ").split(" | ") for line in readme.read_text().splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[-1].strip("`") for row in cells}


def stored_images(network: Network, folder: Path = NETWORKS) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the test images that come with a network, uint8 (n, channels, height, width), and their labels.

    Raises
    ------
    ValueError
        If the file is not the one that the network was measured on.
    """
    path = folder / network.provenance["images"]
    if sha256_of(path) != network.provenance["images_sha256"]:
        raise ValueError(f"{path.name} holds other images than the network was measured on")
    with np.load(path) as content:
        return content["images"], content["labels"]


def claims(network: Network) -> Mapping[str, Mapping[str, Any]]:
    """Return what a network says was measured, by assignment."""
    return json.loads(network.provenance["measured"])  # type: ignore[no-any-return]


def describe(stored: Mapping[tuple[str, str], NDArray[Any]], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Return what is recorded of a forward pass: ``correct`` and ``tensors_sha256``.

    Parameters
    ----------
    stored : mapping of (tensor, form) to ndarray of integers of at most 32 bits, shape (n, c, h, w)
        In network order, with ``logits``, as ``engine.run`` returns them; the dtypes do not matter.
    labels : ndarray of int64, shape (n,)
    """
    (logits,) = (codes for (_, form), codes in stored.items() if form == "logits")
    return {
        "correct": int((engine.classify(logits.reshape(len(labels), -1)) == labels).sum()),
        "tensors_sha256": {f"{tensor} {form}": _sha256_of_codes(codes) for (tensor, form), codes in stored.items()},
    }


def _sha256_of_codes(codes: NDArray[Any]) -> str:
    digest = hashlib.sha256(f"{codes.shape} ".encode())
    digest.update(np.ascontiguousarray(codes.astype("<i4", casting="safe")).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class RecordedComparison:
    """The integer model on all stored images, against what is recorded of them.

    Parameters
    ----------
    assignment : str
    images, codes_compared : int
    tensors_compared : int
        At least 1.
    differing : tuple of (tensor, form)
        Stored tensors with another SHA-256 than the recorded one, in network order.
    correct, correct_recorded : int
        Images classified right.
    """

    assignment: str
    images: int
    codes_compared: int
    tensors_compared: int
    differing: tuple[tuple[str, str], ...]
    correct: int
    correct_recorded: int

    def __post_init__(self) -> None:
        if self.tensors_compared < 1:
            raise ValueError(f"{self.assignment}: nothing was compared")

    @property
    def equal(self) -> bool:
        """Whether everything is as recorded."""
        return not self.differing and self.correct == self.correct_recorded


def compare_with_recorded(
    assignment: Assignment,
    requantizers: Mapping[str, LayerRequantizers],
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
) -> RecordedComparison:
    """Run the integer model on all stored images, and compare it with what the network says was computed of them.

    Raises
    ------
    ValueError
        If nothing is recorded of the assignment, or not the tensors that it stores.
    """
    name, network = assignment.name, assignment.network
    said = claims(network)
    if name not in said:
        raise ValueError(f"the file records nothing of {name}, only of {', '.join(said)}")
    stored = engine.run(network, assignment, requantizers, images)
    found = describe(stored, labels)
    expected = said[name].get("tensors_sha256", {})
    if list(expected) != list(found["tensors_sha256"]):
        raise ValueError(f"the file does not record the tensors of {name}; benchmarks/ship_network.py makes it again")
    return RecordedComparison(
        assignment=name,
        images=len(images),
        codes_compared=sum(codes.size for codes in stored.values()),
        tensors_compared=len(stored),
        differing=tuple(
            (tensor, form)
            for tensor, form in stored
            if found["tensors_sha256"][f"{tensor} {form}"] != expected[f"{tensor} {form}"]
        ),
        correct=found["correct"],
        correct_recorded=said[name]["correct"],
    )
