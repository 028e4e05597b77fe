"""What several processes compute together. With one process, everything here is the identity."""

from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from lightssl.shared_memory import CAPACITY, SharedMemory, shared_memory


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


def any_process(condition: bool) -> bool:
    """Whether a condition holds on any of the processes; does not wait for accelerators."""
    if world_size() == 1:
        return condition
    value = torch.tensor(condition, dtype=torch.uint8)
    if dist.get_backend() == "gloo":
        return bool(max_over_processes(value))
    dist.all_reduce(value, dist.ReduceOp.MAX, group=_host_group())
    return bool(value)


def _reduce(value: Tensor, operation: str) -> Tensor:
    if world_size() == 1:
        return value
    memory = _memory_for(value)
    if memory is not None:
        parts = memory.gather(value)
        return parts.sum(0) if operation == "SUM" else parts.amax(0)
    value = value.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(value, getattr(dist.ReduceOp, operation))
    return value


@torch.no_grad()
def gather(value: Tensor) -> Tensor:
    """Put the tensors [B, ...] of all processes after one another, [W * B, ...], without gradient."""
    if world_size() == 1:
        return value
    memory = _memory_for(value)
    if memory is not None:
        return memory.gather(value).flatten(0, 1).clone()
    value = value.contiguous()
    parts = [torch.empty_like(value) for _ in range(world_size())]
    dist.all_gather(parts, value)
    return torch.cat(parts)


def average_through_memory(wrapped: nn.Module) -> None:
    """Let the processes of one machine average gradients through shared memory, if they train on the host.

    Args:
        wrapped: What lightning-fabric made of a network.
    """
    if world_size() == 1 or next(wrapped.parameters()).device.type != "cpu":
        return
    memory = _memory()
    for module in wrapped.modules():
        if memory is not None and isinstance(module, DistributedDataParallel):
            module.register_comm_hook(memory, _average_bucket)


def _average_bucket(memory: SharedMemory, bucket: dist.GradBucket) -> Future[Tensor]:
    gradients = bucket.buffer()
    for part in gradients.split(CAPACITY // gradients.itemsize):
        first, *others = memory.gather(part)
        part.copy_(first)
        for other in others:  # in the same order everywhere; several times as fast as Tensor.mean(dim=0)
            part.add_(other)
        part.div_(world_size())
    done: Future[Tensor] = Future()
    done.set_result(gradients)
    return done


# Of the processes that train together now, for what is on the host where others exchange between accelerators.
_host_groups: "WeakKeyDictionary[dist.ProcessGroup, dist.ProcessGroup]" = WeakKeyDictionary()


def _host_group() -> dist.ProcessGroup:
    group = dist.distributed_c10d._get_default_group()
    if group not in _host_groups:
        _host_groups[group] = cast(dist.ProcessGroup, dist.new_group(backend="gloo"))  # of all processes
    return _host_groups[group]


# Of the processes that train together now; None where they share no memory.
_memories: "WeakKeyDictionary[dist.ProcessGroup, SharedMemory | None]" = WeakKeyDictionary()


def _memory_for(value: Tensor) -> SharedMemory | None:
    """The memory to exchange a tensor through: a small one on the host, of processes on one machine."""
    small = value.device.type == "cpu" and value.numel() * value.itemsize <= CAPACITY
    return _memory() if small else None


def _memory() -> SharedMemory | None:
    group = dist.distributed_c10d._get_default_group()
    if group not in _memories:
        _memories[group] = shared_memory()
    return _memories[group]


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
