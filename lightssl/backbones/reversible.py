"""Residual units that compute their activations again in the backward pass instead of keeping them.

Follows the reversible residual networks of Gomez et al. 2017 (arXiv 1707.04585).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lightssl.backbones.batchnorm import batch_norm_layers


class ReversibleSequence(nn.Module):
    """Residual units on two halves of the channels: each unit adds to one half what it makes of the other.

    A unit makes (b, a + unit(b)) of (a, b), from which (a, b) can be computed. Training therefore keeps the output of
    the last unit alone, at the cost of one more forward pass in the backward pass. Batch norm sees the same batch
    twice, and counts it once. Under autocast the output is float32, for the units to be undone precisely.

    In eval mode, without gradients, and under ``torch.compile``, which decides itself what to keep, units are plain.

    Args:
        units: Each maps [B, C, H, W] to the same shape. They draw no random numbers.
        recompute: Compute activations again; else they are kept, as usual.
        empty: Channels, the last of the 2 * C, that are zeros before the first unit. They are made so again when units
            are undone: batch norm leaves zeros at the kink of a ReLU, where rounding would decide about gradients.
    """

    def __init__(self, units: Iterable[nn.Module], *, recompute: bool = True, empty: int = 0) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)
        self.recompute, self.empty = recompute, empty

    def forward(self, maps: Tensor) -> Tensor:
        """Map [B, 2 * C, H, W] to the same shape."""
        if maps.dtype in (torch.bfloat16, torch.float16) and torch.is_autocast_enabled(maps.device.type):
            maps = maps.float()
        if self.recompute and self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            outputs: Tensor = _Recomputed.apply(self, maps, *self.parameters())
            return outputs
        return self.run(maps)

    def run(self, maps: Tensor) -> Tensor:
        """Do the same by torch's own means, keeping all activations if there are gradients."""
        first, second = maps.chunk(2, dim=1)
        for unit in self.units:
            first, second = second, first + unit(second)
        return torch.cat([first, second], dim=1)

    def inverse(self, maps: Tensor) -> Tensor:
        """Map an output [B, 2 * C, H, W] back to the input it was made of."""
        first, second = maps.chunk(2, dim=1)
        for position, unit in reversed(list(enumerate(self.units))):
            first = self.emptied(first, position)
            first, second = second - unit(first), first
        return torch.cat([first, second], dim=1)

    def emptied(self, half: Tensor, position: int) -> Tensor:
        """Make zeros again what were zeros of what a unit was given, [B, C, H, W]."""
        if not self.empty or position > 0:
            return half
        return F.pad(half[:, : -self.empty], (0, 0, 0, 0, 0, self.empty))


class _Recomputed(torch.autograd.Function):
    """All units of a sequence; parameters are inputs, for autograd to see their gradients."""

    @staticmethod
    def forward(ctx: Any, sequence: ReversibleSequence, maps: Tensor, *parameters: Tensor) -> Tensor:
        ctx.sequence, ctx.autocast = sequence, _autocast_of(maps.device.type)
        ctx.modes = [module.training for module in sequence.units.modules()]
        with ctx.autocast():
            outputs = sequence.run(maps)
        # Parameters are saved for torch to complain if they change before the backward pass.
        ctx.save_for_backward(outputs, *parameters)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        sequence = ctx.sequence
        first, second = ctx.saved_tensors[0].chunk(2, dim=1)
        to_first, to_second = gradient.chunk(2, dim=1)
        found: dict[Tensor, Tensor] = {}
        with _as_in_forward(sequence.units, ctx.modes), ctx.autocast():
            for position, unit in reversed(list(enumerate(sequence.units))):
                first = sequence.emptied(first, position)
                trained = [parameter for parameter in unit.parameters() if parameter.requires_grad]
                with torch.enable_grad():
                    source = first.detach().requires_grad_()
                    added = unit(source)
                through, *gradients = torch.autograd.grad(added, [source, *trained], to_second.to(added.dtype))
                found.update(zip(trained, gradients, strict=True))
                first, second = second - added.detach(), first
                to_first, to_second = to_second, to_first + through
        return None, torch.cat([to_first, to_second], dim=1), *map(found.get, sequence.parameters())


def _autocast_of(kind: str) -> Callable[[], AbstractContextManager[Any]]:
    """Return what brings autocast on a kind of device back to its present state.

    It remembers no weight that it has cast: one that was cast where there are no gradients is of no use elsewhere.
    """
    if not torch.amp.is_autocast_available(kind):
        return nullcontext
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    return partial(torch.autocast, kind, dtype, enabled, cache_enabled=False)


@contextmanager
def _as_in_forward(units: nn.Module, modes: list[bool]) -> Iterator[None]:
    """Give all modules the modes they had, and hide the running statistics of batch norm, which have seen the batch."""
    before = [(module, module.training) for module in units.modules()]
    for (module, _), training in zip(before, modes, strict=True):
        module.training = training
    hidden = [(layer, layer._buffers) for layer in batch_norm_layers(units) if layer.training]
    for layer, buffers in hidden:
        layer._buffers = dict.fromkeys(buffers)
    try:
        yield
    finally:
        for layer, buffers in hidden:
            layer._buffers = buffers
        for module, training in before:
            module.training = training
