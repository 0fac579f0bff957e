"""Accuracy of every training method at every width, on the same budget, seed and float network.

All runs start from one float network (30 epochs on CIFAR-10), train jointly (10 epochs) and are compared with a float
network that was trained for the sum of both: on CIFAR-10 the same one, trained on. Accuracies are the integer model's
on all test images; every stored tensor of the first ones is compared with the deployed PyTorch forward, and a single
code that differs is an error.

    python benchmarks/training_table.py                                        writes the table of the logged runs
    python benchmarks/training_table.py --runs FOLDER --data ARCHIVE --run     makes what is missing, one after another
    python benchmarks/training_table.py --runs FOLDER                          writes the table of what is there
    python benchmarks/training_table.py --runs FOLDER --log training_runs/NAME keeps its logs and float networks

A run that was interrupted goes on from its last epoch. Once the first float network is there, several processes can
make different runs in one folder (``--only``). ``--data`` is a folder or tar archive of images by class, or
``digits``; decoded images are kept in FOLDER. With ``--runs``, rows that no given folder has stay in the table as they
are; the table of the logged runs has theirs only.
A copy of a folder of logged runs is one to make further runs in, from the same float network; a run there that has a
checkpoint and no rows is measured again, not trained.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from hwsim import engine, network_file, verification
from hwsim.assignments import standard_assignments
from hwsim.machine import Machine
from hwsim.network import Assignment, Network
from hwsim.precision import CATALOG, WidthSet
from hwsim.program import build, fit_machine
from hwsim.requantize import build_requantizers
from hwsim.timing import image_timing
from hwsim.whole_file import write_json, written_whole
from quant.checkpoint import load_checkpoint
from quant.data import Split
from quant.data_sets import load_split
from quant.deploy import deployed_forward
from quant.export import export_network
from quant.hot_swap import deployable
from quant.reference import provenance
from quant.run_directory import CONFIG, METRICS_JSON, STATE
from quant.switchable import SwitchableNetwork
from quant.train import COMPARE_FLOAT, FLOAT, percent_correct, train_float, train_network
from quant.training_config import CIFAR10, DIGITS, IMAGES, PRESETS, TrainingConfig
from quant.training_state import load_state, save_state

TABLE = Path(__file__).with_suffix(".json")
LOGGED = Path(__file__).with_name("training_runs")
NETWORKS = Path(__file__).resolve().parent.parent / "sim_tests" / "networks"
FLOAT_RUN, CHECKPOINT, ROWS, ABOUT = "float", "checkpoint.safetensors", "rows.json", "about.json"
BATCH_IMAGES = 250

ALL = CATALOG["8-6-4-2"]
RUNS: dict[str, dict[str, Any]] = {
    "double-rounding": {},
    "double-rounding, without ALRS": {"alrs_decay": 1.0},
    "double-rounding, with ALRS": {"alrs_decay": 0.1},
    **{f"lsq {bits}": {"method": "lsq", "widths": WidthSet((bits,))} for bits in (2, 4, 8, 6)},
    "truncation-ready": {"method": "truncation-ready"},
    "any-precision": {"method": "any-precision"},
    "hasb": {"method": "hasb"},
    "sdq": {"method": "sdq"},
    "hot-swap": {"method": "hot-swap", "widths": WidthSet((8, 6, 4, 2, 1))},
    "double-rounding, block replacement": {"block_replacement": 0.5},
    "double-rounding, self-distillation": {"self_distillation": 0.7},
    "double-rounding, a quarter of the rate": {"joint_learning_rate": 0.25},
    "double-rounding, shared weights slower, self-distillation": {
        "shared_weight_rate": 0.25,
        "self_distillation": 0.7,
    },
}
"""Name of a run -> what its configuration has other than the preset's, learning rates in multiples of it; in the order
in which they are made. One that has nothing other, as the preset is with or without ALRS, is not made."""

LONGER_FLOAT = "float, all epochs"
"""Name of the run of the float network that the others are compared with."""


def base_config(data: str, seed: int, threads: int) -> TrainingConfig:
    """Return the configuration that all runs on some data share."""
    if data == DIGITS:
        return replace(PRESETS[DIGITS], seed=seed, threads=threads, compare_float=False)
    # The name of the archive, not its place: a run goes on wherever the data are.
    name = Path(data).name
    return replace(PRESETS[CIFAR10], data=IMAGES, data_path=name, seed=seed, threads=threads, compare_float=False)


def changed(config: TrainingConfig, changes: Mapping[str, Any]) -> TrainingConfig:
    """Return a run's configuration, see :data:`RUNS`."""
    rates = {name: share * getattr(config, name) for name, share in changes.items() if name.endswith("learning_rate")}
    return replace(config, **{**changes, **rates})


