"""Put networks of finished runs into sim_tests/networks, with stored test images and checksums of their codes.

    python benchmarks/ship_network.py --runs FOLDER --data digits double-rounding hasb

FOLDER is one of ``training_table.py``, names are its runs. Every network file says how it was trained, its accuracy on
all test images, and what PyTorch makes of the stored ones from the run's checkpoint: how many it gets right, and a
checksum of every stored tensor. ``bitswitch verify`` compares the integer model with that, without the checkpoint.
README.md is written from the files. A network that a file is already there for is replaced.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray

from benchmarks.training_table import (
    ABOUT,
    CHECKPOINT,
    DIGITS,
    ROWS,
    base_config,
    data_name,
    folder_of,
    load_images,
    shipped_name,
)
from hwsim import network_file
from hwsim.assignments import select_assignments
from hwsim.network import Network
from hwsim.requantize import build_requantizers
from hwsim.whole_file import write_bytes, written_whole
from quant.checkpoint import load_checkpoint
from quant.data import Split
from quant.deploy import deployed_forward
from quant.hot_swap import deployable
from quant.reference import find_checkpoint
from quant.switchable import SwitchableNetwork
from sim_tests import shipped

STORED_IMAGES = 64

INTRODUCTION = """# Trained networks

Each was made by `benchmarks/training_table.py` (its training is in the file) and put here by
`benchmarks/ship_network.py`, which also writes this page. The files hold checksums of what PyTorch computed of the
stored test images, tensor by tensor; `bitswitch verify FILE` runs the integer model on the images and compares.

Accuracies, in percent, are the integer model's on all test images.

| file | method | data | epochs | hardware | accuracy | SHA-256 |
|---|---|---|---|---|---|---|
"""


def stored_part(split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the test images that are stored, and their labels."""
    return split.test_images[:STORED_IMAGES], split.test_labels[:STORED_IMAGES]


def store_images(split: Split, data: str) -> Path:
    """Write the first test images, unless they are there, and return the file."""
    path = shipped.NETWORKS / f"{data}-images.npz"
    images, labels = stored_part(split)
    if not path.is_file():
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, images=images, labels=labels)
    with np.load(path) as there:
        if not (np.array_equal(there["images"], images) and np.array_equal(there["labels"], labels)):
            raise SystemExit(f"{path} holds other images than this run was tested on")
    return path


def ship(runs: Path, name: str, split: Split, data: str) -> list[Path]:
    """Put the networks of a run into the folder, and return their files."""
    run = folder_of(runs, name)
    if not (run / ROWS).is_file():
        raise SystemExit(f"the run {name} in {runs} is not finished")
    about = json.loads((runs / ABOUT).read_text())
    rows = json.loads((run / ROWS).read_text())
    images = store_images(split, data)
    made = []
    for file in dict.fromkeys(row["network_file"] for row in rows):
        network = network_file.load(run / file)
        mine = {row["assignment"]: row for row in rows if row["network_file"] == file}
        any_row = next(iter(mine.values()))
        origin = {
            **network.provenance, **about, "method": any_row["method"], "epochs": any_row["epochs"],
            "images": images.name, "images_sha256": shipped.sha256_of(images),
        }  # fmt: skip
        model = trained_model(run, network)
        measured = {
            assignment: {"accuracy": row["accuracy"], **computed(model, network, assignment, split)}
            for assignment, row in mine.items()
        }
        network = replace(network, provenance=origin | {"measured": json.dumps(measured)})
        check(network, split)
        made.append(shipped.NETWORKS / shipped_name(data, run, file))
        network_file.save(network, made[-1])
    return made


def trained_model(run: Path, network: Network) -> SwitchableNetwork:
    """Return the trained model that a network of a run was exported from."""
    models = deployable(load_checkpoint(find_checkpoint(network, [run / CHECKPOINT])).model)
    return models[int(network.provenance.get("switched_to", network.width_set.highest))]


def computed(model: SwitchableNetwork, network: Network, name: str, split: Split) -> dict[str, object]:
    """Return what PyTorch makes of the images to store, at the assignment called ``name``."""
    (assignment,) = select_assignments(network, name)
    images, labels = stored_part(split)
    stored = deployed_forward(model, assignment, build_requantizers(network, assignment), images)
    return shipped.describe(stored, labels)


def check(network: Network, split: Split) -> None:
    """Refuse a network in which the integer model does not compute what is recorded."""
    for assignment in select_assignments(network, ",".join(shipped.claims(network))):
        tables = build_requantizers(network, assignment)
        found = shipped.compare_with_recorded(assignment, tables, *stored_part(split))
        if not found.equal:
            raise SystemExit(
                f"{found.assignment}: the integer model differs from PyTorch, first in {found.differing[0]}"
            )


def readme() -> str:
    """Return README.md, from what the files say."""
    lines = []
    for path in shipped.network_files():
        network = network_file.load(path)
        said = network.provenance
        accuracies = ", ".join(f"{name} {one['accuracy']:.2f}" for name, one in shipped.claims(network).items())
        cells = (said["method"], said["data"], said["epochs"], said["hardware"], accuracies)
        lines.append(f"| `{path.name}` | {' | '.join(cells)} | `{shipped.sha256_of(path)}` |\n")
    return INTRODUCTION + "".join(lines)


def main() -> None:
    """Ship the runs that are named, and write README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="runs; none: README.md is written again")
    parser.add_argument("--runs", type=Path, metavar="FOLDER")
    parser.add_argument("--data", default=DIGITS, help="as for training_table.py")
    options = parser.parse_args()
    if options.names:
        if options.runs is None:
            parser.error("runs are in a folder: give it with --runs")
        config = base_config(options.data, 0, 1)
        split = load_images(options.runs, options.data, config)
        for name in options.names:
            for path in ship(options.runs, name, split, data_name(config.to_json())):
                print(f"{path.name}: {path.stat().st_size:,} bytes")
    write_bytes(shipped.README, readme().encode())


if __name__ == "__main__":
    main()
