"""Whether joint training in bfloat16 is as good as in float32, on the digits: accuracies at every width.

Both start from the same float network of each seed (float32, 8 epochs) and train jointly for 8 epochs, with the kernels
of ``quant.fused``. Accuracies are PyTorch's in float32, with two folds: 899 test images, one is 0.11 points.

    python benchmarks/training_precision.py --json benchmarks/training_precision.json
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.ablation import EPOCHS, FOLDS, float_network, over_seeds, run
from hwsim.whole_file import write_json
from quant.training_config import TrainingConfig

PRECISIONS = {"float32": False, "bfloat16": True}


def main() -> None:
    """Run what is missing, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds 0 .. N-1 (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="finished runs in it are not made again")
    options = parser.parse_args()
    torch.set_num_threads(1)
    done: list[dict[str, Any]] = []
    if options.json is not None and options.json.is_file():
        done = json.loads(options.json.read_text())["runs"]
    for seed in range(options.seeds):
        missing = [
            name for name in PRECISIONS if not any((one["seed"], one["precision"]) == (seed, name) for one in done)
        ]
        if not missing:
            continue
        base = TrainingConfig(seed=seed, folds=FOLDS, float_epochs=EPOCHS, joint_epochs=EPOCHS, channels_last=True)
        start, _ = float_network(base, EPOCHS)
        for name in missing:
            accuracies = run(replace(base, bfloat16=PRECISIONS[name]), start, "half-up")
            done.append({"seed": seed, "precision": name, "accuracies": accuracies})
            print(json.dumps(done[-1]), file=sys.stderr, flush=True)
            if options.json is not None:
                rows = {precision: table(done, precision) for precision in PRECISIONS}
                content = {
                    "data": "digits, 2 folds",
                    "epochs": f"{EPOCHS} float + {EPOCHS} joint",
                    "rows": rows,
                    "runs": done,
                }
                write_json(options.json, content)
    for precision in PRECISIONS:
        cells = (f"{name} {row['mean']:.2f} +- {row['deviation']:.2f}" for name, row in table(done, precision).items())
        print(f"{precision:9} " + "  ".join(cells))


def table(done: list[dict[str, Any]], precision: str) -> dict[str, dict[str, float]]:
    """Return mean and standard deviation over the seeds at every width."""
    mine = [one["accuracies"] for one in done if one["precision"] == precision]
    return {name: over_seeds([one[name] for one in mine]) for name in (mine[0] if mine else ())}


if __name__ == "__main__":
    main()
