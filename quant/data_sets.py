"""The data sets that a configuration can name."""

from __future__ import annotations

from pathlib import Path

from quant.cifar10 import download, load_cifar10
from quant.data import Split, load_digits_split
from quant.image_folder import load_images
from quant.training_config import CIFAR10, DIGITS, TrainingConfig


def load_split(config: TrainingConfig, progress: bool = False) -> Split:
    """Return the images that a configuration trains and tests on.

    The digits by fold; CIFAR-10 from ``data_path``, or downloaded where that is not given; images by class.

    Raises
    ------
    ValueError
        If the data cannot be read.
    """
    if config.data == DIGITS:
        return load_digits_split(config.fold, config.folds, config.seed)
    if config.data == CIFAR10:
        return load_cifar10(Path(config.data_path) if config.data_path is not None else download(progress))
    assert config.data_path is not None
    return load_images(Path(config.data_path))
