"""Training: a float network first, then jointly for a width set; and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwsim.network import IMAGE_SCALE, Assignment, LayerWidths
from quant import checkpoint as checkpoints
from quant import data, distributed, models
from quant.block_replacement import FloatPartner
from quant.convert import prepare
from quant.data_sets import load_split
from quant.epochs import FloatTraining, JointTraining
from quant.memory import keep_freed_memory
from quant.methods import method as find_method
from quant.progress import Progress
from quant.run_directory import COMPARED_ENTRIES, FloatRun, RunDirectory
from quant.switchable import SwitchableNetwork, Widths, set_width
from quant.training_config import IMAGES
from quant.training_config import TrainingConfig as TrainingConfig

CPU = "cpu"

PREDICTED_TOGETHER = 125
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
    accuracies : mapping of str to float
        Of what the method trained, by the name of the assignment: uniform widths such as ``W4A4``, and the widths that
        it chose itself.
    float_predictions : ndarray of int64, shape (n,), or None
    predictions : mapping of str to ndarray of int64, shape (n,)
    seconds : mapping of str to float
        Wall-clock time of the stages ``float``, ``compare_float`` and ``joint``.
    checkpoint : Path or None
    """

    model: SwitchableNetwork
    config: TrainingConfig
    split: data.Split
    float_accuracy: float | None
    accuracies: Mapping[str, float]
    float_predictions: NDArray[np.int64] | None
    predictions: Mapping[str, NDArray[np.int64]]
    seconds: Mapping[str, float] = field(default_factory=dict)
    checkpoint: Path | None = None


def train_jointly(
    model: SwitchableNetwork, images: Tensor, labels: Tensor, config: TrainingConfig, progress: Progress
) -> None:
    """Train a prepared model in place for its width set with the configuration's method.

    Parameters
    ----------
    model : SwitchableNetwork
    images : uint8 tensor of shape (n, channels, height, width)
    labels : int64 tensor of shape (n,)
    """
    training = JointTraining.begin(model, images, labels, config)
    for epoch in range(training.epochs):
        loss = training.run_epoch(images, labels, epoch)
        progress.advance(loss.told, epoch + 1)
    training.finish()


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
    config: TrainingConfig | None = None,
    *,
    checkpoint: Path | None = None,
    progress: bool = True,
    run_directory: Path | None = None,
    resume: bool = False,
    float_run: Path | None = None,
    split: data.Split | None = None,
    device: str = CPU,
) -> TrainingResult:
    """Train a network for a width set with the configuration's method, and test it at every width that it trains.

    Parameters
    ----------
    config : TrainingConfig, optional
    checkpoint : Path, optional
        Where the trained model is saved.
    progress : bool
        Whether progress is shown: a bar on a terminal, plain lines in a log.
    run_directory : Path, optional
        Where configuration, metrics, curves and state are written, see ``quant.run_directory``; the network is then
        tested after every epoch.
    resume : bool
        Whether to go on from the state in the run directory, if there is one.
    float_run : Path, optional
        Run directory of :func:`train_float`, whose float networks are taken instead of training them again.
    split : Split, optional
        The images, if they are loaded already.
    device : str
        Where PyTorch trains, such as ``cuda``. Only on the CPU do results repeat to the same bits, the kernels of
        ``quant.fused`` run, and several processes train together.

    Raises
    ------
    ValueError
        If the data, the configuration or the device cannot be used, the loss is not finite any more, a run to resume
        was made with another configuration, or the float run is not complete or was made with other float training.
    """
    config = config if config is not None else TrainingConfig()
    if resume and run_directory is None:
        raise ValueError("a run can only be resumed in its run directory, and none is given")
    _check_method(config)
    floats = None if float_run is None else FloatRun(float_run, config)
    with _threads(config.threads), distributed.group():
        place = _usable(device)
        distributed.check(config.batch_size)
        # One process writes, and says how far it is.
        leads = distributed.rank() == 0
        progress, checkpoint = progress and leads, checkpoint if leads else None
        run = None if run_directory is None else RunDirectory(run_directory, config, resume, writes=leads)
        split = split if split is not None else load_split(config, progress)
        stages = _Stages(config, split, run, floats, progress, place)
        return _train_network(stages, checkpoint)


def _check_method(config: TrainingConfig) -> None:
    """Raise ``ValueError`` for what the method would refuse only when the float network is trained."""
    model = prepare(models.build(config.architecture), config.method, config.widths)
    find_method(config.method).check_budget(model, config.budget_of, config.budget)


FLOAT, COMPARE_FLOAT = "float", "compare_float"


def train_float(
    config: TrainingConfig,
    run_directory: Path,
    stages: Sequence[str] = (FLOAT, COMPARE_FLOAT),
    *,
    progress: bool = True,
    split: data.Split | None = None,
    device: str = CPU,
) -> None:
    """Train, or go on training, float networks of a configuration, for :func:`train_network` to start from.

    Parameters
    ----------
    stages : sequence of str
        ``float``, the network to start from, and ``compare_float``, the one to compare with.
    device : str
        As for :func:`train_network`.

    Raises
    ------
    ValueError
        As :func:`train_network`.
    """
    run = RunDirectory(run_directory, config, resume=True, entries=COMPARED_ENTRIES)
    with _threads(config.threads):
        split = split if split is not None else load_split(config, progress)
        work = _Stages(config, split, run, None, progress, _usable(device))
        for stage in stages:
            work.trained_float(stage)


