"""Network files: safetensors with the stored codes once, the real parameters, and checksums of everything.

Tensors of a layer ``L`` (all float32 but the codes)::

    L.codes                       int8   stored codes
    L.weight_scale                (out,)
    L.bias                        (out,)           if the layer has one
    L.batch_norm.<bits>.gamma     (out,)           also beta, mean, variance; epsilon (1,)
    L.output.code_scales          (widths,)        in the order of the structure's ``code_widths``
    L.output.skip_scale           (1,)             if the tensor may feed an add
    L.output.logit_scale          (1,)             last layer

The metadata has one entry, ``bitswitch``: a JSON object with ``format_version``, ``spec_version``, ``width_set``,
``image_shape``, ``layers`` (the structure), ``learned`` (assignments, if there are any), ``provenance``,
``tensor_sha256`` (of each tensor's little-endian bytes) and ``sha256`` (of this object without that key, as JSON with
sorted keys and no spaces). The same network always gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from hwsim import spec
from hwsim.network import (
    ROUND,
    AveragePool2d,
    BatchNorm,
    Conv2d,
    Layer,
    LayerWidths,
    Linear,
    MaxPool2d,
    Network,
    OutputScales,
    WeightLayer,
)
from hwsim.precision import WidthSet
from hwsim.whole_file import write_bytes

FORMAT_VERSION = 3
"""Newest version that is read. A file is of the oldest version that can say what is in it: 3 with learned assignments,
2 with a layer that does not round, else 1."""

METADATA_KEY = "bitswitch"
METADATA = "metadata"
"""How ``checksum_failures`` calls the metadata; no tensor has this name, for every one has a dot."""

_KINDS: dict[str, type] = {"conv2d": Conv2d, "linear": Linear, "average_pool2d": AveragePool2d, "max_pool2d": MaxPool2d}
_NORM_PARTS = ("gamma", "beta", "mean", "variance")


def save(network: Network, path: str | os.PathLike[str]) -> None:
    """Write a network file; the file appears complete or not at all. Makes its folder if there is none.

    Raises
    ------
    OSError
        If the folder cannot be made or written.
    """
    path = Path(path)
    tensors = tensors_of(network)
    content: dict[str, Any] = {
        "format_version": _oldest_version(network),
        "spec_version": spec.SPEC_VERSION,
        **structure_of(network),
        "provenance": dict(network.provenance),
        "tensor_sha256": {name: _sha256(array) for name, array in tensors.items()},
    }
    content["sha256"] = _content_sha256(content)
    data = safetensors.numpy.save(tensors, metadata={METADATA_KEY: _canonical(content)})
    write_bytes(path, data)


def _oldest_version(network: Network) -> int:
    if network.learned:
        return 3
    return 1 if all(layer.switch_rule == ROUND for layer in network.weight_layers) else 2


def load(path: str | os.PathLike[str], *, ignore_checksum: bool = False) -> Network:
    """Read a network file.

    Parameters
    ----------
    path : path
    ignore_checksum : bool
        Load even if bits were changed since the file was written; ``checksum_failures`` tells where.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated or no network file, was written for another format or SPEC_VERSION, fails a checksum
        (the message names the tensor), lacks a tensor or has one too many, or if shapes or values disagree.
    """
    path = Path(path)
    content, tensors = _read(path)
    if not ignore_checksum:
        failures = _failures(content, tensors)
        if failures:
            raise ValueError(f"{path}: {describe_failure(failures[0])} fails its checksum; the file was changed")
    try:
        return _network(content, tensors)
    except KeyError as error:
        raise ValueError(f"{path}: the structure in the metadata lacks {error}") from None
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{path}: the structure in the metadata is not readable: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def checksum_failures(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the names of the tensors that fail their checksum; ``"metadata"`` stands for the metadata itself.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file cannot be read as a network file of this version at all.
    """
    return _failures(*_read(Path(path)))


def describe_failure(name: str) -> str:
    """Return in words what a name of ``checksum_failures`` stands for."""
    if name == METADATA:
        return "the metadata"
    layer, _, part = name.rpartition(".codes")
    return f"tensor {name} (the stored codes of layer {layer})" if layer and not part else f"tensor {name}"


