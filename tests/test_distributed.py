"""What several processes compute together: alone, and as two real processes."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lightssl import shared_memory
from lightssl.distributed import (
    any_process,
    average_through_memory,
    gather,
    gather_with_gradient,
    max_over_processes,
    mean_over_processes,
    process_rank,
    sum_over_processes,
    world_size,
)

REDUCTIONS = (sum_over_processes, max_over_processes, mean_over_processes)


def part(rank: int) -> Tensor:
    """What a process holds: [3, 2]."""
    return torch.randn(3, 2, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)


def loss_of(rank: int, gathered: Tensor) -> Tensor:
    """A loss [6, 2] -> scalar that differs between the processes."""
    factors = torch.arange(12, dtype=torch.float64).view(6, 2) + 100 * rank
    return (factors * gathered.square()).sum()


def work(rank: int, folder: str, in_memory: bool) -> None:
    if not in_memory:
        shared_memory._IN_MEMORY = "/nonexistent"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    assert (world_size(), process_rank()) == (2, rank)
    mine, both = part(rank), torch.stack([part(0), part(1)])

    torch.testing.assert_close(sum_over_processes(mine), both.sum(0))
    torch.testing.assert_close(max_over_processes(mine), both.amax(0))
    torch.testing.assert_close(mean_over_processes(mine), both.mean(0))
    torch.testing.assert_close(sum_over_processes(mine.T), both.sum(0).T)
    assert torch.equal(gather(mine), both.flatten(0, 1))
    assert torch.equal(gather(mine.T), torch.cat([part(0).T, part(1).T]))  # strides that are not contiguous
    assert torch.equal(mine, part(rank))  # nothing was changed in place
    assert any_process(rank == 1)
    assert not any_process(False)

    leaf = mine.clone().requires_grad_()
    for function in (*REDUCTIONS, gather):
        assert not function(leaf).requires_grad
    gathered = gather_with_gradient(leaf)
    assert torch.equal(gathered.detach(), both.flatten(0, 1))
    loss_of(rank, gathered).backward()

    alone = both.flatten(0, 1).clone().requires_grad_()
    (loss_of(0, alone) + loss_of(1, alone)).backward()
    torch.testing.assert_close(leaf.grad, alone.grad[3 * rank : 3 * rank + 3])

    # The same when the gradient comes back with other strides.
    leaf.grad = None
    gathered = gather_with_gradient(leaf)
    (gradient,) = torch.autograd.grad(loss_of(rank, gathered), gathered, retain_graph=True)
    gathered.backward(gradient.T.contiguous().T)
    torch.testing.assert_close(leaf.grad, alone.grad[3 * rank : 3 * rank + 3])

    # Gradients of more than one bucket, and one larger than the memory.
    network = nn.Sequential(nn.Linear(600, 700, bias=False), nn.Linear(700, 3))
    wrapped = DistributedDataParallel(network, bucket_cap_mb=1)
    average_through_memory(wrapped)
    inputs = [torch.randn(4, 600, generator=torch.Generator().manual_seed(peer)) for peer in (0, 1)]
    wrapped(inputs[rank]).square().mean().backward()
    found = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    network(torch.cat(inputs)).square().mean().backward()
    for gradient, parameter in zip(found, network.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)

    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", [True, False], ids=["through memory", "through sockets"])
def test_two_processes(tmp_path: Path, in_memory: bool) -> None:
    mp.spawn(work, args=(str(tmp_path), in_memory), nprocs=2)  # raises what a process raises


def test_alone_everything_is_the_identity() -> None:
    assert (world_size(), process_rank()) == (1, 0)
    assert any_process(True)
    assert not any_process(False)
    value = torch.randn(3, 2, requires_grad=True)
    for function in (*REDUCTIONS, gather):
        assert torch.equal(function(value), value)
    gather_with_gradient(value).sum().backward()
    assert torch.equal(value.grad, torch.ones(3, 2))