def _usable(device: str) -> torch.device:
    """Return the device, or raise ``ValueError`` if this PyTorch cannot train there."""
    try:
        place = torch.device(device)
        torch.zeros(1, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        told = str(error).strip().split("\n")[0]
        raise ValueError(f"the device must be one that this PyTorch can use, not {device!r}: {told}") from error
    if place.type != CPU and distributed.processes() > 1:
        raise ValueError(f"several processes train together on the CPU only, not on {device!r}")
    return place


@contextmanager
def _threads(count: int) -> Iterator[None]:
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _accuracies(training: FloatTraining | JointTraining, images: Tensor, labels: NDArray[np.int64]) -> dict[str, float]:
    if isinstance(training, FloatTraining):
        training.model.eval()
        return {"float32": percent_correct(predict_float(training.model, images), labels)}
    tested = training.step.tested().items()
    return {name: percent_correct(predict(training.model, widths, images), labels) for name, widths in tested}


class _Stages:
    """The stages of one training: each goes on from where the run directory left it."""

    def __init__(
        self,
        config: TrainingConfig,
        split: data.Split,
        run: RunDirectory | None,
        floats: FloatRun | None,
        progress: bool,
        device: torch.device,
    ) -> None:
        self.config, self.split, self.run, self.floats, self.progress = config, split, run, floats, progress
        self.device = device
        arrays = (split.train_images, split.train_labels, split.test_images)
        self.images, self.labels, self.test_images = (torch.from_numpy(array).to(device) for array in arrays)
        self.seconds: dict[str, float] = {}
        self.float_states: dict[str, Mapping[str, Tensor]] = {}
        self.classes = models.CLASSES if config.data != IMAGES else 1 + int(self.labels.max())
        expected = getattr(models.build(config.architecture), "image_shape", None)
        if expected != tuple(self.images.shape[1:]):
            raise ValueError(
                f"the architecture {config.architecture} takes images of {expected}, but the {config.data} are "
                f"{tuple(self.images.shape[1:])}"
            )

    def run_stage(self, stage: str, title: str, training: FloatTraining | JointTraining) -> None:
        """Run what is left of a stage."""
        start, run = time.perf_counter(), self.run
        with Progress(title, training.epochs, self.progress) as shown:
            first = 0 if run is None else run.epochs_done(stage)
            if run is not None and first > 0:
                training.load_state(run.state(stage))
                shown.skip(first)
            for epoch in range(first, training.epochs):
                begun = time.perf_counter()
                loss = training.run_epoch(self.images, self.labels, epoch)
                told = loss.told
                if run is not None:
                    lap = time.perf_counter() - begun
                    measured = _accuracies(training, self.test_images, self.split.test_labels)
                    run.record(stage, loss, lap, measured, training.state())
                    told += "".join(f", {name} {value:.2f} %" for name, value in measured.items())
                shown.advance(told, epoch + 1)
        training.finish()
        if run is not None:
            run.draw_curves()
        self.seconds[stage] = time.perf_counter() - start

    def trained_float(self, stage: str) -> nn.Module:
        """Return the float network of the stage ``float`` or ``compare_float``."""
        config = self.config
        torch.manual_seed(config.seed)
        model = models.build(config.architecture, self.classes).to(self.device)
        compared = stage == COMPARE_FLOAT
        training = _float_training(model, config, compared)
        if self.floats is not None:
            self.float_states.setdefault(stage, self.floats.state(stage, training.epochs))
        if stage in self.float_states:
            training.load_state(self.float_states[stage])
            training.finish()
            return model
        if compared and not config.float_annealed:
            if FLOAT not in self.float_states:
                self.trained_float(FLOAT)
            training.load_state(self.float_states[FLOAT])
        self.run_stage(stage, "float network to compare" if compared else "float network", training)
        self.float_states[stage] = {name: tensor.clone() for name, tensor in training.state().items()}
        return model

    def partner(self) -> FloatPartner | None:
        """Return the annealed float network if a teacher is needed and joint training starts from another."""
        config = self.config
        needed = find_method(config.method).has_partner or config.block_replacement > 0
        if config.float_annealed or not needed:
            return None
        return FloatPartner(prepare(self.trained_float(COMPARE_FLOAT), config.method, config.widths))


def _float_training(model: nn.Module, config: TrainingConfig, compared: bool) -> FloatTraining:
    every_epoch = config.float_epochs + config.joint_epochs
    if config.float_annealed:
        return FloatTraining.begin(model, config, every_epoch if compared else config.float_epochs)
    epochs, first = (config.joint_epochs, config.float_epochs) if compared else (config.float_epochs, 0)
    return FloatTraining.begin(model, config, epochs, first, every_epoch)


def _train_network(stages: _Stages, checkpoint: Path | None) -> TrainingResult:
    config, split, test_images = stages.config, stages.split, stages.test_images
    model = prepare(stages.trained_float(FLOAT), config.method, config.widths)
    training = JointTraining.begin(model, stages.images, stages.labels, config, stages.partner())
    stages.run_stage("joint", f"joint training {config.widths}", training)
    float_predictions = None
    if config.compare_float:
        float_predictions = predict_float(stages.trained_float(COMPARE_FLOAT), test_images)
    predictions = {name: predict(model, widths, test_images) for name, widths in training.step.tested().items()}
    accuracies = {name: percent_correct(predicted, split.test_labels) for name, predicted in predictions.items()}
    float_accuracy = None if float_predictions is None else percent_correct(float_predictions, split.test_labels)
    if checkpoint is not None:
        checkpoints.save_checkpoint(
            model,
            checkpoint,
            architecture=config.architecture,
            config=config.to_json(),
            results={"float_accuracy": float_accuracy, "accuracies": accuracies},
        )
    return TrainingResult(
        model=model,
        config=config,
        split=split,
        float_accuracy=float_accuracy,
        accuracies=accuracies,
        float_predictions=float_predictions,
        predictions=predictions,
        seconds=stages.seconds,
        checkpoint=checkpoint,
    )
