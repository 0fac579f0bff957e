"""The two kinds of training, an epoch at a time, with all that they remember between epochs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.network import IMAGE_SCALE
from quant import data, distributed, fused
from quant.block_replacement import BlockReplacement, FloatPartner
from quant.double_rounding import ScaleOptimizer, initialise_scales, parameter_groups
from quant.methods import Start
from quant.methods import method as find_method
from quant.self_distillation import SelfDistillation
from quant.steps import EpochLoss, PassLoss, TrainingStep, cross_entropy_pass
from quant.switchable import SwitchableNetwork, set_width
from quant.training_config import ADAM, TrainingConfig
from quant.training_state import load_optimizer, optimizer_tensors


def cosine(peak: float, step: int, steps: int, warm_up: int = 0) -> float:
    """Return the learning rate of step ``step`` of ``steps``: a linear rise, then half a cosine down to almost 0."""
    if step < warm_up:
        return peak * (step + 1) / (warm_up + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _optimizer(
    kind: str,
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
    learning_rate: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    if kind == ADAM:
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
    # Not fused: every width has parameters of its own, which have no momentum before their first step.
    return torch.optim.SGD(
        parameters, lr=learning_rate, momentum=0.9, nesterov=True, weight_decay=weight_decay, foreach=True
    )


def _memory_format(config: TrainingConfig) -> torch.memory_format:
    return torch.channels_last if config.channels_last else torch.contiguous_format


def _precision(config: TrainingConfig, images: Tensor) -> torch.autocast:
    return torch.autocast(images.device.type, torch.bfloat16, enabled=config.bfloat16)


def _mini_batches(
    images: Tensor, labels: Tensor, config: TrainingConfig, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield this process' part of every mini-batch of an epoch: indices, images, labels."""
    shuffled = data.batches(images, labels, config.batch_size, config.shift_pixels, generator, config.flip)
    for indices, batch, targets in shuffled:
        if distributed.can_share(batch):
            own = distributed.share(batch).contiguous(memory_format=_memory_format(config))
            yield distributed.share(indices), own, distributed.share(targets)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@dataclass(frozen=True, kw_only=True)
