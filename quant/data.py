"""Data sets: the handwritten digits that ship with scikit-learn, as unsigned 8-bit codes; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DIGITS_FACTOR = 15
"""The digits' pixels are 0 .. 16; a code is 15 times the pixel, so that 16 becomes 240."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images to train on and images to test on.

    Parameters
    ----------
    train_images, test_images : ndarray of uint8, shape (n, channels, height, width)
    train_labels, test_labels : ndarray of int64, shape (n,)
    test_indices : ndarray of int64, shape (n,)
        Where the test images are in the whole data set.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    test_indices: NDArray[np.int64]


def load_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return all 1,797 digits: images uint8 of shape (1797, 1, 8, 8), codes 15 * pixel, and labels int64 0 .. 9."""
    from sklearn.datasets import load_digits as load

    digits = load()
    images = (digits.images * DIGITS_FACTOR).astype(np.uint8)[:, None]
    return images, digits.target.astype(np.int64)


def fold_indices(labels: NDArray[np.int64], folds: int, seed: int) -> tuple[NDArray[np.int64], ...]:
    """Return the test indices of each fold: every class is dealt out evenly, in a shuffled order.

    Raises
    ------
    ValueError
        If ``folds`` is less than 2 or more than there are images of some class.
    """
    rarest = int(np.bincount(labels)[np.unique(labels)].min())
    if not 2 <= folds <= rarest:
        raise ValueError(f"the number of folds must be 2 .. {rarest}, not {folds}")
    generator = np.random.default_rng(seed)
    order = np.concatenate([generator.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)])
    return tuple(np.sort(order[fold::folds]) for fold in range(folds))


def load_digits_split(fold: int = 0, folds: int = 5, seed: int = 0) -> Split:
    """Return the digits with fold ``fold`` of ``folds`` as the test set; with 5 folds about 1,437 and 360 images.

    Raises
    ------
    ValueError
        If ``fold`` is not 0 .. folds - 1.
    """
    images, labels = load_digits()
    tests = fold_indices(labels, folds, seed)
    if not 0 <= fold < folds:
        raise ValueError(f"the fold must be 0 .. {folds - 1}, not {fold}")
    test = tests[fold]
    train = np.setdiff1d(np.arange(len(labels)), test)
    return Split(
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        test_indices=test,
    )


def batches(
    images: Tensor,
    labels: Tensor,
    batch_size: int,
    shift_pixels: int,
    generator: torch.Generator,
    flip: bool = False,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield one epoch of shuffled batches as (indices, images, labels).

    Every image is moved by up to ``shift_pixels`` at random, zeros flow in; with ``flip`` it is mirrored left to right
    in half of the cases. A last batch of a single image is dropped: BatchNorm learns nothing from it.
    """
    order = torch.randperm(len(images), generator=generator)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size].to(images.device)
        if len(chosen) > 1:
            batch = shift(images[chosen], shift_pixels, generator)
            if flip:
                mirrored = torch.rand(len(chosen), generator=generator).to(images.device) < 0.5
                batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
            yield chosen, batch, labels[chosen]


def shift(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Return each image of (n, channels, height, width) moved by a random -pixels .. pixels in both directions."""
    if pixels == 0:
        return images
    count, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, (pixels, pixels, pixels, pixels))
    offsets = torch.randint(0, 2 * pixels + 1, (2, count, 1), generator=generator).to(images.device)
    rows = (offsets[0] + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (offsets[1] + torch.arange(width, device=images.device))[:, None, None, :]
    index = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return padded[index, channel, rows, columns]
