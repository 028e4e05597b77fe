"""Memory that batches are made in, allocated once and used again."""

import mmap
import sys
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

Shape = Sequence[int]


def batch_buffers(shapes: Sequence[Shape], *, slots: int, shared: bool) -> list[list[Tensor]]:
    """Allocate room for some batches at a time.

    Args:
        shapes: Of the tensors of one batch.
        slots: How many batches.
        shared: Processes that are started from this one write into the same memory. Memory that is new to a process
            costs it a page fault every 4 KiB; for pixels that arrive through new shared memory, as torch's DataLoader
            passes them on, that is a tenth of the time it takes to make them.

    Returns:
        For each slot one uint8 tensor a shape.
    """
    allocate = _shared if shared else _private
    return [[allocate(shape) for shape in shapes] for _ in range(slots)]


def _shared(shape: Shape) -> Tensor:
    if sys.platform == "linux":
        # Not in /dev/shm, of which a container has 64 MB by default.
        return torch.frombuffer(mmap.mmap(-1, prod(shape)), dtype=torch.uint8).view(*shape)
    return torch.empty(*shape, dtype=torch.uint8).share_memory_()


def _private(shape: Shape) -> Tensor:
    return torch.empty(*shape, dtype=torch.uint8)