class FloatTraining:
    """Training of a float model: epochs of a cosine schedule, from its first or in its midst.

    Parameters
    ----------
    model : nn.Module
        Takes images 0 .. 1, returns logits.
    optimizer : torch.optim.Optimizer
    generator : torch.Generator
        Of batches and shifts.
    config : TrainingConfig
    epochs : int
        Of this training.
    first_epoch, schedule_epochs : int
        Of the schedule: the first of this training, counted from 0; all.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    config: TrainingConfig
    epochs: int
    first_epoch: int
    schedule_epochs: int

    @classmethod
    def begin(
        cls,
        model: nn.Module,
        config: TrainingConfig,
        epochs: int,
        first_epoch: int = 0,
        schedule_epochs: int | None = None,
    ) -> FloatTraining:
        """Return the start, with a fresh optimizer; the schedule is that of ``epochs`` unless told otherwise."""
        model.to(memory_format=_memory_format(config))  # type: ignore[call-overload]
        distributed.synchronise(model)
        return cls(
            model=model,
            optimizer=_optimizer(config.optimizer, model.parameters(), config.learning_rate, config.weight_decay),
            generator=torch.Generator().manual_seed(config.seed),
            config=config,
            epochs=epochs,
            first_epoch=first_epoch,
            schedule_epochs=epochs if schedule_epochs is None else schedule_epochs,
        )

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next epoch goes on from."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        return tensors | optimizer_tensors(self.optimizer, "optimizer.") | {"generator": self.generator.get_state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take what :meth:`state` returned."""
        self.model.load_state_dict(_under(state, "model."))
        load_optimizer(self.optimizer, "optimizer.", state)
        self.generator.set_state(state["generator"])

    def finish(self) -> None:
        """Leave the model in evaluation mode."""
        self.model.eval()

    def run_epoch(self, images: Tensor, labels: Tensor, epoch: int) -> EpochLoss:
        """Train for one epoch, counted from 0, and return its mean losses.

        Parameters
        ----------
        images : uint8 tensor of shape (n, channels, height, width)
        labels : int64 tensor of shape (n,)
        epoch : int

        Raises
        ------
        ValueError
            If the loss is not finite any more.
        """
        config = self.config
        per_epoch = math.ceil(len(images) / config.batch_size)
        self.model.train()
        total, count = 0.0, 0
        for _, batch, targets in _mini_batches(images, labels, config, self.generator):
            step = (self.first_epoch + epoch) * per_epoch + count
            for group in self.optimizer.param_groups:
                group["lr"] = cosine(config.learning_rate, step, self.schedule_epochs * per_epoch, per_epoch)
            with _precision(config, images):
                logits = self.model(batch * IMAGE_SCALE)
            loss = F.cross_entropy(logits.float(), targets)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            distributed.average_gradients((self.optimizer,))
            self.optimizer.step()
            mean = distributed.mean(float(loss.detach()))
            total, count = total + _finite(mean, "float", epoch), count + 1
        mean = total / max(count, 1)
        return EpochLoss(mean=mean, passes={"float32": mean})


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
    config : TrainingConfig
    """

    model: SwitchableNetwork
    step: TrainingStep
    generator: torch.Generator
    distillation: SelfDistillation | None
    config: TrainingConfig

    @classmethod
    def begin(
        cls,
        model: SwitchableNetwork,
        images: Tensor,
        labels: Tensor,
        config: TrainingConfig,
        partner: FloatPartner | None = None,
    ) -> JointTraining:
        """Return the start: activation scales fitted to the first images, fresh optimizers.

        Parameters
        ----------
        partner : FloatPartner, optional
            The float network that methods with a teacher, and block replacement, follow; the one that was prepared
            unless told otherwise.

        Raises
        ------
        ValueError
            If the model was prepared for no method or another than the configuration's, or cannot keep to its budget.
        """
        if not model.method:
            raise ValueError("the model was prepared for no method: make it with prepare or assemble")
        if model.method != config.method:
            raise ValueError(f"the model was prepared for the method {model.method}, not {config.method}")
        method = find_method(config.method)
        method.check_budget(model, config.budget_of, config.budget)
        generator = torch.Generator().manual_seed(config.seed + 1)
        distributed.synchronise(model)
        # Before the scales are fitted the model still is the float network.
        partner = FloatPartner(model) if partner is None else partner
        start = Start(
            model=model,
            partner=partner,
            images=images,
            labels=labels,
            generator=generator,
            budget_of=config.budget_of,
            budget=config.budget,
        )
        more = method.begin(start)
        pass_loss: PassLoss = cross_entropy_pass(model)
        if config.block_replacement > 0:
            pass_loss = BlockReplacement(model, partner, config.block_replacement, generator)
        initialise_scales(model, images[:512])
        # The kernels are the CPU's, and take a BatchNorm's statistics over the images of their own process.
        on_cpu = images.device.type == "cpu"
        model.fused = config.channels_last and on_cpu and fused.available() and distributed.processes() == 1
        distillation = None
        if config.self_distillation > 0:
            distillation = SelfDistillation(labels, model.classes, config.self_distillation)
        groups = parameter_groups(model)
        step = method.make_step(
            model=model,
            weight_optimizer=_optimizer(
                config.joint_optimizer,
                groups.at_rates(config.shared_weight_rate),
                config.joint_learning_rate,
                config.joint_weight_decay,
            ),
            scale_optimizer=ScaleOptimizer(groups.scales, config.scale_learning_rate),
            pass_loss=pass_loss,
            record=None if distillation is None else distillation.record,
            alrs=config.alrs,
            alrs_decay=config.alrs_decay,
            **more,
        )
        return cls(model=model, step=step, generator=generator, distillation=distillation, config=config)

    @property
    def epochs(self) -> int:
        """Epochs of the stage."""
        return self.config.joint_epochs

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next epoch goes on from."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= optimizer_tensors(self.step.weight_optimizer, "weight_optimizer.")
        tensors |= optimizer_tensors(self.step.scale_optimizer, "scale_optimizer.")
        tensors |= {f"step.{name}": value for name, value in self.step.state().items()}
        if self.distillation is not None:
            tensors |= self.distillation.state()
        return tensors | {"generator": self.generator.get_state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take what :meth:`state` returned."""
        self.model.load_state_dict(_under(state, "model."))
        load_optimizer(self.step.weight_optimizer, "weight_optimizer.", state)
        load_optimizer(self.step.scale_optimizer, "scale_optimizer.", state)
        self.step.load_state(_under(state, "step."))
        if self.distillation is not None:
            self.distillation.load_state(state)
        self.generator.set_state(state["generator"])

    def finish(self) -> None:
        """Leave the model at its highest width, in evaluation mode, with what the method found."""
        self.step.finish()
        set_width(self.model, self.model.width_set.highest).eval()

    def run_epoch(self, images: Tensor, labels: Tensor, epoch: int) -> EpochLoss:
        """Train for one epoch, counted from 0, and return its mean losses.

        Raises
        ------
        ValueError
            If the loss is not finite any more.
        """
        config = self.config
        per_epoch = math.ceil(len(images) / config.batch_size)
        self.model.train()
        self.step.begin_epoch(epoch, config.joint_epochs, per_epoch)
        if self.distillation is not None:
            self.distillation.begin_epoch(epoch, config.joint_epochs)
        total, count = 0.0, 0
        passes: dict[str, float] = {}
        for indices, batch, classes in _mini_batches(images, labels, config, self.generator):
            rate = cosine(1.0, epoch * per_epoch + count, config.joint_epochs * per_epoch)
            targets = classes if self.distillation is None else self.distillation.targets(indices)
            rates = config.joint_learning_rate * rate, config.scale_learning_rate * rate
            with _precision(config, images):
                losses = self.step.run(batch, targets, *rates)
            mean = sum(losses.values()) / len(losses)
            total, count = total + _finite(distributed.mean(mean), "joint", epoch), count + 1
            for name, loss in losses.items():
                passes[name] = passes.get(name, 0.0) + loss
        means = {name: distributed.mean(one / count) for name, one in passes.items()}
        return EpochLoss(mean=total / max(count, 1), passes=means)


def _finite(loss: float, stage: str, epoch: int) -> float:
    if not math.isfinite(loss):
        raise ValueError(f"the loss of {stage} training became {loss} in epoch {epoch + 1}: lower the learning rates")
    return loss
