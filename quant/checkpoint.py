"""Checkpoints of prepared models: safetensors with the architecture and configuration as JSON; never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from hwsim import spec
from hwsim.whole_file import write_bytes
from quant import models
from quant.convert import prepare
from quant.methods import DOUBLE_ROUNDING
from quant.switchable import SwitchableNetwork, Widths, set_width

CHECKPOINT_FORMAT = "bitswitch checkpoint"
CHECKPOINT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A loaded checkpoint.

    Parameters
    ----------
    model : SwitchableNetwork
        In evaluation mode, at its highest width.
    architecture : str
    config : mapping
        How it was trained.
    results : mapping
        What was measured when it was saved.
    """

    model: SwitchableNetwork
    architecture: str
    config: Mapping[str, Any]
    results: Mapping[str, Any]


def save_checkpoint(
    model: SwitchableNetwork,
    path: Path,
    *,
    architecture: str,
    config: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint; the file appears complete or not at all.

    Parameters
    ----------
    model : SwitchableNetwork
    path : Path
    architecture : str
        Name in ``quant.models.ARCHITECTURES``, or a name of the user's own.
    config, results : mapping, optional
        JSON values.
    """
    path = Path(path)
    metadata = {
        "format": CHECKPOINT_FORMAT,
        "version": CHECKPOINT_VERSION,
        "spec_version": spec.SPEC_VERSION,
        "architecture": architecture,
        "classes": model.classes,
        "widths": list(model.width_set.widths),
        "method": model.method,
        "learned": {
            name: {"weight_bits": dict(widths.weight_bits), "code_bits": dict(widths.code_bits)}
            for name, widths in model.learned.items()
        },
        "config": dict(config or {}),
        "results": dict(results or {}),
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    data = save(state, {"bitswitch": json.dumps(metadata, sort_keys=True)})
    write_bytes(path, data)


def load_checkpoint(path: Path, own_model: nn.Module | None = None) -> Checkpoint:
    """Read a checkpoint.

    Parameters
    ----------
    path : Path
    own_model : nn.Module, optional
        For an architecture that is not in the catalog: the user's float model, which is prepared; or a network made by
        :func:`quant.assemble.assemble`, which takes the checkpoint's values itself.

    Raises
    ------
    ValueError
        If the file is no checkpoint of this version, or does not fit the architecture.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint {path} is not a file")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("bitswitch")
            state = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"checkpoint {path} is damaged or no safetensors file: {error}") from error
    try:
        metadata = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"checkpoint {path} is damaged: its metadata is no JSON") from error
    if metadata.get("format") != CHECKPOINT_FORMAT:
        raise ValueError(f"checkpoint {path} must be a {CHECKPOINT_FORMAT}, not {metadata.get('format')!r}")
    for key, expected in (("version", CHECKPOINT_VERSION), ("spec_version", spec.SPEC_VERSION)):
        if metadata.get(key) != expected:
            raise ValueError(f"checkpoint {path} must have {key} {expected}, not {metadata.get(key)!r}")
    architecture = metadata["architecture"]
    # Checkpoints from before there were other methods do not say.
    method, widths = metadata.get("method", DOUBLE_ROUNDING), tuple(metadata["widths"])
    if isinstance(own_model, SwitchableNetwork):
        model = own_model
        if (model.method, model.width_set.widths) != (method, widths):
            raise ValueError(
                f"checkpoint {path} is of {method} at widths {widths}, and the network is of {model.method} at widths "
                f"{model.width_set.widths}"
            )
    else:
        # Checkpoints from before there were other numbers of classes do not say either.
        classes = metadata.get("classes", models.CLASSES)
        model = prepare(own_model if own_model is not None else models.build(architecture, classes), method, widths)
    difference = _difference(model.state_dict(), state)
    if difference:
        raise ValueError(f"checkpoint {path} does not fit the architecture {architecture}: {difference}")
    model.load_state_dict(state)
    model.learned = {name: Widths(**widths) for name, widths in metadata.get("learned", {}).items()}
    return Checkpoint(
        model=set_width(model, model.width_set.highest).eval(),
        architecture=architecture,
        config=metadata["config"],
        results=metadata["results"],
    )


def _difference(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str:
    """Return in words the first tensor that is missing, one too many or of another shape; nothing if all fit."""
    for name, tensor in ours.items():
        if name not in theirs:
            return f"it has no {name}"
        if tensor.shape != theirs[name].shape:
            return f"{name} must have shape {tuple(tensor.shape)}, not {tuple(theirs[name].shape)}"
    extra = [name for name in theirs if name not in ours]
    return f"it has {extra[0]}, which the architecture has not" if extra else ""
