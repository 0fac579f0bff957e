"""`bitswitch train`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitswitch.chain import CHECKPOINT, OK, Refused, Result
from bitswitch.progress import Clock
from bitswitch.tables import accuracy_table, as_percent, text_table

if TYPE_CHECKING:
    from hwsim.network import Assignment


def run_train(options: argparse.Namespace) -> Result:
    """Train one network for several widths."""
    if options.folds is not None:
        return _train_folds(options)
    clock = Clock()
    trained = train_checkpoint(options, options.out / CHECKPOINT)
    clock.lap("train")
    if trained.checkpoint is None:
        # Under torchrun one process tells and writes for all.
        return {}, OK
    print(accuracy_table([("float32", trained.float_accuracy), *trained.accuracies.items()]))
    print(f"{len(trained.split.test_labels)} test images, {clock.seconds['train']} s; {trained.checkpoint}")
    report = {
        "checkpoint": str(trained.checkpoint),
        "seconds": clock.seconds,
        "test_images": len(trained.split.test_labels),
        "float_accuracy": trained.float_accuracy,
        "accuracies": dict(trained.accuracies),
        "config": trained.config.to_json(),
    }
    return report, OK


def _train_folds(options: argparse.Namespace) -> Result:
    """Train once for each fold, and count every image in the fold that did not train on it."""
    from dataclasses import replace

    from hwsim.assignments import standard_assignments
    from hwsim.engine import classify, logits
    from hwsim.requantize import build_requantizers
    from quant.export import export_network
    from quant.hot_swap import deployable
    from quant.train import train_network

    clock = Clock()
    first = _training_config(options)
    if first.data != "digits" or options.resume:
        raise Refused("--folds is for the digits, and such a run cannot be resumed")
    first = replace(first, folds=options.folds)
    images = 0
    correct: dict[str, dict[str, int]] = {}

    def count(name: str, model: str, predictions: Any, labels: Any) -> None:
        counted = correct.setdefault(name, {})
        counted[model] = counted.get(model, 0) + int((predictions == labels).sum())

    for fold in range(options.folds):
        trained = train_network(replace(first, fold=fold), progress=True, device=options.device)
        labels = trained.split.test_labels
        images += len(labels)
        count("float32", "torch", trained.float_predictions, labels)
        # Of a method that stores each width by itself there are several networks.
        assignments: dict[str, Assignment] = {}
        for model in deployable(trained.model).values():
            assignments = {one.name: one for one in standard_assignments(export_network(model))} | assignments
        for name, predictions in trained.predictions.items():
            count(name, "torch", predictions, labels)
            assignment = assignments[name]
            tables = build_requantizers(assignment.network, assignment)
            predicted = classify(logits(assignment.network, assignment, tables, trained.split.test_images))
            count(name, "integer_model", predicted, labels)
    clock.lap("train")
    rows: list[dict[str, Any]] = [
        {"assignment": name, **{f"accuracy_{model}": 100 * hits / images for model, hits in counted.items()}}
        for name, counted in correct.items()
    ]
    print(
        text_table(
            ("assignment", "torch %", "integer model %", "against float, points"),
            (
                (
                    row["assignment"],
                    f"{row['accuracy_torch']:.2f}",
                    as_percent(row.get("accuracy_integer_model")),
                    f"{row.get('accuracy_integer_model', row['accuracy_torch']) - rows[0]['accuracy_torch']:+.2f}",
                )
                for row in rows
            ),
        )
    )
    print(f"{images} images, each in the fold that did not train on it; {clock.seconds['train']} s")
    report = {
        "folds": options.folds,
        "images": images,
        "seconds": clock.seconds,
        "rows": rows,
        "config": first.to_json(),
    }
    return report, OK


def _training_config(options: argparse.Namespace) -> Any:
    from dataclasses import replace

    from quant.training_config import DIGITS, preset

    chosen = {
        name: getattr(options, name)
        for name in (
            *("widths", "method", "seed", "float_epochs", "joint_epochs"),
            *("data", "data_path", "architecture", "self_distillation", "block_replacement", "budget_of", "budget"),
            *("batch_size", "learning_rate", "joint_learning_rate", "scale_learning_rate", "shared_weight_rate"),
            *("alrs", "alrs_decay", "bfloat16"),
        )
        if getattr(options, name, None) is not None
    }
    if "bfloat16" in chosen:
        chosen["channels_last"] = True  # the convolutions that pay
    return replace(preset(chosen.get("data", DIGITS)), **chosen)


def train_checkpoint(options: argparse.Namespace, checkpoint: Path) -> Any:
    """Train as the options say, into a checkpoint."""
    from quant.train import train_network

    # Only the verb train has a run to resume, and a choice of device.
    resume = getattr(options, "resume", None)
    return train_network(
        _training_config(options),
        checkpoint=checkpoint,
        progress=True,
        run_directory=None if resume is None else options.out,
        resume=bool(resume),
        device=getattr(options, "device", "cpu"),
    )
