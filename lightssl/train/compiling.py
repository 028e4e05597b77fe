"""``torch.compile``, for those who ask for it."""

import torch
from torch import nn

from lightssl.backbones.base import Backbone
from lightssl.errors import TrainingError


def compile_backbones(method: nn.Module, device: torch.device) -> None:
    """Let ``torch.compile`` make the kernels of every backbone in a method, at its first step.

    Each resolution gets kernels of its own. Heads and losses are a small part of a step and stay as they are.

    Raises:
        TrainingError: Nothing can be compiled on this machine.
    """
    try:
        torch.compile(torch.exp)(torch.zeros(8, device=device))
    except Exception as error:  # a missing compiler, a broken one, a missing header: each has its own
        raise TrainingError(
            f"train.compile=true does not work on this machine: {str(error).strip().splitlines()[0]}",
            "It needs a C++ compiler, such as g++, and on a GPU Triton as well. Without them use train.compile=false.",
        ) from error
    for module in method.modules():
        if isinstance(module, Backbone):
            module.compile(dynamic=False)
