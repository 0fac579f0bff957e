"""What the parts of Double Rounding are worth: rounding rule x ALRS x self-distillation, on the digits.

The rules are those of the switch from the stored code: `half-up` (the hardware's), `half-even` (torch.round, the
released code's; no hardware here has it) and `floor` (a plain shift). All runs of a seed start from the same float
network: 8 epochs, then 8 joint ones; the float network they are compared with has 16. With two folds there are 898
images to train on and 899 to test on: one image is 0.11 points. Accuracies are PyTorch's, mean and standard deviation
over the seeds.

    python benchmarks/ablation.py --json benchmarks/ablation.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from hwsim.network import FLOOR, ROUND
from hwsim.whole_file import write_json
from quant.convert import prepare
from quant.data import load_digits_split
from quant.epochs import FloatTraining, JointTraining
from quant.functional import HALF_EVEN
from quant.models import build
from quant.self_distillation import STRENGTH
from quant.train import TrainingConfig, percent_correct, predict, predict_float

RULES = {"half-up": ROUND, "half-even": HALF_EVEN, "floor": FLOOR}
FOLDS = 2
EPOCHS = 8
"""Of the float network, and again of joint training."""


def run(config: TrainingConfig, start: torch.nn.Module, rule: str) -> dict[str, float]:
    """Return the accuracy at every width after joint training from a float network."""
    split = load_digits_split(0, config.folds, config.seed)
    images, labels = torch.from_numpy(split.train_images), torch.from_numpy(split.train_labels)
    model = prepare(start, config.method, config.widths)
    for name, layer in model.weight_layers():
        if not model.is_pinned(name):
            layer.switch_rule = RULES[rule]
    training = JointTraining.begin(model, images, labels, config)
    for epoch in range(training.epochs):
        training.run_epoch(images, labels, epoch)
    training.finish()
    tests = torch.from_numpy(split.test_images)
    return {f"W{b}A{b}": percent_correct(predict(model, b, tests), split.test_labels) for b in config.widths}


def float_network(config: TrainingConfig, epochs: int) -> tuple[torch.nn.Module, float]:
    """Return a float network trained for some epochs, and its accuracy."""
    split = load_digits_split(0, config.folds, config.seed)
    images, labels = torch.from_numpy(split.train_images), torch.from_numpy(split.train_labels)
    torch.manual_seed(config.seed)
    model = build(config.architecture)
    training = FloatTraining.begin(model, config, epochs)
    for epoch in range(epochs):
        training.run_epoch(images, labels, epoch)
    training.finish()
    return model, percent_correct(predict_float(model, torch.from_numpy(split.test_images)), split.test_labels)


def main() -> None:
    """Run, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 .. N-1 (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="finished runs in it are not made again")
    options = parser.parse_args()
    torch.set_num_threads(1)
    done: list[dict[str, Any]] = []
    if options.json is not None and options.json.is_file():
        done = json.loads(options.json.read_text())["runs"]
    for seed in range(options.seeds):
        base = TrainingConfig(seed=seed, folds=FOLDS, float_epochs=EPOCHS, joint_epochs=EPOCHS)
        start = None
        for rule, alrs, distilled in itertools.product(RULES, (True, False), (False, True)):
            key = {"seed": seed, "rule": rule, "alrs": alrs, "self_distillation": distilled}
            if any(all(one[name] == value for name, value in key.items()) for one in done):
                continue
            if start is None:
                start = float_network(base, base.float_epochs)[0]
                compared = float_network(base, base.float_epochs + base.joint_epochs)[1]
            config = replace(
                base, alrs_decay=base.alrs_decay if alrs else 1.0, self_distillation=STRENGTH if distilled else 0.0
            )
            accuracies = run(config, start, rule)
            done.append({**key, "float32": compared, **accuracies})
            print(json.dumps(done[-1]), file=sys.stderr, flush=True)
            if options.json is not None:
                write(options.json, done)
    for row in table(done):
        print(row["told"])


def over_seeds(values: list[float]) -> dict[str, float]:
    """Return mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.fmean(values), 2), "deviation": round(deviation, 2)}


def table(done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return mean and standard deviation over the seeds of every combination."""
    rows = []
    widths = [name for name in done[0] if name.startswith("W")]
    for rule, alrs, distilled in itertools.product(RULES, (True, False), (False, True)):
        mine = [one for one in done if (one["rule"], one["alrs"], one["self_distillation"]) == (rule, alrs, distilled)]
        if not mine:
            continue
        row: dict[str, Any] = {"rule": rule, "alrs": alrs, "self_distillation": distilled, "seeds": len(mine)}
        for name in ("float32", *widths):
            row[name] = over_seeds([one[name] for one in mine])
        cells = "".join(f"  {name} {row[name]['mean']:6.2f} +- {row[name]['deviation']:.2f}" for name in widths)
        row["told"] = f"{rule:10} ALRS {'on ' if alrs else 'off'} distillation {'on ' if distilled else 'off'}{cells}"
        rows.append(row)
    return rows


def write(path: Path, done: list[dict[str, Any]]) -> None:
    """Write the runs and the table; the file appears complete or not at all."""
    content = {
        "data": "digits, 2 folds",
        "float_epochs": EPOCHS,
        "joint_epochs": EPOCHS,
        "rows": table(done),
        "runs": done,
    }
    write_json(path, content)


if __name__ == "__main__":
    main()
