"""Batch norm whose statistics are those of the batch over all processes."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightssl.distributed import gather, sum_over_processes, world_size


class HostSyncBatchNorm(_BatchNorm):
    """Synchronised batch norm for CPU tensors, which torch.nn.SyncBatchNorm refuses.

    Every process must hold equally many values.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any [B, C, ...]."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [B, C, ...] over B and all further dimensions, on all processes together."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        output, mean, variance = _Normalise.apply(input, self.weight, self.bias, self.eps)
        self._track(mean, variance, input.numel() // input.shape[1] * world_size())
        return output

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, values: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * values / max(1, values - 1), share)


class _Normalise(torch.autograd.Function):
    """Batch norm over all processes by torch's own kernels, with one exchange in each direction.

    The forward is batch norm with given statistics; the gradient of the input is that of given statistics less what
    flows through the mean and through the variance, which is again batch norm of the input with given statistics.
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = input if input.dtype.itemsize >= 4 else input.float()
        stats = torch.stack(torch.batch_norm_update_stats(wide, None, None, 0.0))  # [2, C]
        means, variances = gather(stats[None]).unbind(1)  # [W, C]
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        ctx.save_for_backward(input, weight, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return _scaled(input, weight, bias, mean, variance, eps), mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, mean, variance = ctx.saved_tensors
        _, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, input, weight, mean, variance, None, None, False, ctx.eps, [False, True, True]
        )
        slope = torch.rsqrt(variance + ctx.eps)
        if weight is not None:
            slope = slope * weight
        values = input.numel() // input.shape[1] * world_size()
        through_variance, through_mean = sum_over_processes(torch.stack([to_weight, to_bias])) * (-slope / values)
        to_input = _scaled(input, through_variance, through_mean, mean, variance, ctx.eps)
        channels = [1, -1] + [1] * (input.ndim - 2)
        to_input.addcmul_(gradient, slope.to(gradient.dtype).view(channels))
        return (to_input, to_weight, to_bias, None) if weight is not None else (to_input, None, None, None)


def _scaled(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, eps: float
) -> Tensor:
    return torch.batch_norm(input, weight, bias, mean, variance, False, 0.0, eps, False)


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm of a network by a synchronised one that shares its tensors, if there are peers."""
    if not (dist.is_available() and dist.is_initialized()) or world_size() == 1:
        return network
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, _BatchNorm):
                setattr(parent, name, _host_version(layer))
    return network


def _host_version(layer: _BatchNorm) -> HostSyncBatchNorm:
    version = HostSyncBatchNorm(
        layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats, device="meta"
    )
    version._parameters, version._buffers = layer._parameters, layer._buffers
    return version.train(layer.training)
