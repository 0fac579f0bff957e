"""The folder of a training run: ``config.json``, ``metrics.csv``, ``metrics.json``, ``curves.png`` and the state.

Everything is written after every epoch but the picture, which is drawn at the end of a stage where matplotlib is
installed. A run goes on from the last complete epoch, to the same bits on the same machine.
"""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hwsim.whole_file import write_bytes, write_json
from quant.steps import EpochLoss
from quant.training_config import TrainingConfig
from quant.training_state import load_state, save_state

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONFIG, METRICS_CSV, METRICS_JSON = "config.json", "metrics.csv", "metrics.json"
CURVES, STATE = "curves.png", "training_state.safetensors"


class RunDirectory:
    """What a run has done so far.

    Parameters
    ----------
    path : Path
        Made if there is none.
    config : TrainingConfig
    resume : bool
        Whether to go on from the state in the folder, if there is one; otherwise the run starts over.
    entries : sequence of str, optional
        Entries of the configuration that must be as they were to go on; all unless told otherwise.
    writes : bool
        False for a process that trains along but leaves writing to another.

    Raises
    ------
    ValueError
        If the state in the folder is damaged or was made with another configuration; the message names the entry.
    """

    def __init__(
        self,
        path: Path,
        config: TrainingConfig,
        resume: bool = False,
        entries: Sequence[str] | None = None,
        writes: bool = True,
    ) -> None:
        self.path = Path(path)
        self.config = config
        self.rows: list[dict[str, Any]] = []
        self._stages: dict[str, dict[str, Tensor]] = {}
        if resume and (self.path / STATE).is_file():
            tensors, content = load_state(self.path / STATE)
            _check_same(self.path, content["config"], config.to_json(), entries)
            # Runs of before losses of each pass were kept have the mean only.
            self.rows = [{"losses": {}, **row} for row in content["rows"]]
            for full_name, tensor in tensors.items():
                stage, _, name = full_name.partition("/")
                self._stages.setdefault(stage, {})[name] = tensor
        self.writes = writes
        if writes:
            write_json(self.path / CONFIG, config.to_json())

    def epochs_done(self, stage: str) -> int:
        """Return how many epochs of a stage are complete."""
        return sum(row["stage"] == stage for row in self.rows)

    def state(self, stage: str) -> dict[str, Tensor]:
        """Return the state that a stage's last complete epoch left."""
        return self._stages[stage]

    def record(
        self, stage: str, loss: EpochLoss, seconds: float, accuracies: Mapping[str, float], state: Mapping[str, Tensor]
    ) -> None:
        """Add one epoch, and write everything.

        Parameters
        ----------
        stage : str
        loss : EpochLoss
        seconds : float
            Wall-clock time of the epoch.
        accuracies : mapping of str to float
            Percent of the test images, by name of the width, such as ``W4A4`` or ``float32``.
        state : mapping of str to Tensor
            What the stage goes on from.
        """
        self.rows.append(
            {
                "stage": stage,
                "epoch": self.epochs_done(stage) + 1,
                "loss": loss.mean,
                "seconds": seconds,
                "losses": dict(loss.passes),
                "accuracies": dict(accuracies),
            }
        )
        self._stages[stage] = dict(state)
        if not self.writes:
            return
        tensors = {f"{name}/{key}": value for name, one in self._stages.items() for key, value in one.items()}
        save_state(self.path / STATE, tensors, {"config": self.config.to_json(), "rows": self.rows})
        write_json(self.path / METRICS_JSON, self.rows)
        write_bytes(self.path / METRICS_CSV, self._csv())

    def _names(self, entry: str) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row[entry]))

    def _csv(self) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = [("loss", "losses", name) for name in self._names("losses")]
        columns += [("accuracy", "accuracies", name) for name in self._names("accuracies")]
        writer.writerow(["stage", "epoch", "loss", "seconds", *(f"{told}_{name}" for told, _, name in columns)])
        for row in self.rows:
            values = [row[entry].get(name, "") for _, entry, name in columns]
            writer.writerow([row["stage"], row["epoch"], row["loss"], round(row["seconds"], 3), *values])
        return text.getvalue().encode()

    def draw_curves(self) -> Path | None:
        """Draw loss and accuracies over the epochs, and return the picture; None where matplotlib is not installed."""
        if not self.writes or not self.rows or importlib.util.find_spec("matplotlib") is None:
            return None
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.5), layout="constrained")
        losses, accuracies = figure.subplots(1, 2)
        for stage in dict.fromkeys(row["stage"] for row in self.rows):
            rows = [row for row in self.rows if row["stage"] == stage]
            losses.plot([row["epoch"] for row in rows], [row["loss"] for row in rows], marker=".", label=stage)
            if len(rows[-1]["losses"]) > 1:
                _plot(losses, stage, rows, "losses", "--")
            _plot(accuracies, stage, rows, "accuracies", "-")
        for axes, label in ((losses, "training loss"), (accuracies, "test accuracy, %")):
            axes.set_xlabel("epoch of the stage")
            axes.set_ylabel(label)
            axes.grid(alpha=0.3)
            axes.legend(fontsize=7)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=150)
        write_bytes(self.path / CURVES, picture.getvalue())
        return self.path / CURVES


