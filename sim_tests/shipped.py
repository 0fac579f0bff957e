"""Trained networks that come with the package, in ``sim_tests/networks``, and what each says about itself.

A network's provenance has, besides its training: ``images``, the file of stored test images, ``images_sha256``, and
``measured``, JSON of {assignment: {"accuracy": percent of all test images, "correct": of the stored images,
"codes_sha256": of every stored tensor of the first stored images}}.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim import engine
from hwsim.assignments import select_assignments
from hwsim.network import Network
from hwsim.requantize import build_requantizers

NETWORKS = Path(__file__).resolve().parent / "networks"
README = NETWORKS / "README.md"
HASHED_IMAGES = 4


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


def measure(network: Network, name: str, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Return ``correct`` and ``codes_sha256`` of the integer model at the assignment called ``name``."""
    (assignment,) = select_assignments(network, name)
    tables = build_requantizers(network, assignment)
    logits = engine.logits(network, assignment, tables, images)
    correct = int((engine.classify(logits.reshape(len(images), -1)) == labels).sum())
    digest = hashlib.sha256()
    for (tensor, form), codes in engine.run(network, assignment, tables, images[:HASHED_IMAGES]).items():
        digest.update(f"{tensor} {form} {codes.dtype} {codes.shape}".encode())
        digest.update(np.ascontiguousarray(codes).astype(codes.dtype.newbyteorder("<")).tobytes())
    return {"correct": correct, "codes_sha256": digest.hexdigest()}
