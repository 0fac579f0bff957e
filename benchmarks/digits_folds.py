"""Accuracy over out-of-fold predictions on all 1,797 digits: every width of one network against the float network.

Each fold's network is trained jointly for the width set; the float network it is compared with is trained for the same
total number of epochs. Every image is counted once, in the fold that did not train on it. Mixed assignments change the
width from layer to layer; `random mixed` is the mean over assignments drawn at random for every layer and tensor.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from hwsim.assignments import mixed_assignments
from hwsim.precision import WidthSet
from hwsim.whole_file import write_json
from quant.export import export_network
from quant.train import TrainingConfig, predict, train_network

RANDOM_MIXED = 8
"""Random assignments drawn for each fold."""


def override(config: TrainingConfig, text: str) -> TrainingConfig:
    """Return the configuration with ``name=value`` applied."""
    name, _, value = text.partition("=")
    known = {one.name: getattr(config, one.name) for one in fields(TrainingConfig)}
    if name not in known or not value:
        raise SystemExit(f"--set must be name=value with a name of {', '.join(known)}, not {text!r}")
    chosen: Any = WidthSet.parse(value) if name == "widths" else type(known[name])(json.loads(value))
    return replace(config, **{name: chosen})


def run_fold(config: TrainingConfig) -> tuple[dict[str, float], int, dict[str, float]]:
    """Return correct answers of every row, the number of test images, and the seconds of every stage."""
    result = train_network(config, progress=False)
    labels = result.split.test_labels
    images = torch.from_numpy(result.split.test_images)
    correct: dict[str, float] = {}
    if result.float_predictions is not None:
        correct["float32"] = int((result.float_predictions == labels).sum())
    for name, predicted in result.predictions.items():
        correct[name] = int((predicted == labels).sum())
    for assignment in mixed_assignments(export_network(result.model)):
        correct[assignment.name] = int((predict(result.model, assignment, images) == labels).sum())
    if len(config.widths) > 1:
        generator = random.Random(config.seed)
        drawn = [result.model.random_widths(generator) for _ in range(RANDOM_MIXED)]
        hits = [int((predict(result.model, widths, images) == labels).sum()) for widths in drawn]
        correct["random mixed"] = statistics.fmean(hits)
    return correct, len(labels), dict(result.seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="repeat with seeds 0 .. N-1")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change the training")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    first = TrainingConfig(folds=options.folds)
    for text in options.set:
        first = override(first, text)
    started = time.perf_counter()
    totals: dict[str, list[float]] = {}
    stages: dict[str, list[float]] = {}
    images = 0
    for seed in range(options.seeds):
        counted: dict[str, float] = {}
        images = 0
        for fold in range(options.folds):
            correct, tested, seconds = run_fold(replace(first, seed=seed, fold=fold))
            images += tested
            for name, hits in correct.items():
                counted[name] = counted.get(name, 0.0) + hits
            for name, value in seconds.items():
                stages.setdefault(name, []).append(value)
            print(f"seed {seed}, fold {fold}: {sum(seconds.values()):.1f} s", file=sys.stderr, flush=True)
        for name, hits in counted.items():
            totals.setdefault(name, []).append(100 * hits / images)
    reference = statistics.fmean(totals["float32"]) if "float32" in totals else None
    rows = []
    print(f"{'assignment':<14}{'accuracy %':>11}{'against float':>15}   each seed")
    for name, accuracies in totals.items():
        mean = statistics.fmean(accuracies)
        against = None if reference is None else mean - reference
        rows.append({"assignment": name, "accuracy": mean, "against_float": against, "accuracies": accuracies})
        told = "" if against is None else f"{against:+.2f}"
        print(f"{name:<14}{mean:>11.2f}{told:>15}   {' '.join(f'{value:.2f}' for value in accuracies)}")
    medians = {name: statistics.median(values) for name, values in stages.items()}
    print("median seconds of a fold: " + ", ".join(f"{name} {value:.1f}" for name, value in medians.items()))
    if options.json is not None:
        report = {
            "benchmark": "digits_folds",
            "images": images,
            "folds": options.folds,
            "seeds": options.seeds,
            "config": first.to_json(),
            "rows": rows,
            "median_seconds": medians,
            "seconds": time.perf_counter() - started,
            "torch": torch.__version__,
            "machine": f"{platform.machine()}, {os.cpu_count()} processors",
        }
        write_json(options.json, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