def load_images(folder: Path, data: str, config: TrainingConfig) -> Split:
    """Return the images, decoded once and kept in the folder of the runs."""
    if data == DIGITS:
        return load_split(config)
    cache = folder / f"{Path(data).name}.npz"
    if not cache.is_file():
        split = load_split(replace(config, data_path=data), progress=True)
        with written_whole(cache) as temporary, temporary.open("wb") as file:
            np.savez(file, **{name: getattr(split, name) for name in Split.__dataclass_fields__})
    with np.load(cache) as file:
        return Split(**{name: file[name] for name in Split.__dataclass_fields__})


def folder_of(runs: Path, name: str) -> Path:
    """Return the run directory of a run."""
    return runs / name.replace(", ", "-").replace(" ", "-")


def data_name(config: Mapping[str, Any]) -> str:
    """Return the name that files in sim_tests/networks begin with: of the data set, or of the archive of images."""
    return config["data"] if config["data_path"] is None else config["data_path"].partition(".")[0]


def shipped_name(data: str, run: Path, file: str) -> str:
    """Return the name that a run's network file has in sim_tests/networks."""
    return f"{data}-{run.name}-{file}".replace("-network", "")


def told_precision(config: Mapping[str, Any]) -> str:
    """Return what a row says after its epochs about the precision of training."""
    return ", bfloat16" if config["bfloat16"] else ""


def say(text: str) -> None:
    """Print with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def hardware() -> str:
    """Return what a row says about this machine."""
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"


def make_runs(
    runs: Path, data: str, label: str, names: list[str], seed: int, threads: int, compared: int, bfloat16: bool
) -> None:
    """Make what is missing of the runs, in order."""
    runs.mkdir(parents=True, exist_ok=True)
    config = replace(base_config(data, seed, threads), bfloat16=bfloat16)
    about = {"data": label, "hardware": hardware()}
    there = json.loads((runs / ABOUT).read_text()) if (runs / ABOUT).is_file() else about
    if there["data"] != label:
        raise SystemExit(f"{runs} holds runs on {there['data']}, not on {label}: choose another folder, or its --label")
    write_json(runs / ABOUT, there)
    split = load_images(runs, data, config)
    float_run = runs / FLOAT_RUN
    # The float run has its own entry, which differs from that of the runs that start from it.
    float_config = replace(config, compare_float=True)
    say("float network")
    train_float(float_config, float_run, (FLOAT,), split=split)
    for name in names:
        run = folder_of(runs, name)
        if name == LONGER_FLOAT:
            say("float network to compare with")
            train_float(float_config, float_run, (COMPARE_FLOAT,), split=split)
        elif not (run / ROWS).is_file():
            own = changed(config, RUNS[name])
            if RUNS[name] and own == config:
                say(f"{name}: as {next(iter(RUNS))}, not made")
                continue
            say(name)
            if not (run / CHECKPOINT).is_file():
                train_network(
                    own,
                    checkpoint=run / CHECKPOINT,
                    run_directory=run,
                    resume=True,
                    float_run=float_run,
                    split=split,
                )
            say(f"{name}: the integer model")
            write_json(run / ROWS, list(measured(run, name, split, compared)))


def measured(run: Path, name: str, split: Split, compared: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a run: accuracy, cycles and storage of every assignment that it trained for."""
    loaded = load_checkpoint(run / CHECKPOINT)
    precision = told_precision(loaded.config)
    training = {"training": json.dumps(loaded.config, sort_keys=True)}
    for bits, model in deployable(loaded.model).items():
        several = len(deployable(loaded.model)) > 1
        switched = {"switched_to": str(bits)} if several else {}
        origin = provenance(run / CHECKPOINT, loaded.architecture) | training | switched
        network = export_network(model, origin)
        file = run / (f"network-W{bits}.safetensors" if several else "network.safetensors")
        network_file.save(network, file)
        for assignment in chosen_assignments(model, standard_assignments(network), bits):
            widths = WidthSet(tuple({*ALL.widths, *network.width_set.widths}))
            machine = fit_machine(network, [assignment], Machine.sized(widths, widths, 32, 16))
            cycles = image_cycles(network, machine, assignment)
            accuracy = checked_accuracy(model, assignment, split, compared)
            stored = sum(layer.codes.size * layer.stored_bits for layer in network.weight_layers)
            if several:  # the float weights that every width is made from
                stored = sum(
                    layer.codes.size * (8 if network.is_pinned(layer) else 32) for layer in network.weight_layers
                )
            yield {
                "method": name.partition(" ")[0] if name.startswith("lsq") else name,
                "network": loaded.architecture,
                "seed": loaded.config["seed"],
                "hardware": hardware(),
                "epochs": f"{loaded.config['float_epochs']} float + {loaded.config['joint_epochs']} joint{precision}",
                "assignment": assignment.name,
                "accuracy": round(accuracy, 2),
                "average_weight_bits": round(assignment.average_weight_bits, 3),
                "cycles_per_image": cycles,
                "weight_bits_stored": stored,
                "network_file": file.name,
            }


