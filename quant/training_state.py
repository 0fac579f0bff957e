"""State of a training run on disk: tensors by name and JSON in safetensors, complete or not there; never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from hwsim.whole_file import write_bytes

STATE_FORMAT = "bitswitch training state"
STATE_VERSION = 1

_NUMBER = "#number"
"""Ends the name of a Python number in an optimizer's state, which is kept as a tensor."""


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """Return what an optimizer remembers of every parameter, as ``<prefix><parameter number>.<name>``."""
    tensors = {}
    for number, entries in optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{prefix}{number}.{name}"] = value
            else:
                tensors[f"{prefix}{number}.{name}{_NUMBER}"] = torch.tensor(value)
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, prefix: str, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer what :func:`optimizer_tensors` returned, laid out in memory as its parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for full_name, tensor in tensors.items():
        if full_name.startswith(prefix):
            number, _, name = full_name.removeprefix(prefix).partition(".")
            parameter = parameters[int(number)]
            value: Tensor | float
            if name.endswith(_NUMBER):
                value = tensor.item()
            elif tensor.shape == parameter.shape:
                # Files have rows outermost, and torch's fused Adam takes memory as it comes.
                value = torch.empty_like(parameter, requires_grad=False, dtype=tensor.dtype).copy_(tensor)
            else:
                value = tensor.clone()
            state.setdefault(int(number), {})[name.removesuffix(_NUMBER)] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def save_state(path: Path, tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> None:
    """Write a state file; it appears complete or not at all.

    Parameters
    ----------
    path : Path
    tensors : mapping of str to Tensor
    content : mapping
        JSON values.
    """
    metadata = {"format": STATE_FORMAT, "version": STATE_VERSION, **content}
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, {"bitswitch": json.dumps(metadata, sort_keys=True)}))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the content of a state file.

    Raises
    ------
    ValueError
        If the file is damaged or no state file of this version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads((file.metadata() or {}).get("bitswitch", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"training state {path} is damaged or no safetensors file: {error}") from error
    if (content.get("format"), content.get("version")) != (STATE_FORMAT, STATE_VERSION):
        told = f"{content.get('format')} of version {content.get('version')}"
        raise ValueError(f"{path} must be a {STATE_FORMAT} of version {STATE_VERSION}, not {told}")
    return tensors, content
