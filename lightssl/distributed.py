"""What several processes compute together. With one process, everything here is the identity."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """Which of the processes this one is, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


@torch.no_grad()
def sum_over_processes(value: Tensor) -> Tensor:
    """Add a tensor up over all processes, without gradient."""
    return _reduce(value, "SUM")


@torch.no_grad()
def max_over_processes(value: Tensor) -> Tensor:
    """Take the largest of each entry over all processes, without gradient."""
    return _reduce(value, "MAX")


@torch.no_grad()
def mean_over_processes(value: Tensor) -> Tensor:
    """Average a tensor over all processes, without gradient."""
    return _reduce(value, "SUM") / world_size()


def _reduce(value: Tensor, operation: str) -> Tensor:
    if world_size() == 1:
        return value
    value = value.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(value, getattr(dist.ReduceOp, operation))
    return value


@torch.no_grad()
def gather(value: Tensor) -> Tensor:
    """Put the tensors [B, ...] of all processes after one another, [W * B, ...], without gradient."""
    if world_size() == 1:
        return value
    value = value.contiguous()
    parts = [torch.empty_like(value) for _ in range(world_size())]
    dist.all_gather(parts, value)
    return torch.cat(parts)


def gather_with_gradient(value: Tensor) -> Tensor:
    """Put the tensors [B, ...] of all processes after one another, [W * B, ...].

    The gradient of each part is summed over the losses of all processes. As training averages gradients over
    processes, that is the gradient of the mean of their losses.
    """
    if world_size() == 1:
        return value
    gathered: Tensor = _Gather.apply(value)
    return gathered


class _Gather(torch.autograd.Function):
    # Over gloo, torch.distributed.nn's all_gather scrambles gradients that are not contiguous.

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return gather(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_over_processes(gradient).chunk(world_size())[process_rank()]
