"""CIFAR-10 (Krizhevsky, 2009) from its published binary archive: downloaded once, checked, read without unpacking."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from quant.data import Split
from quant.tar_archive import files_of

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CHECKSUM = "md5:c32a1d4ab5d03f1284b67883e8d87530"
"""As published beside the archive."""

TRAIN_MEMBERS = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_MEMBERS = ("test_batch.bin",)
IMAGE_SHAPE = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32
CLASSES = 10


def download(progress: bool = True) -> Path:
    """Return the archive in the user's cache folder, downloading it (162 MiB) if it is not there.

    Raises
    ------
    ValueError
        If what was downloaded does not have the published checksum.
    OSError
        If it cannot be downloaded.
    """
    import pooch

    path = pooch.retrieve(
        URL,
        known_hash=CHECKSUM,
        fname="cifar-10-binary.tar.gz",
        path=pooch.os_cache("bitswitch"),
        progressbar=progress,
    )
    return Path(path)


def load_cifar10(path: Path) -> Split:
    """Return CIFAR-10: 50,000 images to train on and 10,000 to test on, uint8 of shape (n, 3, 32, 32).

    Parameters
    ----------
    path : Path
        The binary archive, or a folder with its ``.bin`` files.

    Raises
    ------
    ValueError
        If there is no such file, it is damaged, or a file of it is missing or not made of records of 3,073 bytes.
    """
    train, test = _read(Path(path), TRAIN_MEMBERS), _read(Path(path), TEST_MEMBERS)
    return Split(
        train_images=train[0],
        train_labels=train[1],
        test_images=test[0],
        test_labels=test[1],
        test_indices=np.arange(len(train[1]), len(train[1]) + len(test[1])),
    )


def _read(path: Path, members: tuple[str, ...]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if path.is_dir():
        found = {file.name: file.read_bytes() for file in sorted(path.rglob("*.bin")) if file.name in members}
    elif path.is_file():
        wanted = files_of(path, lambda name: PurePosixPath(name).name in members)
        found = {PurePosixPath(name).name: content for name, content in wanted}
    else:
        raise ValueError(f"{path} is neither the CIFAR-10 binary archive nor a folder of its files")
    records = []
    for member in members:
        if member not in found:
            raise ValueError(f"{path} has no file {member}, so it is not CIFAR-10 in its binary form")
        if not found[member] or len(found[member]) % RECORD_BYTES:
            raise ValueError(
                f"{path}: {member} must be records of {RECORD_BYTES} bytes, and has {len(found[member])} bytes"
            )
        records.append(np.frombuffer(found[member], np.uint8).reshape(-1, RECORD_BYTES))
    joined = np.concatenate(records)
    labels = joined[:, 0].astype(np.int64)
    if labels.max() >= CLASSES:
        raise ValueError(f"{path}: classes must be 0 .. {CLASSES - 1}, not {labels.max()}")
    return np.ascontiguousarray(joined[:, 1:]).reshape(-1, *IMAGE_SHAPE), labels
