"""Time of one training step for a width set, in multiples of a float training step of the same network.

Steps of both kinds take turns in one process, so that whatever else the machine does hits both; the ratio is that of
the fastest ones. `float32` is the ratio that counts; channels-last and bfloat16 convolutions are reported apart, each
against the float step of the same kind, and with `--compile` each through `torch.compile`, too, which takes minutes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from hwsim.precision import WidthSet
from hwsim.whole_file import write_json
from quant import models
from quant.convert import prepare
from quant.epochs import FloatTraining, JointTraining
from quant.memory import keep_freed_memory
from quant.methods import METHODS
from quant.training_config import PRESETS, TrainingConfig

VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float32, channels last": {"channels_last": True},
    "bfloat16, channels last": {"channels_last": True, "bfloat16": True},
}


def steps(config: TrainingConfig, batch: int, compiled: bool) -> dict[str, Callable[[], object]]:
    """Return the float step and the joint step on one random mini-batch."""
    torch.manual_seed(0)
    float_model, start = models.build(config.architecture), models.build(config.architecture)
    model = prepare(start, config.method, config.widths)
    if compiled:
        float_model.compile()
        model.compile()
    images = torch.randint(0, 256, (batch, *model.image_shape), dtype=torch.uint8)
    labels = torch.randint(10, (batch,))
    joint = JointTraining.begin(model, images, labels, config)
    single = FloatTraining.begin(float_model, config, config.float_epochs)
    # One epoch of one mini-batch is a step, with the crops and mirror images that both kinds of training make.
    return {
        "float": lambda: single.run_epoch(images, labels, 0),
        "joint": lambda: joint.run_epoch(images, labels, 0),
    }


def measure(
    config: TrainingConfig, batch: int, rounds: int, clock: Callable[[], float], compiled: bool
) -> dict[str, Any]:
    """Return milliseconds of the fastest step of each kind, and their ratio."""
    kinds = steps(config, batch, compiled)
    laps: dict[str, list[float]] = {name: [] for name in kinds}
    for index in range(rounds + 1):
        for name, run in kinds.items():
            begun = clock()
            run()
            if index:  # the first finds its memory, and is compiled
                laps[name].append(clock() - begun)
    fastest = {name: min(values) for name, values in laps.items()}
    return {
        "float_milliseconds": round(1000 * fastest["float"], 1),
        "joint_milliseconds": round(1000 * fastest["joint"], 1),
        "float_steps": round(fastest["joint"] / fastest["float"], 2),
    }


def main() -> None:
    """Measure, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", default="8,6,4,2")
    parser.add_argument("--method", default="double-rounding", choices=list(METHODS))
    parser.add_argument("--batch", type=int, default=128, help="images of a mini-batch (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="timed steps of each kind (default %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default %(default)s")
    parser.add_argument("--cpu-time", action="store_true", help="of the process instead of wall-clock: busy machines")
    parser.add_argument("--compile", action="store_true", help="every kind through torch.compile, too")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as training does
    base = replace(
        PRESETS["cifar10"], widths=WidthSet.parse(options.widths), method=options.method, channels_last=False
    )
    clock = time.process_time if options.cpu_time else time.perf_counter
    rows = {}
    print(f"ResNet-20, {options.method}, widths {base.widths}, {options.batch} images, {options.threads} threads")
    for (variant, changes), compiled in itertools.product(VARIANTS.items(), (False, True)[: 1 + options.compile]):
        name = f"{variant}, compiled" if compiled else variant
        told = rows[name] = measure(replace(base, **changes), options.batch, options.rounds, clock, compiled)
        print(
            f"{name:36} float {told['float_milliseconds']:8.1f} ms   joint {told['joint_milliseconds']:8.1f} ms   "
            f"{told['float_steps']:.2f} float steps",
            flush=True,
        )
    if options.json is not None:
        host = {"machine": platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
        content = {
            "network": "resnet20", "method": options.method, "widths": list(base.widths.widths),
            "batch": options.batch, "threads": options.threads, "cpu_time": options.cpu_time, "host": host,
            "rows": rows,
        }  # fmt: skip
        write_json(options.json, content)


if __name__ == "__main__":
    main()
