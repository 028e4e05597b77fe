"""Synchronised batch norm on CPU: two real processes against one batch in float64."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from lightssl.train.batchnorm import HostSyncBatchNorm, synchronise_batch_norm


def halves() -> torch.Tensor:
    return torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 + 3


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(36))
    return layers.double()


def loss_of(output: torch.Tensor) -> torch.Tensor:
    return (output * torch.linspace(-1, 1, output.shape[1], dtype=output.dtype)).pow(2).mean()


def work(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    layers = synchronise_batch_norm(network(), torch.device("cpu"))
    assert sum(isinstance(layer, HostSyncBatchNorm) for layer in layers) == 2
    loss = loss_of(layers(halves().chunk(2)[rank]))
    loss.backward()
    for parameter in layers.parameters():  # as DistributedDataParallel does
        dist.all_reduce(parameter.grad)
        parameter.grad /= 2
    torch.save(
        {"gradients": [p.grad for p in layers.parameters()], "buffers": dict(layers.named_buffers())},
        f"{folder}/{rank}.pt",
    )
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)
    whole = network()
    loss_of(whole(halves())).backward()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for gradient, parameter in zip(found["gradients"], whole.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad, atol=1e-9, rtol=1e-7)
        for name, buffer in whole.named_buffers():
            torch.testing.assert_close(found["buffers"][name], buffer)


def test_alone_nothing_is_replaced() -> None:
    layers = synchronise_batch_norm(network(), torch.device("cpu"))
    assert not any(isinstance(layer, HostSyncBatchNorm) for layer in layers)
