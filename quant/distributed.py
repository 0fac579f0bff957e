"""Data-parallel training under ``torchrun``: every process takes its share of each mini-batch.

All processes draw the same batches, crops and widths from the same seeds, and keep the same model. What they share is
what a single process would have computed on the whole mini-batch: gradients are averaged before every optimizer step,
and BatchNorm takes its statistics over all shares. The loss curve is therefore that of one process, up to the order
in which float32 numbers are summed. ``DistributedDataParallel`` itself does neither of both for a network whose passes
use other parameters at every width. The kernels of ``quant.fused`` know one process only: with several, the plain
operators run.

Everything here does nothing unless :func:`group` was entered in a process that ``torchrun`` started.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def processes() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process' number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def group() -> Iterator[None]:
    """Join the processes that ``torchrun`` started, for a while; nothing happens in a process by itself."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def check(batch_size: int) -> None:
    """Raise ``ValueError`` if several processes cannot train like this."""
    count = processes()
    if batch_size % count:
        raise ValueError(f"the batch size must be a multiple of the {count} processes, not {batch_size}")


def can_share(batch: Tensor) -> bool:
    """Return whether every process gets an image of a mini-batch; the last one of an epoch may be too small."""
    return len(batch) >= processes()


def share(batch: Tensor) -> Tensor:
    """Return this process' part of a mini-batch; the last images of one that cannot be dealt out evenly are dropped."""
    count = processes()
    return batch if count == 1 else batch[: len(batch) // count * count][rank() :: count]


def gather(part: Tensor) -> Tensor:
    """Return the mini-batch that all processes' parts, made by :func:`share`, are of."""
    if processes() == 1:
        return part
    parts = [torch.empty_like(part) for _ in range(processes())]
    dist.all_gather(parts, part.contiguous())
    return torch.stack(parts, 1).flatten(0, 1)


@torch.no_grad()
def average_gradients(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Replace the gradients of the optimizers' parameters by their means over the processes."""
    gradients = [
        parameter.grad
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    average(gradients)


@torch.no_grad()
def average(gradients: Sequence[Tensor]) -> None:
    """Replace tensors by their means over the processes."""
    if processes() == 1:
        return
    # Every process ran the same passes, so that the same parameters have gradients: one message for all.
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= processes()
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].reshape(gradient.shape))
        start += gradient.numel()


def mean(value: float) -> float:
    """Return the mean of a number over the processes."""
    if processes() == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(total)
    return float(total) / processes()


def synchronise(model: nn.Module) -> None:
    """Let every BatchNorm of a model take its statistics over the images of all processes while it trains."""
    if processes() > 1:
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.forward = functools.partial(_batch_norm, module)  # type: ignore[method-assign]


class _Mean(torch.autograd.Function):
    """The mean of a tensor over the processes; the gradient is that of the sum of all processes' losses."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _averaged(values)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _averaged(gradient)


def _averaged(values: Tensor) -> Tensor:
    result = values.clone()
    dist.all_reduce(result)
    return result / processes()


def _batch_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, values: Tensor) -> Tensor:
    if not module.training:
        return type(module).forward(module, values)
    dimensions = [0, *range(2, values.dim())]
    shape = [1, -1, *[1] * (values.dim() - 2)]
    # Statistics are float32 under autocast too. All shares are of one size.
    wide = values.to(module.weight.dtype)
    center = _Mean.apply(wide.mean(dimensions))  # type: ignore[no-untyped-call]
    centered = wide - center.reshape(shape)
    variance = _Mean.apply(centered.square().mean(dimensions))  # type: ignore[no-untyped-call]
    if module.running_mean is not None and module.running_var is not None:
        count = processes() * values.numel() / values.shape[1]
        momentum = 0.1 if module.momentum is None else module.momentum
        with torch.no_grad():
            module.running_mean.lerp_(center.detach(), momentum)
            module.running_var.lerp_(variance.detach() * count / (count - 1), momentum)
            if module.num_batches_tracked is not None:
                module.num_batches_tracked.add_(1)
    factor = module.weight * (variance + module.eps).rsqrt()
    return (centered * factor.reshape(shape) + module.bias.reshape(shape)).to(values.dtype)
