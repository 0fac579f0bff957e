"""`bitswitch verify`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from bitswitch.certificates import certificate_table, certified
from bitswitch.chain import FAILED, FOLDER, OK, Refused, Result
from bitswitch.export import spec_version
from bitswitch.progress import Clock
from bitswitch.recorded import compare_recorded, is_recorded, recorded_text, recorded_verdict_of
from bitswitch.tables import as_percent, text_table

BATCH_IMAGES = 256
"""Images compared at once; bounds the memory that stored tensors take."""


def run_verify(options: argparse.Namespace) -> Result:
    """Compare the integer model with PyTorch, or with what a network that comes with images records of it."""
    from hwsim import network_file

    network = network_file.load(options.network, ignore_checksum=options.ignore_checksum)
    recorded = is_recorded(network, options)
    clock = Clock()
    if recorded:
        rows = compare_recorded(network, options)
        print(recorded_text(rows))
    else:
        reference = reference_of(network, options)
        rows = compare_all(network, reference, options.assignments, options.images)
        print(verify_table(rows))
    clock.lap("verify")
    damage = find_damage(options, rows)
    report = {
        "network": str(options.network),
        "spec_version": spec_version(),
        "seconds": clock.seconds,
        "compared_with": "recorded" if recorded else "checkpoint",
        "test_images": rows[0]["images"],
        "rows": rows,
        **damage,
    }
    return report, recorded_verdict_of(damage, rows) if recorded else verdict_of(damage, rows)


def compare_all(network: Any, reference: Any, names: str | None, count: int | None) -> list[dict[str, Any]]:
    """Return one row for each assignment: every stored tensor of the integer model against PyTorch's."""
    from hwsim import engine, verification
    from hwsim.assignments import select_assignments
    from hwsim.requantize import build_requantizers
    from quant.progress import Progress

    images, labels = reference.images[:count], reference.labels[:count]
    starts = range(0, len(images), BATCH_IMAGES)
    assignments = select_assignments(network, names)
    rows: list[dict[str, Any]] = []
    with Progress("verify", len(assignments)) as progress:
        for assignment in assignments:
            tables = build_requantizers(network, assignment)
            predicted: dict[str, list[int]] = {"torch": [], "integer_model": [], "training": []}
            parts, differing = [], 0
            for start in starts:
                batch = images[start : start + BATCH_IMAGES]
                found = engine.run(network, assignment, tables, batch)
                expected = reference.deployed(network, assignment.name, tables, batch)
                in_training = reference.in_training(assignment.name, batch)
                parts.append(verification.compare(assignment.name, expected, found, start))
                differing += verification.compare(assignment.name, expected, in_training, start).mismatches
                for model, stored in (("torch", expected), ("integer_model", found), ("training", in_training)):
                    predicted[model].extend(engine.classify(stored[network.layers[-1].name, "logits"]).tolist())
            comparison = verification.combine(assignment.name, parts)
            rows.append(
                {
                    "assignment": assignment.name,
                    "images": len(images),
                    "accuracy_torch": accuracy_of(predicted["torch"], labels),
                    "accuracy_integer_model": accuracy_of(predicted["integer_model"], labels),
                    "codes_compared": comparison.codes_compared,
                    "mismatches": comparison.mismatches,
                    "first_mismatch": None if comparison.first is None else comparison.first.to_json(),
                    "training_forward_codes_differing": differing,
                    "training_forward_predictions_differing": sum(
                        one != other for one, other in zip(predicted["torch"], predicted["training"], strict=True)
                    ),
                    **certified(tables),
                }
            )
            progress.advance(assignment.name, len(rows))
    return rows


def verify_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the comparisons as text, certificates first."""
    return certificate_table(rows) + "\n\n" + _comparison_table(rows)


def _comparison_table(rows: Sequence[Mapping[str, Any]]) -> str:
    return text_table(
        (
            "assignment",
            "torch %",
            "integer model %",
            "codes compared",
            "mismatches",
            "exact layers",
            "displaced",
            "float32 forward: codes",
            "predictions",
        ),
        (
            (
                row["assignment"],
                as_percent(row["accuracy_torch"]),
                as_percent(row["accuracy_integer_model"]),
                f"{row['codes_compared']:,}",
                f"{row['mismatches']:,}",
                row["layers_exact"],
                row["layers_displaced"],
                f"{row['training_forward_codes_differing']:,} differ",
                f"{row['training_forward_predictions_differing']:,} differ",
            )
            for row in rows
        ),
    )


def accuracy_of(predicted: Sequence[int], labels: Any) -> float:
    """Return the share of right predictions in %."""
    return round(100 * sum(int(one == label) for one, label in zip(predicted, labels, strict=True)) / len(labels), 4)


def find_damage(options: argparse.Namespace, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Print and return what a changed file shows: whose checksum fails, and the first stored number that differs."""
    from hwsim import network_file

    failures = network_file.checksum_failures(options.network) if options.ignore_checksum else ()
    for name in failures:
        print(f"checksum: {network_file.describe_failure(name)} was changed after it was written")
    first = next((row for row in rows if row["first_mismatch"] is not None), None)
    if first is not None:
        print(f"first difference: {first['assignment']}, {first['first_mismatch']['told']}")
    elif failures:
        print(f"no stored tensor differs on these {rows[0]['images']} images")
    return {
        "checksum_failures": list(failures),
        "first_mismatch": None if first is None else first["first_mismatch"],
    }


def verdict_of(damage: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> int:
    """Print and return whether all is equal."""
    differing = sum(row["mismatches"] for row in rows)
    compared = sum(row["codes_compared"] for row in rows)
    late = sum(row.get("counts_differing", 0) for row in rows)
    if differing or late or damage["checksum_failures"]:
        told = f", {late:,} counts are not as predicted" if late else ""
        print(f"NOT EQUAL: {differing:,} of {compared:,} codes differ{told}")
        return FAILED
    print(f"EQUAL: 0 of {compared:,} codes differ")
    return OK


def reference_of(network: Any, options: argparse.Namespace) -> Any:
    """Return the trained model that a network was exported from: by the name of its checkpoint, and by its checksum."""
    from quant.reference import Reference, find_checkpoint

    name = network.provenance.get("checkpoint")
    if options.checkpoint is not None:
        candidates = [options.checkpoint]
    elif name is None:
        raise Refused(f"{options.network}: does not say which checkpoint it was made from; name it with --checkpoint")
    else:
        candidates = [options.network.parent / name, FOLDER / name]
    try:
        checkpoint = find_checkpoint(network, candidates)
    except ValueError as error:
        raise Refused(f"{options.network}: {error}; --checkpoint names one") from error
    switched_to = network.provenance.get("switched_to")
    bits = None if switched_to is None else int(switched_to)
    return Reference(checkpoint, bits, options.data_path)
