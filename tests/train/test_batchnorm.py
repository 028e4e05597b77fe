"""Synchronised batch norm on CPU: two real processes against one batch in float64."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from lightssl.backbones.revisited import RevNet50
from lightssl.train.batchnorm import HostSyncBatchNorm, synchronise_batch_norm


def draw_images() -> Tensor:
    return torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 + 3


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(36))
    return layers.double()


def norm_alone() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(3, affine=False, momentum=None))


def reversible() -> nn.Module:
    """A network that computes activations again in the backward pass, where its batch norm counts nothing."""
    torch.manual_seed(0)
    return RevNet50(width_factor=1, depths=(2, 1, 1, 2), stem="small").double()


def loss_of(output: Tensor) -> Tensor:
    """A loss in which every channel counts differently, and which normalised outputs do not make constant."""
    weights = torch.linspace(-1, 1, output.shape[1], dtype=output.dtype).view(-1, *[1] * (output.ndim - 2))
    return (output * weights).exp().mean()


def run(layers: nn.Module, images: Tensor) -> dict[str, Any]:
    """Loss, its gradients, and the buffers of one step."""
    images = images.clone(memory_format=torch.channels_last).requires_grad_()
    loss = loss_of(layers(images))
    loss.backward()
    return {
        "to_input": images.grad,
        "to_parameters": [parameter.grad for parameter in layers.parameters()],
        "buffers": dict(layers.named_buffers()),
    }


def work(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    images = draw_images().chunk(2)[rank]
    layers = synchronise_batch_norm(network(), torch.device("cpu"))
    assert sum(isinstance(layer, HostSyncBatchNorm) for layer in layers) == 2
    found = {
        "network": run(layers, images),
        "reversible": run(synchronise_batch_norm(reversible(), torch.device("cpu")), images),
    }
    for gradient in found["network"]["to_parameters"] + found["reversible"]["to_parameters"]:
        dist.all_reduce(gradient)  # as DistributedDataParallel does
        gradient /= 2
    for name, kind, stored in (("alone", torch.float64, torch.float64), ("rounded", torch.bfloat16, torch.float32)):
        norm = synchronise_batch_norm(norm_alone(), torch.device("cpu")).to(stored)
        found[name] = run(norm, images.to(kind))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)
    halves = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name, layers, tolerance in (
        ("network", network(), 1e-9),
        ("reversible", reversible(), 1e-9),
        ("alone", norm_alone().double(), 1e-9),
        ("rounded", norm_alone().double(), 0.02),
    ):
        whole = run(layers, draw_images())
        to_input = torch.cat([half[name]["to_input"] for half in halves]).double() / 2  # of the mean over processes
        largest = whole["to_input"].abs().max().item()
        torch.testing.assert_close(to_input, whole["to_input"], rtol=tolerance, atol=tolerance * largest)
        for half in halves:
            for gradient, exact in zip(half[name]["to_parameters"], whole["to_parameters"], strict=True):
                torch.testing.assert_close(gradient, exact, rtol=1e-7, atol=1e-9)
            for key, buffer in whole["buffers"].items():
                torch.testing.assert_close(half[name]["buffers"][key].to(buffer), buffer, rtol=tolerance, atol=1e-6)


def test_alone_nothing_is_replaced() -> None:
    layers = synchronise_batch_norm(network(), torch.device("cpu"))
    assert not any(isinstance(layer, HostSyncBatchNorm) for layer in layers)
