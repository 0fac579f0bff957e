"""`bitswitch simulate`."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from bitswitch.chain import Result
from bitswitch.export import spec_version
from bitswitch.machines import machine_for
from bitswitch.progress import Clock
from bitswitch.recorded import images_beside, is_recorded
from bitswitch.tables import as_percent, text_table
from bitswitch.verify import accuracy_of, find_damage, reference_of, verdict_of

BATCH_SIMULATED = 8
"""Images that one run of the simulator takes, at every assignment."""


def run_simulate(options: argparse.Namespace) -> Result:
    """Run a network file on the generated hardware and compare everything."""
    from hwsim import network_file
    from hwsim.assignments import select_assignments

    network = network_file.load(options.network, ignore_checksum=options.ignore_checksum)
    reference, images, labels = compared_with(network, options)
    assignments = select_assignments(network, options.assignments)
    machine = machine_for(options, network, assignments)
    clock = Clock()
    rows, _, seconds = simulate_all(network, machine, assignments, reference, images, labels)
    clock.lap("simulate")
    print(simulate_table(rows))
    damage = find_damage(options, rows)
    report = {
        "network": str(options.network),
        "spec_version": spec_version(),
        "machine": machine.to_json(),
        "seconds": clock.seconds | seconds,
        "rows": rows,
        **damage,
    }
    return report, verdict_of(damage, rows)


def compared_with(network: Any, options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Return the trained model or None, the images to run, and their labels or None.

    Images are those that the model was tested on, those stored with a network of ``sim_tests/networks``, or random.
    """
    from hwsim.random_network import random_images

    count = options.images
    if is_recorded(network, options):
        images, labels = images_beside(network, options)
        return None, images[:count], labels[:count]
    if options.checkpoint is None and "checkpoint" not in network.provenance:
        return None, random_images(network.image_shape, count, 0), None
    reference = reference_of(network, options)
    return reference, reference.images[:count], reference.labels[:count]


def simulate_all(
    network: Any, machine: Any, assignments: Sequence[Any], reference: Any, images: Any, labels: Any
) -> tuple[list[dict[str, Any]], dict[str, dict[tuple[str, str], Any]], dict[str, float]]:
    """Run images on the hardware and compare them with the integer model, and with PyTorch if there is a reference.

    The assignment changes after every image. Returns one row for each assignment, the stored tensors of the first
    image at each of them, and the seconds of each stage.
    """
    from quant.progress import Progress
    from sim_tests import accelerator
    from sim_tests.simulate import simulate
    from sim_tests.tally import Tally

    seconds: dict[str, float] = {}
    forward = None if reference is None else functools.partial(reference.deployed, network)
    tallies = {assignment.name: Tally(assignment.name, forward) for assignment in assignments}
    first: dict[str, dict[tuple[str, str], Any]] = {}
    design = accelerator.design_of(machine)
    with Progress("build with Verilator", 1) as progress:
        accelerator.build(design)
        progress.advance(design.name, 1)
    with Progress("simulate", len(images)) as progress:
        for start in range(0, len(images), BATCH_SIMULATED):
            batch = images[start : start + BATCH_SIMULATED]
            result = simulate(network, machine, assignments, batch, design=design)
            for name, tally in tallies.items():
                tally.add(result, batch, start)
                first.setdefault(name, {key: values[0] for key, values in result.stored[name].items()})
            for stage, spent in result.seconds.items():
                seconds[stage] = round(seconds.get(stage, 0) + spent, 2)
            for done in range(len(batch)):
                progress.advance(f"{len(assignments)} assignments each", start + done + 1)
    rows = [tally.row() for tally in tallies.values()]
    for row, tally in zip(rows, tallies.values(), strict=True):
        row["accuracy_rtl"] = None if labels is None else accuracy_of(tally.predicted, labels)
    return rows, first, seconds


def simulate_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the comparison with the hardware as text."""
    return text_table(
        (
            "assignment",
            "images",
            "hardware %",
            "codes compared",
            "mismatches",
            "cycles an image",
            "predicted",
            "counts differing",
        ),
        (
            (
                row["assignment"],
                row["images"],
                as_percent(row["accuracy_rtl"]),
                f"{row['codes_compared']:,}",
                f"{row['mismatches']:,}",
                f"{row['cycles_per_image']:,}",
                f"{row['cycles_predicted']:,}",
                f"{row['counts_differing']:,} of {row['counts_compared']:,}",
            )
            for row in rows
        ),
    )
