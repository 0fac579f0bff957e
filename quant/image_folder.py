"""Images by class: a folder or tar archive of ``train/<class>/<image>`` and ``test/<class>/<image>``."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from quant.data import Split
from quant.tar_archive import files_of

PARTS = ("train", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm")
SHUFFLE_SEED = 0


def load_images(path: Path) -> Split:
    """Return the images of a folder or tar archive, uint8; grey ones with one channel, all others with three.

    The classes are numbered in the alphabetical order of their names. Both parts come shuffled in a fixed order, so
    that any first few images are of all classes; ``test_indices`` count the test images by class, then name.

    Parameters
    ----------
    path : Path
        Whatever is above ``train`` and ``test`` in it does not matter. Other files are passed over.

    Raises
    ------
    ValueError
        If there is no such file, it is damaged, ``train`` or ``test`` has no image, the two have other classes, or an
        image is there twice, cannot be read or has another size than the others; the message names it.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} is neither a folder nor a tar archive of images")
    parts: dict[str, dict[tuple[str, str], NDArray[np.uint8]]] = {part: {} for part in PARTS}
    first: tuple[str, tuple[int, ...]] | None = None
    for name, content in _files(path):
        part, label, file = PurePosixPath(name).parts[-3:]
        image = _decode(content, f"{path}: {name}")
        first = first if first is not None else (name, image.shape)
        if image.shape != first[1]:
            raise ValueError(f"{path}: {name} must have shape {first[1]} as {first[0]} has, not {image.shape}")
        if (label, file) in parts[part]:
            raise ValueError(f"{path} must hold one image {part}/{label}/{file}, and {name} is another one")
        parts[part][label, file] = image
    for part in PARTS:
        if not parts[part]:
            raise ValueError(f"{path} must hold images as {part}/<class>/<image>, and has none")
    classes = sorted({label for label, _ in parts["train"]})
    if len(classes) < 2:
        raise ValueError(f"{path} must hold images of two classes at least, not only of {classes[0]}")
    strangers = sorted({label for label, _ in parts["test"]} - set(classes))
    if strangers:
        raise ValueError(f"{path}: class {strangers[0]} has images to test on, but none to train on")
    train, train_labels = _stack(parts["train"], classes)
    test, test_labels = _stack(parts["test"], classes)
    generator = np.random.default_rng(SHUFFLE_SEED)
    order = generator.permutation(len(train))
    test_order = generator.permutation(len(test))
    return Split(
        train_images=train[order],
        train_labels=train_labels[order],
        test_images=test[test_order],
        test_labels=test_labels[test_order],
        test_indices=len(train) + test_order,
    )


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if not path.is_dir():
        yield from files_of(path, _is_image)
        return
    for file in path.rglob("*"):
        name = file.relative_to(path).as_posix()
        if _is_image(name) and file.is_file():
            yield name, file.read_bytes()


def _is_image(name: str) -> bool:
    place = PurePosixPath(name).parts
    return len(place) >= 3 and place[-3] in PARTS and place[-1].lower().endswith(SUFFIXES)


def _decode(content: bytes, where: str) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"), np.uint8)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{where} cannot be read as an image: {error}") from error
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _stack(
    images: dict[tuple[str, str], NDArray[np.uint8]], classes: list[str]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    numbers = {label: number for number, label in enumerate(classes)}
    names = sorted(images)
    return np.stack([images[name] for name in names]), np.array([numbers[label] for label, _ in names], np.int64)
