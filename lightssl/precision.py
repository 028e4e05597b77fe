"""Which devices compute in bfloat16, and training in it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from lightssl.machine import has_native_bf16


def computes_bf16(device: torch.device | str) -> bool:
    """Whether a device, a CPU or a GPU of CUDA, computes in bfloat16 itself: without it, it is slower than float32."""
    kind = torch.device(device).type
    if kind == "cpu":
        return has_native_bf16()
    return kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def precision_of(device: torch.device | str) -> str:
    """Return what :func:`in_bfloat16` comes to on a device, by Fabric's names: ``bf16-mixed`` or ``32-true``."""
    return "bf16-mixed" if computes_bf16(device) else "32-true"


@contextmanager
def in_bfloat16(*modules: nn.Module, device: torch.device | str) -> Iterator[None]:
    """Let modules compute by autocast in bfloat16, where a device can, and hand on what they return as float32.

    What comes between them, such as losses and the coordinates of boxes, stays in float32: bfloat16 tells pixel 1,000
    from 1,004, but not from 1,001.

    Args:
        modules: Each is called by others, not by one another; their weights stay in float32.
        device: Where they are.
    """
    changed = modules if computes_bf16(device) else ()
    for module in changed:
        # An attribute hides the method of the class, and goes again: names in the state stay what they are.
        module.forward = _autocast(module.forward, torch.device(device).type)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def _autocast(forward: Callable[..., Any], kind: str) -> Callable[..., Any]:
    @wraps(forward)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(kind, torch.bfloat16):
            return _in_float32(forward(*args, **kwargs))

    return wrapped


def _in_float32(output: Any) -> Any:
    """Return the tensors of an output, in lists, tuples and dicts, as float32."""
    if isinstance(output, Tensor):
        return output.float() if output.dtype == torch.bfloat16 else output
    if isinstance(output, dict):
        return type(output)((name, _in_float32(value)) for name, value in output.items())
    if isinstance(output, list | tuple):
        return type(output)(_in_float32(value) for value in output)
    return output