def image_cycles(network: Network, machine: Machine, assignment: Assignment) -> int:
    """Return the cycles of one image."""
    program = build(network, machine, [assignment])
    return image_timing(machine, program.assignments[assignment.name]).cycles


def chosen_assignments(model: SwitchableNetwork, assignments: tuple[Assignment, ...], bits: int) -> list[Assignment]:
    """Return the assignments that a model was trained for."""
    if model.method == "sdq":
        return [one for one in assignments if one.name in model.learned]
    if model.method == "hot-swap":
        return [one for one in assignments if one.name == f"W{bits}A{bits}"]
    return list(assignments)


def checked_accuracy(model: SwitchableNetwork, assignment: Assignment, split: Split, compared: int) -> float:
    """Return the integer model's accuracy on all test images, percent.

    Raises
    ------
    RuntimeError
        If a code of the first ``compared`` images is not that of the deployed PyTorch forward.
    """
    tables = build_requantizers(assignment.network, assignment)
    predictions = []
    for start in range(0, len(split.test_images), BATCH_IMAGES):
        batch = split.test_images[start : start + BATCH_IMAGES]
        if start < compared:
            found = engine.run(assignment.network, assignment, tables, batch)
            expected = deployed_forward(model, assignment, tables, batch)
            comparison = verification.compare(assignment.name, expected, found, start)
            if not comparison.equal:
                raise RuntimeError(str(comparison))
            logits = found[assignment.network.layers[-1].name, "logits"]
        else:
            logits = engine.logits(assignment.network, assignment, tables, batch)
        predictions.append(engine.classify(logits.reshape(len(batch), -1)))
    return percent_correct(np.concatenate(predictions), split.test_labels)