def tensors_of(network: Network) -> dict[str, NDArray[Any]]:
    """Return the tensors of a network file: name -> int8 or float32 array."""
    tensors: dict[str, NDArray[Any]] = {}
    for layer in network:
        if isinstance(layer, MaxPool2d):
            continue
        output = layer.output
        if output.code:
            scales = [output.code[bits] for bits in _descending(output.code)]
            tensors[f"{layer.name}.output.code_scales"] = np.array(scales, np.float32)
        for kind, scale in (("skip", output.skip), ("logit", output.logit)):
            if scale is not None:
                tensors[f"{layer.name}.output.{kind}_scale"] = np.array([scale], np.float32)
        if not isinstance(layer, WeightLayer):
            continue
        tensors[f"{layer.name}.codes"] = np.ascontiguousarray(layer.codes)
        tensors[f"{layer.name}.weight_scale"] = np.ascontiguousarray(layer.weight_scale)
        if layer.bias is not None:
            tensors[f"{layer.name}.bias"] = np.ascontiguousarray(layer.bias)
        for bits in _descending(layer.batch_norms):
            norm = layer.batch_norms[bits]
            prefix = f"{layer.name}.batch_norm.{bits}"
            for part in _NORM_PARTS:
                tensors[f"{prefix}.{part}"] = np.ascontiguousarray(getattr(norm, part))
            tensors[f"{prefix}.epsilon"] = np.array([norm.epsilon], np.float32)
    return tensors


def structure_of(network: Network) -> dict[str, Any]:
    """Return what the metadata says about a network besides its tensors, as JSON objects."""
    structure: dict[str, Any] = {
        "width_set": list(network.width_set.widths),
        "image_shape": list(network.image_shape),
        "layers": [_layer_structure(layer) for layer in network],
    }
    if network.learned:
        structure["learned"] = {
            name: {layer: [one.weight_bits, one.activation_bits] for layer, one in widths.items()}
            for name, widths in network.learned.items()
        }
    return structure


def _layer_structure(layer: Layer) -> dict[str, Any]:
    kind = next(name for name, cls in _KINDS.items() if type(layer) is cls)
    entry: dict[str, Any] = {"name": layer.name, "kind": kind, "input": layer.input}
    if isinstance(layer, WeightLayer):
        entry |= {
            "shape": list(layer.codes.shape),
            "stored_bits": layer.stored_bits,
            "batch_norms": list(_descending(layer.batch_norms)),
            "bias": layer.bias is not None,
            "relu": layer.relu,
            "skip": layer.skip,
        }
        if layer.switch_rule != ROUND:
            entry["switch_rule"] = layer.switch_rule
    else:
        entry |= {"kernel": list(layer.kernel)}
    if not isinstance(layer, Linear):
        entry["stride"] = layer.stride
    if isinstance(layer, (Conv2d, MaxPool2d)):
        entry["padding"] = layer.padding
    if not isinstance(layer, MaxPool2d):
        output = layer.output
        entry |= {
            "code_widths": list(_descending(output.code)),
            "has_skip_code": output.skip is not None,
            "makes_logits": output.logit is not None,
        }
    return entry


def _descending(widths: Mapping[int, object]) -> tuple[int, ...]:
    return tuple(sorted(widths, reverse=True))


