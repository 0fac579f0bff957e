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
from quant import checkpoint as checkpoints
from quant import data, models
from quant.block_replacement import BlockReplacement
from quant.convert import prepare
from quant.data_sets import load_split
from quant.double_rounding import ScaleOptimizer, initialise_scales, parameter_groups
from quant.methods import method as find_method
from quant.progress import Progress
from quant.self_distillation import SelfDistillation
from quant.steps import PassLoss, TrainingStep, cross_entropy_pass
from quant.switchable import SwitchableNetwork, Widths, set_width
from quant.training_config import TrainingConfig as TrainingConfig

PREDICTED_TOGETHER = 500
"""Images of one forward pass without gradients; bounds the memory it takes."""


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
        shuffled = data.batches(images, labels, config.batch_size, config.shift_pixels, generator, config.flip)
        for batch, targets in shuffled:
            for group in optimizer.param_groups:
                group["lr"] = cosine(config.learning_rate, step, epochs * per_epoch, per_epoch)
            loss = F.cross_entropy(model(batch * IMAGE_SCALE), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
            total, count = total + _finite(float(loss.detach()), "float", epoch), count + 1
        progress.advance(f"loss {total / max(count, 1):.3f}", epoch + 1)
    model.eval()


@dataclass(frozen=True, kw_only=True)
class JointTraining:
    """Everything that joint training of one model remembers.

    Parameters
    ----------
    model : SwitchableNetwork
    step : TrainingStep
        Of the configuration's method.
    generator : torch.Generator
        Of batches, shifts and the draws of the method.
    distillation : SelfDistillation or None
    """

    model: SwitchableNetwork
    step: TrainingStep
    generator: torch.Generator
    distillation: SelfDistillation | None

    @classmethod
    def begin(cls, model: SwitchableNetwork, images: Tensor, labels: Tensor, config: TrainingConfig) -> JointTraining:
        """Return the start: activation scales fitted to the first images, fresh optimizers.

        Raises
        ------
        ValueError
            If the model was prepared for another method than the configuration's.
        """
        if model.method != config.method:
            raise ValueError(f"the model was prepared for the method {model.method}, not {config.method}")
        generator = torch.Generator().manual_seed(config.seed + 1)
        # Before the scales are fitted the model still is the float network.
        pass_loss: PassLoss = cross_entropy_pass(model)
        if config.block_replacement > 0:
            pass_loss = BlockReplacement(model, config.block_replacement, generator)
        initialise_scales(model, images[:512])
        distillation = None
        if config.self_distillation > 0:
            classes = dict(model.weight_layers())[model.names[-1]].weight.shape[0]
            distillation = SelfDistillation(labels, classes, model.width_set.highest, config.self_distillation)
            pass_loss = distillation.wrap(pass_loss)
        groups = parameter_groups(model)
        step = find_method(config.method).make_step(
            model=model,
            weight_optimizer=_adam(groups.others, config.joint_learning_rate, config.weight_decay),
            scale_optimizer=ScaleOptimizer(groups.scales, config.scale_learning_rate),
            pass_loss=pass_loss,
            alrs=config.alrs,
            alrs_decay=config.alrs_decay,
        )
        return cls(model=model, step=step, generator=generator, distillation=distillation)

    def run_epoch(self, images: Tensor, labels: Tensor, config: TrainingConfig, epoch: int) -> float:
        """Train for one epoch, counted from 0, and return the mean loss.

        Raises
        ------
        ValueError
            If the loss is not finite any more.
        """
        per_epoch = math.ceil(len(images) / config.batch_size)
        self.model.train()
        self.step.begin_epoch(epoch, config.joint_epochs)
        if self.distillation is not None:
            self.distillation.begin_epoch(epoch, config.joint_epochs)
        total, count = 0.0, 0
        shuffled = data.indexed_batches(
            images, labels, config.batch_size, config.shift_pixels, self.generator, config.flip
        )
        for indices, batch, classes in shuffled:
            rate = cosine(1.0, epoch * per_epoch + count, config.joint_epochs * per_epoch)
            targets = classes if self.distillation is None else self.distillation.targets(indices)
            rates = config.joint_learning_rate * rate, config.scale_learning_rate * rate
            total, count = total + _finite(self.step.run(batch, targets, *rates), "joint", epoch), count + 1
        return total / max(count, 1)


def _finite(loss: float, stage: str, epoch: int) -> float:
    if not math.isfinite(loss):
        raise ValueError(f"the loss of {stage} training became {loss} in epoch {epoch + 1}: lower the learning rates")
    return loss


def train_jointly(
    model: SwitchableNetwork, images: Tensor, labels: Tensor, config: TrainingConfig, progress: Progress
) -> None:
    """Train a prepared model in place for its width set with the configuration's method; parameters as above."""
    training = JointTraining.begin(model, images, labels, config)
    for epoch in range(config.joint_epochs):
        loss = training.run_epoch(images, labels, config, epoch)
        progress.advance(f"loss {loss:.3f}", epoch + 1)
    set_width(model, model.width_set.highest).eval()


@torch.no_grad()
def predict_float(model: nn.Module, images: Tensor) -> NDArray[np.int64]:
    """Return the classes that a float model gives to uint8 images, int64 of shape (n,)."""
    parts = [model(part * IMAGE_SCALE).argmax(1) for part in images.split(PREDICTED_TOGETHER)]
    return torch.cat(parts).cpu().numpy()  # type: ignore[no-any-return]


@torch.no_grad()
def predict(
    model: SwitchableNetwork, width: int | Assignment | Widths | Mapping[str, int | LayerWidths], images: Tensor
) -> NDArray[np.int64]:
    """Return the classes that a prepared model gives to uint8 images at one width, int64 of shape (n,)."""
    widths, training = model.widths, model.training
    try:
        set_width(model, width).eval()
        parts = [model(part).argmax(1) for part in images.split(PREDICTED_TOGETHER)]
        return torch.cat(parts).cpu().numpy()  # type: ignore[no-any-return]
    finally:
        model.widths = widths
        model.train(training)


def percent_correct(predictions: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Return the accuracy in percent."""
    return float(100 * np.mean(predictions == labels))


def train_network(
    config: TrainingConfig | None = None, *, checkpoint: Path | None = None, progress: bool = True
) -> TrainingResult:
    """Train a network for a width set with the configuration's method, and test it at every width.

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
    split = load_split(config, progress)
    images, labels = torch.from_numpy(split.train_images), torch.from_numpy(split.train_labels)
    test_images = torch.from_numpy(split.test_images)
    seconds: dict[str, float] = {}
    expected = getattr(models.build(config.architecture), "image_shape", None)
    if expected != tuple(images.shape[1:]):
        raise ValueError(
            f"the architecture {config.architecture} takes images of {expected}, but the {config.data} are "
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
    model = prepare(start_model, config.widths, method=config.method)
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
