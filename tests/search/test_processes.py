"""Two processes, each with half of a batch, give a supernet the gradients that one gives it on the whole batch."""

from contextlib import nullcontext
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lightssl.search.spaces import Space
from lightssl.search.supernet import Supernet, activate
from lightssl.train.batchnorm import synchronise_batch_norm

IMAGES = 8


def sandwich(network: nn.Module, space: Space, images: Tensor) -> dict[str, Tensor]:
    """Add up the gradients of some candidates; processes exchange them once, with the candidate that has them all."""
    middle = space.decode((space.gene_sizes - 1) // 2)
    for candidate in (space.smallest, middle, space.largest):
        activate(network, candidate)
        last = candidate == space.largest
        with nullcontext() if last or not isinstance(network, DistributedDataParallel) else network.no_sync():
            network(images).square().mean(dim=0).sum().backward()
    return {name.removeprefix("module."): p.grad for name, p in network.named_parameters() if p.grad is not None}


def alone(network: nn.Module, space: Space, images: Tensor) -> dict[str, Tensor]:
    """Take the gradients of one candidate that lacks some of the weights."""
    network.zero_grad()
    activate(network, space.smallest)
    network(images).square().mean(dim=0).sum().backward()
    return {name.removeprefix("module."): p.grad for name, p in network.named_parameters() if p.grad is not None}


def build(space: Space, options: dict[str, int]) -> Supernet:
    torch.manual_seed(0)
    return Supernet(space, **options).double().train()


def draw() -> Tensor:
    return torch.randn(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def work(rank: int, folder: str, spaces: dict[str, tuple[Space, dict[str, int]]]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {}
    for name, (space, options) in spaces.items():
        supernet = synchronise_batch_norm(build(space, options), torch.device("cpu"))
        wrapped = DistributedDataParallel(supernet, broadcast_buffers=False)
        for passes in (sandwich, alone):
            gradients = passes(wrapped, space, draw().chunk(2)[rank])
            found[name, passes.__name__] = {key: gradient.clone() for key, gradient in gradients.items()}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_add_up_the_gradients_of_one(
    small_spaces: dict[str, tuple[Space, dict[str, int]]], tmp_path: Path
) -> None:
    mp.spawn(work, args=(str(tmp_path), small_spaces), nprocs=2)
    halves = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for (name, (space, options)), passes in product(small_spaces.items(), (sandwich, alone)):
        exact = passes(build(space, options), space, draw())
        assert exact.keys() == dict(build(space, options).named_parameters()).keys()
        for half in halves:
            found = half[name, passes.__name__]
            assert found.keys() == exact.keys()
            for key, gradient in exact.items():
                difference = (found[key] - gradient).abs().max().item()
                assert difference <= 1e-6 * max(gradient.abs().max().item(), 1e-3), f"{name}, {key}"
