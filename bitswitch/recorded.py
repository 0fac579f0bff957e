"""A network that comes with images and records what PyTorch computed of them: compared with that, by no checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from bitswitch.certificates import certificate_table, certified
from bitswitch.chain import FAILED, OK, Refused
from bitswitch.tables import as_percent, text_table


def is_recorded(network: Any, options: argparse.Namespace) -> bool:
    """Return whether a network is compared with its own records: it comes with images, and no checkpoint is named."""
    return options.checkpoint is None and "images" in network.provenance


def images_beside(network: Any, options: argparse.Namespace) -> tuple[Any, Any]:
    """Return the images that come with a network, and their labels."""
    from sim_tests.shipped import stored_images

    try:
        return stored_images(network, options.network.parent)
    except OSError as error:
        raise Refused(f"{options.network}: its images {network.provenance['images']} are not beside it") from error


def compare_recorded(network: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row for each assignment: the integer model on the stored images, against what the file records."""
    from hwsim.assignments import select_assignments
    from hwsim.requantize import build_requantizers
    from sim_tests import shipped

    images, labels = images_beside(network, options)
    if options.images is not None:
        raise Refused(
            f"{options.network}: what it records is of all its {len(images)} stored images; --images needs --checkpoint"
        )
    claims = shipped.claims(network)
    rows: list[dict[str, Any]] = []
    for assignment in select_assignments(network, options.assignments or ",".join(claims)):
        tables = build_requantizers(network, assignment)
        found = shipped.compare_with_recorded(assignment, tables, images, labels)
        first = next(iter(found.differing), None)
        rows.append(
            {
                "assignment": found.assignment,
                "images": found.images,
                "accuracy_recorded": claims[found.assignment]["accuracy"],
                "correct": found.correct,
                "correct_recorded": found.correct_recorded,
                "codes_compared": found.codes_compared,
                "tensors_compared": found.tensors_compared,
                "tensors_differing": len(found.differing),
                "first_mismatch": None if first is None else _first_tensor(found.assignment, *first),
                **certified(tables),
            }
        )
    return rows


def _first_tensor(assignment: str, tensor: str, form: str) -> dict[str, str]:
    told = f"{tensor} ({form}): codes with another SHA-256 than the recorded one"
    return {"assignment": assignment, "tensor": tensor, "form": form, "told": told}


def recorded_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the comparisons as text, certificates first, and what was not compared."""
    return f"""{certificate_table(rows)}

{_recorded_table(rows)}
compared: the file's checksums, and the integer model on the {rows[0]["images"]} stored images with what PyTorch
  computed of them when the file was made (SHA-256 of every stored tensor, how many are classified right)
not compared, for want of the checkpoint (--checkpoint): PyTorch itself, and the accuracy on all test images,
  which is as recorded"""


def _recorded_table(rows: Sequence[Mapping[str, Any]]) -> str:
    return text_table(
        (
            "assignment",
            "recorded %",
            "images right",
            "recorded",
            "codes compared",
            "tensors",
            "differing",
            "exact layers",
            "displaced",
        ),
        (
            (
                row["assignment"],
                as_percent(row["accuracy_recorded"]),
                f"{row['correct']} of {row['images']}",
                row["correct_recorded"],
                f"{row['codes_compared']:,}",
                row["tensors_compared"],
                row["tensors_differing"],
                row["layers_exact"],
                row["layers_displaced"],
            )
            for row in rows
        ),
    )


def recorded_verdict_of(damage: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> int:
    """Print and return whether all is as recorded."""
    differing = sum(row["tensors_differing"] for row in rows)
    compared = sum(row["tensors_compared"] for row in rows)
    codes = sum(row["codes_compared"] for row in rows)
    others = [row["assignment"] for row in rows if row["correct"] != row["correct_recorded"]]
    if differing or others or damage["checksum_failures"]:
        told = f", another number of images is classified right at {', '.join(others)}" if others else ""
        print(f"NOT EQUAL: {differing} of {compared} stored tensors differ{told}")
        return FAILED
    print(f"EQUAL: 0 of {compared} stored tensors differ, {codes:,} codes")
    return OK
