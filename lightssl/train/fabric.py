"""Devices, precision and processes, all by lightning-fabric.

The same code runs as one process, under ``torchrun`` and on several machines: torchrun's environment says which.
"""

import os
from inspect import signature
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from lightssl.errors import TrainingError
from lightssl.precision import computes_bf16


def make_fabric(precision: str = "auto") -> Fabric:
    """Set up this process for training: one device a process, as many processes as torchrun started.

    Args:
        precision: One of Fabric's, or ``auto``: bf16 autocast where the GPU or the CPU computes in bfloat16 itself,
            fp16 on other GPUs, fp32 on other CPUs.

    Raises:
        TrainingError: The precision does not work on this machine.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    per_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    # Buffers are not broadcast: batch norm is synchronised, and the method keeps its own equal on all processes.
    names = ("forward_sync_buffers", "broadcast_buffers")  # the argument's, since torch 2.14 and before
    apart: Any = {next(name for name in names if name in signature(DistributedDataParallel).parameters): False}
    strategy = DDPStrategy(**apart, gradient_as_bucket_view=True) if processes > 1 else "auto"
    fabric = Fabric(
        devices=per_machine,
        num_nodes=processes // per_machine,
        strategy=strategy,
        precision=_choose_precision(precision),  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def _choose_precision(precision: str) -> str:
    on_gpu = torch.cuda.is_available()
    if precision == "auto":
        if computes_bf16("cuda" if on_gpu else "cpu"):
            return "bf16-mixed"
        return "16-mixed" if on_gpu else "32-true"
    if precision == "16-mixed" and not on_gpu:
        raise TrainingError("train.precision=16-mixed needs a GPU.", "Use 32-true on a CPU.")
    if precision == "bf16-mixed" and not on_gpu and not computes_bf16("cpu"):
        raise TrainingError(
            "This CPU has no bfloat16 arithmetic: training in it would be many times slower than in fp32.",
            "Use --set train.precision=32-true.",
        )
    return precision
