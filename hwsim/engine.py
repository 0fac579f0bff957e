"""The integer model: run a network at an assignment on images, and keep every stored tensor or the logits only.

These are the integers that the deployed PyTorch forward and the hardware must equal, everywhere.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hwsim.backends import make_backend
from hwsim.network import IMAGE, Assignment, AveragePool2d, MaxPool2d, Network
from hwsim.plan import OVERREAD_BYTES, Layout, Plan, dense, make_plan
from hwsim.requantize import LayerRequantizers

StoredTensors: TypeAlias = dict[tuple[str, str], NDArray[Any]]
"""(tensor, form) -> array (n, c, h, w): "code" uint8, "skip" int16, "logits" int32, in network order."""

FORM_DTYPES = {"code": np.uint8, "skip": np.int16, "logits": np.int32}

GROUP_BYTES = 1 << 19
"""A thread takes as many images at a time as keep the largest code of a layer below this size."""

_NONE = {form: np.empty(0, dtype) for form, dtype in FORM_DTYPES.items()}


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


class Engine:
    """A network at one assignment, prepared to run on any number of images.

    Threads take groups of images through all layers, so that memory does not grow with the number of images.

    Parameters
    ----------
    network : Network
    assignment : Assignment
        Of this very network.
    requantizers : mapping of str to LayerRequantizers
        ``requantize.build_requantizers(network, assignment, ...)``.
    backend : str
        ``"numba"``, ``"numpy"`` or ``"torch"``: they make the same integers (``backends``).
    threads : int or None
        Groups of images at a time; None for one a core, or what suits the backend.

    Raises
    ------
    ValueError
        If a table is missing or belongs to another width, a sum can leave its integer, or there is no such backend.
    """

    def __init__(
        self,
        network: Network,
        assignment: Assignment,
        requantizers: Mapping[str, LayerRequantizers],
        *,
        backend: str = "numba",
        threads: int | None = None,
    ) -> None:
        self._backend = make_backend(backend)
        self._plan = make_plan(network, assignment, requantizers, self._backend)
        self._threads = threads or self._backend.threads or len(os.sched_getaffinity(0))
        largest = max(layout.image_bytes for layout in self._plan.layouts.values())
        self._group = max(1, GROUP_BYTES // largest)
        self._tasks = _tasks(self._plan)
        self._memories: list[_Memory] = []

    def run(self, images: NDArray[np.uint8]) -> StoredTensors:
        """Return every stored tensor, as ``engine.run``."""
        network = self._plan.network
        images = check_images(network, images)
        stored: StoredTensors = {
            (step.layer.name, form): np.empty((len(images), *step.shape), FORM_DTYPES[form])
            for step in self._plan.steps
            for form in step.forms
        }

        def keep(tensor: str, form: str, values: NDArray[Any], start: int, stop: int) -> None:
            from hwsim import fused

            layout = self._plan.layouts[tensor].windows() if form == "code" else dense(network.shape(tensor))
            fused.take_out(values, layout, stored[tensor, form][start:stop])

        self._run(images, keep)
        return stored

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Return the logits only, int32 (n, classes)."""
        network = self._plan.network
        images = check_images(network, images)
        out = np.empty((len(images), network.classes), np.int32)

        def keep(tensor: str, form: str, values: NDArray[Any], start: int, stop: int) -> None:
            if form == "logits":
                out[start:stop] = values[: (stop - start) * network.classes].reshape(stop - start, -1)

        self._run(images, keep)
        return out

    def _run(self, images: NDArray[np.uint8], keep: Callable[..., None]) -> None:
        groups = -(-len(images) // self._group)
        # Every thread gets the same number of groups, where there are images enough.
        groups = min(-(-groups // self._threads) * self._threads, len(images))
        bounds = np.linspace(0, len(images), groups + 1).astype(int).tolist()
        size = max(stop - start for start, stop in itertools.pairwise(bounds))

        def run_group(start: int, stop: int) -> None:
            memory = self._memory(size)
            _run_group(self._plan, self._tasks, self._backend, images[start:stop], memory, keep, start)
            self._memories.append(memory)

        with self._backend.session(), ThreadPoolExecutor(min(self._threads, groups)) as pool:
            for done in [pool.submit(run_group, *pair) for pair in itertools.pairwise(bounds)]:
                done.result()

    def _memory(self, images: int) -> _Memory:
        """Return memory for a group of images: that of an earlier group, whose pages are there, if it is enough."""
        try:
            memory = self._memories.pop()
        except IndexError:
            return _Memory(images)
        return memory if memory.images >= images else _Memory(images)


class _Memory:
    """Arrays for the tensors of one group of images, used again when a tensor is not needed any more."""

    def __init__(self, images: int) -> None:
        self.images = images
        self._free: dict[Any, list[NDArray[Any]]] = {}

    def take(self, kind: Any, per_image: int, dtype: Any) -> NDArray[Any]:
        """Return an array of zeros, or one that had the same ``kind`` before (the same border is zero there)."""
        free = self._free.setdefault(kind, [])
        return free.pop() if free else np.zeros(self.images * per_image + OVERREAD_BYTES, dtype)

    def give(self, kind: Any, values: NDArray[Any]) -> None:
        """Take an array back."""
        self._free[kind].append(values)


_Key: TypeAlias = tuple[str, str]
"""(tensor, form)."""


@dataclass(frozen=True)
class _Task:
    """What a group of images needs around one step, or around the image: arrays to take, and those to give back.

    ``makes``: key, kind of array, elements of an image, dtype. ``gives``: keys not needed any more.
    """

    makes: tuple[tuple[_Key, Any, int, Any], ...]
    gives: tuple[_Key, ...]


def _tasks(plan: Plan) -> dict[str, _Task]:
    """Return the task of the image and of every layer."""

    def make(tensor: str, form: str) -> tuple[_Key, Any, int, Any]:
        layout: Layout | None = plan.layouts[tensor] if form == "code" else None
        elements = int(np.prod(plan.network.shape(tensor)))
        size = layout.image_bytes if layout else elements
        return (tensor, form), layout or (form, elements), size, FORM_DTYPES[form]

    tasks = {IMAGE: _Task((make(IMAGE, "code"),), ())}
    for step in plan.steps:
        name = step.layer.name
        gives = tuple(key for key, reader in plan.last_readers.items() if reader == name)
        tasks[name] = _Task(tuple(make(name, form) for form in step.forms), gives)
    return tasks


def _run_group(
    plan: Plan,
    tasks: Mapping[str, _Task],
    backend: Any,
    images: NDArray[np.uint8],
    memory: _Memory,
    keep: Callable[..., None],
    start: int,
) -> None:
    from hwsim import fused

    count = len(images)
    live: dict[_Key, tuple[Any, NDArray[Any]]] = {}

    def take(task: _Task) -> dict[str, NDArray[Any]]:
        made = {}
        for key, kind, size, dtype in task.makes:
            values = memory.take(kind, size, dtype)
            live[key] = kind, values
            made[key[1]] = values
        return made

    image = take(tasks[IMAGE])["code"]
    fused.lay_out(np.ascontiguousarray(images), plan.layouts[IMAGE].windows(), image)
    for step in plan.steps:
        layer = step.layer
        codes = live[layer.input, "code"][1]
        skip = getattr(layer, "skip", None)
        skips = _NONE["skip"] if skip is None else live[skip, "skip"][1]
        task = tasks[layer.name]
        made = take(task)
        code_out, skip_out, logits_out = (made.get(form, nothing) for form, nothing in _NONE.items())
        if isinstance(layer, MaxPool2d):
            fused.max_windows(codes, step.group_shape(count), step.source, step.kernel, step.target, code_out)
        elif isinstance(layer, AveragePool2d):
            fused.sum_windows(
                codes,
                step.group_shape(count),
                step.source,
                step.kernel,
                step.target,
                step.table,
                step.code_table,
                step.limits,
                skips,
                code_out,
                skip_out,
                logits_out,
            )
        else:
            backend.convolve(step, codes, count, (skips, code_out, skip_out, logits_out))
        for form, values in made.items():
            keep(layer.name, form, values, start, start + count)
        for key in task.gives:
            memory.give(*live.pop(key))
    for kind, values in live.values():
        memory.give(kind, values)


def run(
    network: Network,
    assignment: Assignment,
    requantizers: Mapping[str, LayerRequantizers],
    images: NDArray[np.uint8],
    *,
    backend: str = "numba",
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
    backend : str
        See ``Engine``.

    Returns
    -------
    dict
        (tensor, form) -> array (n, c, h, w); form "code" is uint8, "skip" int16, "logits" int32.

    Raises
    ------
    TypeError, ValueError
        If the images are not what the network reads, or a table is missing or belongs to another width.
    """
    check_images(network, images)
    return Engine(network, assignment, requantizers, backend=backend).run(images)


def logits(
    network: Network,
    assignment: Assignment,
    requantizers: Mapping[str, LayerRequantizers],
    images: NDArray[np.uint8],
    *,
    backend: str = "numba",
) -> NDArray[np.int32]:
    """Return the logits (n, classes) only, in memory that does not grow with n; otherwise as ``run``."""
    check_images(network, images)
    return Engine(network, assignment, requantizers, backend=backend).logits(images)


def classify(logits: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the class of every image: the index of its largest logit, the first one of equals.

    Parameters
    ----------
    logits : ndarray of int32, shape (n, classes) or (n, classes, 1, 1)
    """
    return logits.reshape(len(logits), -1).argmax(axis=1)
