"""What the verbs share: where the files of the chain lie, and how a verb ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

FOLDER = Path("build") / "demo"
"""Where `train`, `export` and `demo` write, and where the other verbs look, unless told otherwise."""

CHECKPOINT = "checkpoint.safetensors"

NETWORK = "network.safetensors"

FIGURE = "demo.png"

RANDOM_NETWORK = "resnet20"
"""Named instead of a file: a ResNet-20 of random weights, whose cycles and sizes are those of a trained one."""

Result: TypeAlias = tuple[dict[str, Any], int]
"""What --json writes, and the exit status."""

OK, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


class Refused(Exception):
    """Input that a verb cannot work with; the message is one sentence."""
