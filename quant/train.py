"""Training: a float network first, then jointly for a width set; and checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hwsim.network import IMAGE_SCALE, Assignment, LayerWidths
from hwsim.precision import CATALOG, WidthSet
from quant import checkpoint as checkpoints
from quant import data, models
from quant.convert import prepare
from quant.double_rounding import JointStep, ScaleOptimizer, initialise_scales, parameter_groups
from quant.progress import Progress
from quant.switchable import SwitchableNetwork, Widths, set_width


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a network is trained.

    Parameters
    ----------
    architecture : str
        One of ``quant.models.ARCHITECTURES``.
    widths : WidthSet
    fold, folds : int
        The test set is fold ``fold`` of ``folds``.
    seed : int
        Of weights, batches, shifts, mixed widths and folds.
    float_epochs, joint_epochs : int
        Epochs of the float network, then of joint training. The float network it is compared with is trained for
        their sum.
    batch_size : int
    learning_rate, joint_learning_rate, scale_learning_rate : float
        Peak of the cosine schedule: float training; weights in joint training; scales in joint training (a relative
        step).
    weight_decay : float
    alrs_decay : float
        lambda_b = lambda * alrs_decay**k.
    shift_pixels : int
        Training images are moved by up to this many pixels.
    compare_float : bool
        Whether the float network of the same total epochs is trained too.
    threads : int
        CPU threads of torch while training. One is fastest for networks this small and makes results repeatable.

    Raises
    ------
    TypeError, ValueError
        If a value is out of its range.
    """

    architecture: str = "digits"
    widths: WidthSet = CATALOG["8-6-4-2"]
    fold: int = 0
    folds: int = 5
    seed: int = 0
    float_epochs: int = 12
    joint_epochs: int = 18
    batch_size: int = 64
    learning_rate: float = 5e-3
    joint_learning_rate: float = 2e-3
    scale_learning_rate: float = 1e-2
    weight_decay: float = 1e-4
    alrs_decay: float = 0.1
    shift_pixels: int = 1
    compare_float: bool = True
    threads: int = 1

    def __post_init__(self) -> None:
        if self.architecture not in models.ARCHITECTURES:
            known = ", ".join(models.ARCHITECTURES)
            raise ValueError(f"the architecture must be one of {known}, not {self.architecture!r}")
        if not isinstance(self.widths, WidthSet):
            raise TypeError(f"widths must be a WidthSet, not {self.widths!r}")
        for name, lowest in (
            ("fold", 0),
            ("folds", 2),
            ("seed", 0),
            ("float_epochs", 0),
            ("joint_epochs", 1),
            ("batch_size", 2),
            ("shift_pixels", 0),
            ("threads", 1),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an integer, not {value!r}")
            if value < lowest:
                raise ValueError(f"{name} must be at least {lowest}, not {value}")
        for name in ("learning_rate", "joint_learning_rate", "scale_learning_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, not {value!r}")
        for name in ("weight_decay", "alrs_decay"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be 0 .. 1, not {value!r}")
        if self.fold >= self.folds:
            raise ValueError(f"the fold must be 0 .. {self.folds - 1}, not {self.fold}")

    def to_json(self) -> dict[str, object]:
        """Return plain values for JSON."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**values, "widths": list(self.widths.widths)}

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> TrainingConfig:
        """Return the configuration written by :meth:`to_json`.

        Raises
        ------
        ValueError
            If an entry is not known, or the widths are no list.
        """
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"a training configuration must have no entry {unknown[0]!r}")
        widths = values.get("widths")
        if not isinstance(widths, list):
            raise ValueError(f"widths must be a list, not {widths!r}")
        return cls(**{**values, "widths": WidthSet(tuple(widths))})  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What training made; accuracies are percent of the test images.

    Parameters
    ----------
    model : SwitchableNetwork
        In evaluation mode.
    config : TrainingConfig
    split : Split
        The images it was trained and tested on.
    float_accuracy : float or None
        Of the float network trained for the same total epochs.
    accuracies : mapping of int to float
        Of every uniform width.
    float_predictions : ndarray of int64, shape (n,), or None
    predictions : mapping of int to ndarray of int64, shape (n,)
    seconds : mapping of str to float
        Wall-clock time of the stages ``float``, ``compare_float`` and ``joint``.
    checkpoint : Path or None
    """

    model: SwitchableNetwork
    config: TrainingConfig
    split: data.Split
    float_accuracy: float | None
    accuracies: Mapping[int, float]
    float_predictions: NDArray[np.int64] | None
    predictions: Mapping[int, NDArray[np.int64]]
    seconds: Mapping[str, float] = field(default_factory=dict)
    checkpoint: Path | None = None


def cosine(peak: float, step: int, steps: int, warm_up: int = 0) -> float:
    """Return the learning rate of step ``step`` of ``steps``: a linear rise, then half a cosine down to almost 0."""
    if step < warm_up:
        return peak * (step + 1) / (warm_up + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _adam(parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)


def train_float(
    model: nn.Module, images: Tensor, labels: Tensor, config: TrainingConfig, epochs: int, progress: Progress
) -> None:
    """Train a float model in place with Adam and a cosine schedule.

    Parameters
    ----------
    model : nn.Module
        Takes images 0 .. 1, returns logits.
    images : uint8 tensor of shape (n, channels, height, width)
    labels : int64 tensor of shape (n,)
    """
    generator = torch.Generator().manual_seed(config.seed)
    optimizer = _adam(model.parameters(), config.learning_rate, config.weight_decay)
    per_epoch = math.ceil(len(images) / config.batch_size)
    step = 0
    model.train()
    for epoch in range(epochs):
        total, count = 0.0, 0
        for batch, targets in data.batches(images, labels, config.batch_size, config.shift_pixels, generator):
            for group in optimizer.param_groups:
                group["lr"] = cosine(config.learning_rate, step, epochs * per_epoch, per_epoch)
            loss = F.cross_entropy(model(batch * IMAGE_SCALE), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
            total, count = total + float(loss.detach()), count + 1
        progress.advance(f"loss {total / max(count, 1):.3f}", epoch + 1)
    model.eval()


def train_jointly(
    model: SwitchableNetwork, images: Tensor, labels: Tensor, config: TrainingConfig, progress: Progress
) -> None:
    """Train a prepared model in place for its width set with Double Rounding and ALRS; parameters as above."""
    generator = torch.Generator().manual_seed(config.seed + 1)
    groups = parameter_groups(model)
    step = JointStep(
        model=model,
        weight_optimizer=_adam(groups.others, config.joint_learning_rate, config.weight_decay),
        scale_optimizer=ScaleOptimizer(groups.scales, config.scale_learning_rate),
        alrs_decay=config.alrs_decay,
    )
    initialise_scales(model, images[:512])
    per_epoch = math.ceil(len(images) / config.batch_size)
    steps = config.joint_epochs * per_epoch
    index = 0
    model.train()
    for epoch in range(config.joint_epochs):
        total, count = 0.0, 0
        for batch, targets in data.batches(images, labels, config.batch_size, config.shift_pixels, generator):
            rate = cosine(1.0, index, steps)
            loss = step.run(batch, targets, config.joint_learning_rate * rate, config.scale_learning_rate * rate)
            index += 1
            total, count = total + loss, count + 1
        progress.advance(f"loss {total / max(count, 1):.3f}", epoch + 1)
    set_width(model, model.width_set.highest).eval()


@torch.no_grad()
def predict_float(model: nn.Module, images: Tensor) -> NDArray[np.int64]:
    """Return the classes that a float model gives to uint8 images, int64 of shape (n,)."""
    return model(images * IMAGE_SCALE).argmax(1).cpu().numpy()  # type: ignore[no-any-return]


@torch.no_grad()
def predict(
    model: SwitchableNetwork, width: int | Assignment | Widths | Mapping[str, int | LayerWidths], images: Tensor
) -> NDArray[np.int64]:
    """Return the classes that a prepared model gives to uint8 images at one width, int64 of shape (n,)."""
    widths, training = model.widths, model.training
    try:
        return set_width(model, width).eval()(images).argmax(1).cpu().numpy()  # type: ignore[no-any-return]
    finally:
        model.widths = widths
        model.train(training)


def percent_correct(predictions: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Return the accuracy in percent."""
    return float(100 * np.mean(predictions == labels))


def train_network(
    config: TrainingConfig | None = None, *, checkpoint: Path | None = None, progress: bool = True
) -> TrainingResult:
    """Train a network jointly for a width set on the digits, and test it at every width.

    Parameters
    ----------
    config : TrainingConfig, optional
    checkpoint : Path, optional
        Where the trained model is saved.
    progress : bool
        Whether progress is shown: a bar on a terminal, plain lines in a log.
    """
    config = config if config is not None else TrainingConfig()
    with _threads(config.threads):
        return _train_network(config, checkpoint, progress)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train_network(config: TrainingConfig, checkpoint: Path | None, progress: bool) -> TrainingResult:
    split = data.load_digits_split(config.fold, config.folds, config.seed)
    images, labels = torch.from_numpy(split.train_images), torch.from_numpy(split.train_labels)
    test_images = torch.from_numpy(split.test_images)
    seconds: dict[str, float] = {}
    expected = getattr(models.build(config.architecture), "image_shape", None)
    if expected != tuple(images.shape[1:]):
        raise ValueError(
            f"the architecture {config.architecture} takes images of {expected}, but the digits are "
            f"{tuple(images.shape[1:])}"
        )

    def trained_float(stage: str, told: str, epochs: int) -> nn.Module:
        start = time.perf_counter()
        torch.manual_seed(config.seed)
        model = models.build(config.architecture)
        with Progress(told, epochs, progress) as shown:
            train_float(model, images, labels, config, epochs, shown)
        seconds[stage] = time.perf_counter() - start
        return model

    start_model = trained_float("float", "float network", config.float_epochs)
    start = time.perf_counter()
    model = prepare(start_model, config.widths)
    with Progress(f"joint training {config.widths}", config.joint_epochs, progress) as shown:
        train_jointly(model, images, labels, config, shown)
    seconds["joint"] = time.perf_counter() - start
    float_predictions = None
    if config.compare_float:
        epochs = config.float_epochs + config.joint_epochs
        baseline = trained_float("compare_float", "float network to compare", epochs)
        float_predictions = predict_float(baseline, test_images)
    predictions = {bits: predict(model, bits, test_images) for bits in config.widths}
    accuracies = {bits: percent_correct(predicted, split.test_labels) for bits, predicted in predictions.items()}
    float_accuracy = None if float_predictions is None else percent_correct(float_predictions, split.test_labels)
    if checkpoint is not None:
        checkpoints.save_checkpoint(
            model,
            checkpoint,
            architecture=config.architecture,
            config=config.to_json(),
            results={"float_accuracy": float_accuracy, "accuracies": {str(b): a for b, a in accuracies.items()}},
        )
    return TrainingResult(
        model=model,
        config=config,
        split=split,
        float_accuracy=float_accuracy,
        accuracies=accuracies,
        float_predictions=float_predictions,
        predictions=predictions,
        seconds=seconds,
        checkpoint=checkpoint,
    )
