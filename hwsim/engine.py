"""The integer model: run a network at an assignment on images, and keep every stored tensor.

These are the integers that the deployed PyTorch forward and the hardware must equal, everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hwsim import layers, spec
from hwsim.network import IMAGE, Assignment, AveragePool2d, MaxPool2d, Network, WeightLayer
from hwsim.requantize import LayerRequantizers, Requantizer, switched_weights

StoredTensors: TypeAlias = dict[tuple[str, str], NDArray[Any]]
"""(tensor, form) -> array (n, c, h, w): "code" uint8, "skip" int16, "logits" int32, in network order."""

FORM_DTYPES = {"code": np.uint8, "skip": np.int16, "logits": np.int32}


def check_images(network: Network, images: object) -> NDArray[np.uint8]:
    """Return ``images`` if they are codes that the network reads.

    Raises
    ------
    TypeError
        If they are no NumPy array.
    ValueError
        If the dtype is not uint8, the shape is not (n, c, h, w) of the network's image, or n is 0.
    """
    if not isinstance(images, np.ndarray):
        raise TypeError(f"images must be a NumPy array, not {type(images).__name__}")
    if images.dtype != np.uint8:
        raise ValueError(f"images must be uint8 codes 0 .. 255, not {images.dtype}")
    if images.ndim != 4 or images.shape[1:] != network.image_shape or len(images) == 0:
        told = " x ".join(str(size) for size in network.image_shape)
        raise ValueError(f"images must have shape (n, {told}) with n at least 1, not {images.shape}")
    return images


def run(
    network: Network,
    assignment: Assignment,
    requantizers: Mapping[str, LayerRequantizers],
    images: NDArray[np.uint8],
) -> StoredTensors:
    """Return every stored tensor of a network at an assignment, in network order.

    Parameters
    ----------
    network : Network
    assignment : Assignment
        Of this very network.
    requantizers : mapping of str to LayerRequantizers
        ``requantize.build_requantizers(network, assignment, ...)``.
    images : ndarray of uint8, shape (n, c, h, w)

    Returns
    -------
    dict
        (tensor, form) -> array (n, c, h, w); form "code" is uint8, "skip" int16, "logits" int32.

    Raises
    ------
    TypeError, ValueError
        If the images are not what the network reads, or a table is missing or belongs to another width.
    """
    images = check_images(network, images)
    if assignment.network is not network:
        raise ValueError(f"assignment {assignment.name} belongs to another network")
    stored: StoredTensors = {}

    def code(tensor: str) -> NDArray[np.uint8]:
        return images if tensor == IMAGE else stored[tensor, "code"]

    for layer in network:
        if isinstance(layer, MaxPool2d):
            stored[layer.name, "code"] = layers.max_windows(layer, code(layer.input))
            continue
        if layer.name not in requantizers:
            raise ValueError(f"layer {layer.name}: has no requantizer")
        tables = requantizers[layer.name]
        _check_tables(network, layer.name, assignment, tables)
        skip = None
        if isinstance(layer, AveragePool2d):
            accumulators = layers.sum_windows(layer, code(layer.input))
        else:
            weights = switched_weights(layer, assignment.weight_bits(layer.name))
            accumulators = layers.accumulate(layer, weights, code(layer.input))
            if layer.skip is not None:
                skip = stored[layer.skip, "skip"]
        for form, table in forms(network, layer.name, assignment, tables):
            if form == "code" and (layer.name, "skip") in stored:
                stored[layer.name, form] = requantize(stored[layer.name, "skip"], None, table, form)
            else:
                stored[layer.name, form] = requantize(accumulators, skip, table, form)
    return stored


def forms(
    network: Network, tensor: str, assignment: Assignment, tables: LayerRequantizers
) -> Iterator[tuple[str, Requantizer]]:
    """Yield the stored forms of a tensor with the table that makes each, in the order they are made."""
    layer = network.layer(tensor)
    if isinstance(layer, WeightLayer) and layer.makes_logits:
        yield "logits", tables.primary
    elif network.adders(tensor):
        yield "skip", tables.primary
        if tables.code is not None:
            yield "code", tables.code
    else:
        yield "code", tables.primary


def _check_tables(network: Network, tensor: str, assignment: Assignment, tables: LayerRequantizers) -> None:
    channels = network.shape(tensor)[0]
    bits = assignment.code_bits(tensor)
    if tables.primary.channels != channels:
        raise ValueError(f"layer {tensor}: has {channels} channels, but its requantizer {tables.primary.channels}")
    if network.adders(tensor) and (tables.code is None) != (bits is None):
        raise ValueError(f"layer {tensor}: its requantizers do not make the forms that {assignment.name} stores")
    for form, table in forms(network, tensor, assignment, tables):
        if form == "code" and bits is not None and table.high != spec.unsigned_high(bits):
            raise ValueError(f"layer {tensor}: its requantizer makes codes up to {table.high}, not {bits} bits")


def requantize(
    accumulators: NDArray[Any], skip: NDArray[np.int16] | None, table: Requantizer, form: str
) -> NDArray[Any]:
    """Return ``spec.requantize`` of every element of (n, c, h, w) integers, in the dtype of ``form``.

    Raises
    ------
    ValueError
        If a sum can leave 64 bits.
    """
    from hwsim import kernels

    def largest(values: NDArray[Any]) -> int:
        return max(abs(int(values.min())), abs(int(values.max())))

    bound = largest(accumulators) * largest(table.multiplier) + largest(table.addend)
    if skip is not None:
        bound += largest(skip) * largest(table.skip_multiplier)
    if bound > spec.signed_high(64) or not 0 <= int(table.shift.min()) <= int(table.shift.max()) <= 62:
        raise ValueError(f"a requantizer's sum can reach {bound} and must fit 64 bits, its shift 0 .. 62")
    images, channels, height, width = accumulators.shape
    flat = (images, channels, height * width)
    skips = np.empty((0, 1, 1), np.int16) if skip is None else np.ascontiguousarray(skip).reshape(flat)
    out = np.empty(flat, np.int32)
    kernels.requantize_tensor(
        np.ascontiguousarray(accumulators, np.int32).reshape(flat),
        skips,
        table.multiplier,
        table.skip_multiplier,
        table.addend,
        table.shift,
        table.low,
        table.high,
        out,
    )
    return out.reshape(accumulators.shape).astype(FORM_DTYPES[form], copy=False)


def logits(
    network: Network,
    assignment: Assignment,
    requantizers: Mapping[str, LayerRequantizers],
    images: NDArray[np.uint8],
    batch: int = 256,
) -> NDArray[np.int32]:
    """Return the logits (n, classes) only, running ``batch`` images at a time; otherwise as ``run``."""
    images = check_images(network, images)
    name = network.layers[-1].name
    parts = [
        run(network, assignment, requantizers, images[start : start + batch])[name, "logits"]
        for start in range(0, len(images), batch)
    ]
    return np.concatenate(parts).reshape(len(images), -1)


def classify(logits: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the class of every image: the index of its largest logit, the first one of equals.

    Parameters
    ----------
    logits : ndarray of int32, shape (n, classes) or (n, classes, 1, 1)
    """
    return logits.reshape(len(logits), -1).argmax(axis=1)