def _canonical(content: object) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _content_sha256(content: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(_canonical(rest).encode()).hexdigest()


def _sha256(array: NDArray[Any]) -> str:
    little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(np.ascontiguousarray(little_endian).tobytes()).hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the metadata object, its versions checked, and the tensors."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such network file")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (safetensors.SafetensorError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: is truncated or no safetensors file: {error}") from None
    if METADATA_KEY not in metadata:
        raise ValueError(f"{path}: is a safetensors file, but no bitswitch network")
    try:
        content = json.loads(metadata[METADATA_KEY])
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: its metadata is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: its metadata must be a JSON object, not {type(content).__name__}")
    for key, ours, readable in (
        ("format_version", FORMAT_VERSION, tuple(range(1, FORMAT_VERSION + 1))),
        ("spec_version", spec.SPEC_VERSION, (spec.SPEC_VERSION,)),
    ):
        theirs = content.get(key)
        if type(theirs) is not int or theirs not in readable:
            told = key.upper()
            raise ValueError(f"{path}: was written for {told} {theirs}, and this is {told} {ours}; export it again")
    return content, tensors


def _failures(content: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    failures = [METADATA] if content.get("sha256") != _content_sha256(content) else []
    expected = content.get("tensor_sha256")
    if not isinstance(expected, dict):
        return (METADATA,)
    # A checksum without a tensor is not looked at here: _network names the tensor that is missing.
    failures += [name for name, array in tensors.items() if expected.get(name) != _sha256(array)]
    return tuple(failures)


def _network(content: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Network:
    used: set[str] = set()

    def take(name: str, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
        if name not in tensors:
            raise ValueError(f"tensor {name} is missing")
        used.add(name)
        array = tensors[name]
        if shape is not None and array.shape != shape:
            raise ValueError(f"tensor {name} must have shape {shape}, not {array.shape}")
        return array

    def scales(name: str, count: int) -> list[float]:
        array = take(name, (count,))
        if array.dtype != np.float32:
            raise ValueError(f"tensor {name} must be float32, not {array.dtype}")
        return [float(value) for value in array]

    def scalar(name: str) -> float:
        return scales(name, 1)[0]

    def output(entry: Mapping[str, Any]) -> OutputScales:
        prefix = f"{entry['name']}.output"
        widths = entry["code_widths"]
        code_scales = scales(f"{prefix}.code_scales", len(widths)) if widths else []
        return OutputScales(
            code={int(bits): scale for bits, scale in zip(widths, code_scales, strict=True)},
            skip=scalar(f"{prefix}.skip_scale") if entry["has_skip_code"] else None,
            logit=scalar(f"{prefix}.logit_scale") if entry["makes_logits"] else None,
        )

    def norm(prefix: str) -> BatchNorm:
        parts = {part: take(f"{prefix}.{part}") for part in _NORM_PARTS}
        return BatchNorm(**parts, epsilon=scalar(f"{prefix}.epsilon"))

    layers: list[Layer] = []
    for entry in content["layers"]:
        kind, name = entry["kind"], entry["name"]
        if kind not in _KINDS:
            raise ValueError(f"layer {name}: its kind must be one of {', '.join(_KINDS)}, not {kind!r}")
        fields: dict[str, Any] = {"name": name, "input": entry["input"]}
        if kind in ("conv2d", "linear"):
            fields |= {
                "codes": take(f"{name}.codes", tuple(entry["shape"])),
                "stored_bits": entry["stored_bits"],
                "weight_scale": take(f"{name}.weight_scale"),
                "batch_norms": {bits: norm(f"{name}.batch_norm.{bits}") for bits in entry["batch_norms"]},
                "bias": take(f"{name}.bias") if entry["bias"] else None,
                "relu": entry["relu"],
                "skip": entry["skip"],
                "switch_rule": entry.get("switch_rule", ROUND),
            }
        else:
            fields["kernel"] = tuple(entry["kernel"])
        if kind != "linear":
            fields["stride"] = entry["stride"]
        if kind in ("conv2d", "max_pool2d"):
            fields["padding"] = entry["padding"]
        if kind != "max_pool2d":
            fields["output"] = output(entry)
        layers.append(_KINDS[kind](**fields))
    extra = sorted(set(tensors) - used)
    if extra:
        raise ValueError(f"tensor {extra[0]} belongs to no layer of the structure")
    return Network(
        width_set=WidthSet(tuple(content["width_set"])),
        image_shape=tuple(content["image_shape"]),
        layers=tuple(layers),
        provenance=dict(content["provenance"]),
        learned={
            name: {layer: LayerWidths(*pair) for layer, pair in widths.items()}
            for name, widths in content.get("learned", {}).items()
        },
    )
