"""How a network is trained: one frozen configuration, checked when it is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hwsim.precision import CATALOG, WidthSet
from quant import models
from quant.bit_allocation import AVERAGE_WIDTH, BUDGETS
from quant.double_rounding import ALRS_FORMS, DECAY
from quant.methods import DOUBLE_ROUNDING
from quant.methods import method as find_method

DIGITS, CIFAR10, IMAGES = "digits", "cifar10", "images"
DATA_SETS = (DIGITS, CIFAR10, IMAGES)
ADAM, SGD = "adam", "sgd"
OPTIMIZERS = (ADAM, SGD)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a network is trained.

    Parameters
    ----------
    architecture : str
        One of ``quant.models.ARCHITECTURES``.
    widths : WidthSet
    method : str
        One of ``quant.methods.METHODS``.
    data : str
        ``digits``, ``cifar10`` (its binary archive) or ``images`` (a folder or tar archive of images by class).
    data_path : str or None
        Where the data is: needed for ``images``; None for ``cifar10`` downloads it; the digits have none.
    fold, folds : int
        The test set of the digits is fold ``fold`` of ``folds``.
    seed : int
        Of weights, batches, shifts, mixed widths and folds.
    float_epochs, joint_epochs : int
        Epochs of the float network, then of joint training. The float network it is compared with is trained for
        their sum.
    float_annealed : bool
        Whether the learning rate of the float network falls to 0 before joint training begins. False takes the float
        network from the midst of a schedule over ``float_epochs + joint_epochs``, when its weights still move; the one
        to compare with is the same one, trained on to the end of it, which is also the teacher of the methods that have
        one. Joint training has a schedule of its own either way.
    batch_size : int
    learning_rate, joint_learning_rate, scale_learning_rate : float
        Peak of the cosine schedule: float training; weights in joint training; scales in joint training (a relative
        step).
    shared_weight_rate : float
        Share of ``joint_learning_rate`` that weights and biases learn at, which all widths share, and the BatchNorm of
        pinned layers; the other BatchNorm, of which every width has its own, learns at the whole. In methods that take
        a step for each width of a mini-batch, 1 over the number of widths moves the weights as far as one step would.
    weight_decay : float
    optimizer, joint_optimizer : str
        Of the float network, and of the weights in joint training: ``adam`` with decoupled weight decay, or ``sgd``
        with Nesterov's momentum of 0.9.
    joint_weight_decay : float
    alrs : str
        ``decay`` or ``equation-6``, for the methods that scale learning rates by width.
    alrs_decay : float
        lambda_b = lambda * alrs_decay**k of ``decay``; 1 switches ALRS off.
    self_distillation : float
        Share of what the highest width said an epoch ago in the last epoch's targets, 0 .. 1; 0 is off. Not for methods
        with a teacher of their own (``sdq``).
    block_replacement : float
        Weight of the guidance by the float network's blocks; 0 is off.
    budget_of : str
        What the methods that choose a width for every layer must keep to: ``average-width`` (bits of a weight, first
        and last layer left out), ``cycles`` or ``weight-traffic`` (of one image on a machine of 32 x 16).
    budget : float
        At most this.
    shift_pixels : int
        Training images are moved by up to this many pixels.
    flip : bool
        Whether half of the training images are mirrored left to right.
    compare_float : bool
        Whether the float network of the same total epochs is trained too.
    channels_last : bool
        Whether training keeps activations with the channels innermost, which is faster for wide images, and lets joint
        training run the kernels of ``quant.fused``.
    bfloat16 : bool
        Whether training convolves in bfloat16, sums in float32; weights, BatchNorm and quantizers stay float32. Codes
        are those of the float32 quantizers. Evaluation and export are in float32 and in integers whatever it says.
    threads : int
        CPU threads of torch while training. One is fastest for networks this small and makes results repeatable.

    Raises
    ------
    TypeError, ValueError
        If a value is out of its range.
    """

    architecture: str = "digits"
    widths: WidthSet = CATALOG["8-6-4-2"]
    method: str = DOUBLE_ROUNDING
    data: str = DIGITS
    data_path: str | None = None
    fold: int = 0
    folds: int = 5
    seed: int = 0
    float_epochs: int = 12
    joint_epochs: int = 18
    float_annealed: bool = True
    batch_size: int = 64
    learning_rate: float = 5e-3
    joint_learning_rate: float = 2e-3
    scale_learning_rate: float = 1e-2
    shared_weight_rate: float = 1.0
    weight_decay: float = 1e-4
    optimizer: str = ADAM
    joint_optimizer: str = ADAM
    joint_weight_decay: float = 1e-4
    alrs: str = DECAY
    alrs_decay: float = 0.1
    self_distillation: float = 0.0
    block_replacement: float = 0.0
    budget_of: str = AVERAGE_WIDTH
    budget: float = 4.0
    shift_pixels: int = 1
    flip: bool = False
    compare_float: bool = True
    channels_last: bool = False
    bfloat16: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        if self.architecture not in models.ARCHITECTURES:
            known = ", ".join(models.ARCHITECTURES)
            raise ValueError(f"the architecture must be one of {known}, not {self.architecture!r}")
        if not isinstance(self.widths, WidthSet):
            raise TypeError(f"widths must be a WidthSet, not {self.widths!r}")
        method = find_method(self.method)
        method.check_widths(self.widths)
        if self.data not in DATA_SETS:
            raise ValueError(f"data must be one of {', '.join(DATA_SETS)}, not {self.data!r}")
        if self.data == IMAGES and self.data_path is None:
            raise ValueError("images by class need a data_path, not None")
        if self.data == DIGITS and self.data_path is not None:
            raise ValueError(f"the digits come with scikit-learn and have no data_path, not {self.data_path!r}")
        if self.alrs not in ALRS_FORMS:
            raise ValueError(f"alrs must be one of {', '.join(ALRS_FORMS)}, not {self.alrs!r}")
        if self.budget_of not in BUDGETS:
            raise ValueError(f"budget_of must be one of {', '.join(BUDGETS)}, not {self.budget_of!r}")
        for name in ("optimizer", "joint_optimizer"):
            if getattr(self, name) not in OPTIMIZERS:
                raise ValueError(f"{name} must be one of {', '.join(OPTIMIZERS)}, not {getattr(self, name)!r}")
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
        for name in ("learning_rate", "joint_learning_rate", "scale_learning_rate", "budget"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, not {value!r}")
        for name in ("weight_decay", "joint_weight_decay", "alrs_decay", "self_distillation"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be 0 .. 1, not {value!r}")
        if not 0 < self.shared_weight_rate <= 1:
            raise ValueError(f"shared_weight_rate must be over 0 and at most 1, not {self.shared_weight_rate!r}")
        if method.own_teacher and self.self_distillation > 0:
            raise ValueError(
                f"self_distillation must be 0 with {self.method}, which learns from {method.own_teacher}, "
                f"not {self.self_distillation!r}"
            )
        if not 0 <= self.block_replacement <= 100:
            raise ValueError(f"block_replacement must be 0 .. 100, not {self.block_replacement!r}")
        for name in ("float_annealed", "flip", "compare_float", "channels_last", "bfloat16"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, not {getattr(self, name)!r}")
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


PRESETS: dict[str, TrainingConfig] = {
    DIGITS: TrainingConfig(),
    CIFAR10: TrainingConfig(
        architecture="resnet20",
        data=CIFAR10,
        float_epochs=30,
        float_annealed=False,
        joint_epochs=10,
        batch_size=128,
        optimizer=SGD,
        learning_rate=0.1,
        weight_decay=5e-4,
        joint_learning_rate=5e-4,
        scale_learning_rate=1e-3,
        alrs_decay=1.0,
        shift_pixels=4,
        flip=True,
        channels_last=True,
    ),
}
"""Configurations to start from, by data set. CIFAR-10 has the usual crops and mirror images, on the CPU's budget, and
no ALRS: in ten joint epochs it changed no width by more than 0.3 points (``benchmarks/training_table.json``)."""


def preset(data: str) -> TrainingConfig:
    """Return the configuration to start from for a data set; images by class start as CIFAR-10 does.

    Raises
    ------
    ValueError
        If there is no such data set.
    """
    if data not in DATA_SETS:
        raise ValueError(f"data must be one of {', '.join(DATA_SETS)}, not {data!r}")
    return PRESETS[DIGITS if data == DIGITS else CIFAR10]
