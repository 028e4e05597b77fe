"""One and two processes give the same gradients, for every method: batch norm, centre, queues and Sinkhorn included.

Two real processes train as the training loop does, each on its half of every batch, beside one on whole batches.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lightssl.methods import METHODS
from lightssl.methods.base import Method
from lightssl.train.batchnorm import synchronise_batch_norm
from lightssl.types import Clock

BATCH = 8
STEPS = 8  # SwAV's queue of two batches is kept from step 2 on and takes part from step 4 on
# All but those that draw patches, by a generator that every process has for itself.
COMPARED = [name for name in METHODS if name not in ("relative_patch", "jigsaw")]
OPTIONS: dict[str, dict[str, int]] = {"swav": {"queue": 2 * BATCH}, "mocov2": {"queue": 3 * BATCH}}

# Which images of a batch a process has: the training loader gives slices, but nothing may depend on it.
SHARES = {
    "slices": [slice(0, BATCH // 2), slice(BATCH // 2, BATCH)],
    "interleaved": [slice(0, BATCH, 2), slice(1, BATCH, 2)],
}


def draw(step: int, share: slice) -> tuple[list[Tensor], Tensor]:
    """This process's views and labels of a step's batch, in float64."""
    generator = torch.Generator().manual_seed(step)
    groups = [
        torch.randn(count, BATCH, 3, size, size, generator=generator, dtype=torch.float64)
        for count, size in [(2, 10), (2, 6)]
    ]
    labels = torch.randint(3, (BATCH,), generator=generator)
    return [group[:, share] for group in groups], labels[share]


def train(method: Method, forward: nn.Module, share: slice) -> dict[str, Any]:
    """Take some steps, and keep the loss and the gradients of each, and the buffers after the last."""
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.2)
    losses, gradients = [], []
    for step in range(STEPS):
        clock = Clock(step, STEPS, steps_per_epoch=3, batch_size=BATCH)
        views, labels = draw(step, share)
        output = forward(views, clock, labels)
        optimizer.zero_grad(set_to_none=True)
        (output.loss + output.probe_loss).backward()
        method.after_backward(clock)
        losses.append(output.loss.item())
        gradients.append({name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None})
        optimizer.step()
        method.after_step(clock)
    buffers = {name: buffer.clone() for name, buffer in method.named_buffers()}
    return {"losses": losses, "gradients": gradients, "buffers": buffers}


def with_probe(build: Callable[..., Method], name: str) -> Method:
    method = build(name, **OPTIONS.get(name, {}))
    method.attach_probe(3)
    return method.double()


def work(rank: int, folder: str, build: Callable[..., Method]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {}
    for order, shares in SHARES.items():
        for name in COMPARED:
            method = with_probe(build, name)
            synchronise_batch_norm(method, torch.device("cpu"))
            found[name, order] = train(method, DistributedDataParallel(method, broadcast_buffers=False), shares[rank])
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def assert_equal_training(halves: list[dict[str, Any]], whole: dict[str, Any], where: str) -> None:
    """Losses, on average, and the gradients that both processes hold are those of whole batches, step by step."""
    for step in range(STEPS):
        loss = sum(half["losses"][step] for half in halves) / 2
        assert loss == pytest.approx(whole["losses"][step], rel=1e-5, abs=1e-6), f"{where}, step {step}"
        exact = whole["gradients"][step]
        for half in halves:
            assert half["gradients"][step].keys() == exact.keys(), f"{where}, step {step}"
            for key, gradient in exact.items():
                difference = (half["gradients"][step][key] - gradient).abs().max().item()
                assert difference <= 1e-5 * max(gradient.abs().max().item(), 1e-3), f"{where}, {key}, step {step}"


@pytest.mark.slow
def test_two_processes_train_as_one(build: Callable[..., Method], tmp_path: Path) -> None:
    mp.spawn(work, args=(str(tmp_path), build), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name in COMPARED:
        method = with_probe(build, name)
        whole = train(method, method, slice(0, BATCH))
        for order in SHARES:
            halves = [process[name, order] for process in found]
            assert_equal_training(halves, whole, f"{name}, {order}")
            for key, buffer in halves[0]["buffers"].items():
                assert torch.equal(buffer, halves[1]["buffers"][key]), f"{name}, {order}, {key}"
        for key, buffer in found[0][name, "slices"]["buffers"].items():  # queues keep this order
            torch.testing.assert_close(buffer, whole["buffers"][key], rtol=1e-5, atol=1e-6)