def float_stages(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the stages that end with a float network to use, and how many epochs each has."""
    if config.get("float_annealed", True):
        return {FLOAT: config["float_epochs"], COMPARE_FLOAT: config["float_epochs"] + config["joint_epochs"]}
    # What joint training starts from is the middle of a schedule, and no network to use.
    return {COMPARE_FLOAT: config["joint_epochs"]}


def table_rows(runs: Path) -> list[dict[str, Any]]:
    """Return the rows of a folder of runs, with the float networks as rows of their own."""
    about = json.loads((runs / ABOUT).read_text())
    rows, accuracies = [], {}
    metrics = runs / FLOAT_RUN / METRICS_JSON
    config = json.loads((metrics.parent / CONFIG).read_text())
    every_epoch, precision = config["float_epochs"] + config["joint_epochs"], told_precision(config)
    epochs = float_stages(config)
    for entry in json.loads(metrics.read_text()):
        if entry["epoch"] == epochs.get(entry["stage"]):
            accuracies[entry["stage"]] = round(entry["accuracies"]["float32"], 2)
    compared = accuracies.get(COMPARE_FLOAT)
    for stage, accuracy in accuracies.items():
        total = every_epoch if stage == COMPARE_FLOAT else config["float_epochs"]
        rows.append(
            {
                "method": "float", "network": config["architecture"], "seed": config["seed"],
                "epochs": f"{total} float{precision}", "assignment": "float32", "accuracy": accuracy,
                "average_weight_bits": 32.0, "cycles_per_image": None, "weight_bits_stored": None, "network_file": None,
            }
        )  # fmt: skip
    for name in RUNS:
        file = folder_of(runs, name) / ROWS
        for row in json.loads(file.read_text()) if file.is_file() else ():
            # Only files that are shipped are named.
            shipped = shipped_name(data_name(config), file.parent, row["network_file"])
            rows.append({**row, "network_file": shipped if (NETWORKS / shipped).is_file() else None})
    # Rows that do not say are of the machine that the folder was begun on.
    return [{**about, **row, "float_accuracy": compared} for row in rows]


def log(runs: Path, folder: Path) -> None:
    """Copy what the rows of finished runs are made of, and the float networks, to a folder."""
    for run in sorted(runs.iterdir()):
        if run.name == FLOAT_RUN or (run / ROWS).is_file():
            (folder / run.name).mkdir(parents=True, exist_ok=True)
            for name in (CONFIG, METRICS_JSON, ROWS):
                if (run / name).is_file():
                    shutil.copyfile(run / name, folder / run.name / name)
    shutil.copyfile(runs / ABOUT, folder / ABOUT)
    tensors, content = load_state(runs / FLOAT_RUN / STATE)
    epochs = {stage: sum(row["stage"] == stage for row in content["rows"]) for stage in (FLOAT, COMPARE_FLOAT)}
    if epochs.items() >= float_stages(content["config"]).items():
        # Nothing is left to train on.
        tensors = {name: tensor for name, tensor in tensors.items() if "/optimizer." not in name}
    about = {name: content[name] for name in ("config", "rows")}
    save_state(folder / FLOAT_RUN / STATE, tensors, about)


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return all rows; of two of the same training, network and assignment the new one, in the place of the old."""
    key = operator.itemgetter("data", "method", "network", "seed", "epochs", "assignment")
    return list(({key(row): row for row in old} | {key(row): row for row in new}).values())


def told(rows: list[dict[str, Any]]) -> str:
    """Return the table as text, accuracies in percent."""
    lines = []
    for data in dict.fromkeys(row["data"] for row in rows):
        lines.append(f"{data}: accuracy, % (average weight bits, cycles per image)")
        mine = [row for row in rows if row["data"] == data]
        for row in mine:
            cycles = "" if row["cycles_per_image"] is None else f"{row['cycles_per_image']:>10,}"
            lines.append(
                f"  {row['method']:36} {row['assignment']:8} {row['epochs']:20} {row['accuracy']:6.2f}"
                f" {row['average_weight_bits']:6.2f} {cycles}"
            )
    return "\n".join(lines)


def main() -> None:
    """Make runs if asked, and write the table."""
    first, *others = RUNS
    names = [first, LONGER_FLOAT, *others]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", type=Path, action="append", metavar="FOLDER", help="may come twice (default: the logged runs)"
    )
    parser.add_argument("--log", type=Path, metavar="FOLDER", help="copy logs and float networks of the last folder")
    parser.add_argument("--run", action="store_true", help="make the runs that are missing in the last folder")
    parser.add_argument("--data", default=DIGITS, help="digits, or a folder or archive of images by class")
    parser.add_argument("--label", help="what the table calls the data (default: as --data)")
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help="make only this; repeat")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--bfloat16", action="store_true", help="train with convolutions in bfloat16")
    parser.add_argument("--compared", type=int, default=1000, help="images compared code by code (default %(default)s)")
    parser.add_argument(
        "--json", type=Path, default=TABLE, metavar="FILE", help="default benchmarks/training_table.json"
    )
    options = parser.parse_args()
    if options.runs is None and (options.run or options.log):
        parser.error("runs are made in a folder, and logged from one: give it with --runs")
    if options.run:
        label = options.label or Path(options.data).name
        torch.set_num_threads(options.threads)
        make_runs(
            options.runs[-1],
            options.data,
            label,
            options.only or names,
            options.seed,
            options.threads,
            options.compared,
            options.bfloat16,
        )
    if options.log:
        log(options.runs[-1], options.log)
    rows = []
    for runs in options.runs or sorted(LOGGED.iterdir()):
        found = table_rows(runs)
        if any(row["float_accuracy"] is None for row in found):
            say(f"{runs}: no rows before there is the float network of all epochs, to compare with")
        else:
            rows += found
    if options.runs and options.json.is_file():
        rows = merged(json.loads(options.json.read_text())["rows"], rows)
    write_json(options.json, {"rows": rows})
    print(told(rows))


if __name__ == "__main__":
    main()