def _plot(axes: Axes, stage: str, rows: Sequence[Mapping[str, Any]], entry: str, line: str) -> None:
    """Draw what the epochs of a stage that have it say about each name of an entry."""
    for name in rows[-1][entry]:
        told = [(row["epoch"], row[entry][name]) for row in rows if name in row[entry]]
        axes.plot(*zip(*told, strict=True), linestyle=line, marker=".", label=f"{stage}, {name}")


FLOAT_ENTRIES = (
    "architecture", "data", "data_path", "fold", "folds", "seed", "float_epochs", "float_annealed", "batch_size",
    "learning_rate", "weight_decay", "optimizer", "shift_pixels", "flip", "bfloat16",
)  # fmt: skip
"""Entries of a configuration that make its float network."""

COMPARED_ENTRIES = (*FLOAT_ENTRIES, "joint_epochs")
"""Those that make the float network to compare with too."""


class FloatRun:
    """The float networks of a run, for other runs to start from.

    Parameters
    ----------
    path : Path
        A run directory.
    config : TrainingConfig
        Of the run that starts from it.

    Raises
    ------
    ValueError
        If there is no run, or its float networks were made with other entries of the configuration.
    """

    def __init__(self, path: Path, config: TrainingConfig) -> None:
        self.path = Path(path)
        if not (self.path / STATE).is_file():
            raise ValueError(f"{self.path} holds no run to take float networks from")
        self._tensors, self._content = load_state(self.path / STATE)
        theirs, ours = _complete(self._content["config"]), config.to_json()
        # A schedule that goes on after the first float network makes it depend on the epochs of joint training.
        for name in FLOAT_ENTRIES if config.float_annealed else COMPARED_ENTRIES:
            if theirs[name] != ours[name]:
                told = f"{name} = {theirs[name]!r}, not {ours[name]!r}"
                raise ValueError(f"the float networks in {self.path} were made with {told}")

    def state(self, stage: str, epochs: int) -> dict[str, Tensor]:
        """Return the state of the stage ``float`` or ``compare_float`` after ``epochs`` epochs, its last.

        Raises
        ------
        ValueError
            If the stage is not complete.
        """
        done = sum(row["stage"] == stage for row in self._content["rows"])
        if done != epochs:
            raise ValueError(f"the stage {stage} in {self.path} must have {epochs} epochs, not {done}")
        prefix = f"{stage}/"
        return {name.removeprefix(prefix): one for name, one in self._tensors.items() if name.startswith(prefix)}


def _complete(config: Mapping[str, Any]) -> dict[str, Any]:
    # An entry that was not there when the run was made has the value that it began with.
    return TrainingConfig().to_json() | dict(config)


def _check_same(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any], entries: Sequence[str] | None) -> None:
    theirs = _complete(theirs)
    for name in sorted({*theirs, *ours}) if entries is None else entries:
        if theirs[name] != ours.get(name):
            raise ValueError(
                f"the run in {path} was made with {name} = {theirs[name]!r}, not {ours.get(name)!r}: "
                "resume it with the same configuration"
            )
