"""Batch norm whose statistics are those of the batch over all processes."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightssl.distributed import sum_with_gradient, world_size


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
        dims = [0, *range(2, input.ndim)]
        shape = [1, -1] + [1] * (input.ndim - 2)
        processes = world_size()
        # Two reductions, not one of x and x^2: the difference of large squares would lose digits.
        mean = sum_with_gradient(input.mean(dims)) / processes
        centred = input - mean.view(shape)
        variance = sum_with_gradient(centred.square().mean(dims)) / processes
        self._track(mean.detach(), variance.detach(), input.numel() // input.shape[1] * processes)
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            return centred * (scale * self.weight).view(shape) + self.bias.view(shape)
        return centred * scale.view(shape)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, values: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * values / max(1, values - 1), share)


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
