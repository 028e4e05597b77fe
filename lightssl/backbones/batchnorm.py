"""Batch norm of trained networks: its statistics estimated again, and folded into convolutions."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lightssl.errors import DataError


def has_batch_norm(network: nn.Module) -> bool:
    """Whether a network keeps running statistics of batch norm."""
    return bool(batch_norm_layers(network))


def batch_norm_layers(network: nn.Module) -> list[_BatchNorm]:
    """Return the layers of a network that keep running statistics of batch norm."""
    return [layer for layer in network.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]


@contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Put every module of a network in eval mode, and give each its own mode back afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def estimate_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of every batch-norm layer by those of the given images.

    Two things leave the running statistics wrong after self-supervised training. They are a moving average, which lags
    behind the weights while these change fast: a short run ends before it has caught up. And multi-crop training shows
    a network its local views last, so that they describe zoomed-in crops and not the images that are evaluated.

    The mean and the variance of a layer become the plain average over batches of each batch's mean and (unbiased)
    variance. The spread of the means between batches is left out, so give batches that are shuffled and of equal size;
    a batch needs two images at least. Other layers, such as dropout, stay in eval mode. A network without batch-norm
    layers is left as it is.

    Args:
        network: Changed in place; modes and momenta are as before afterwards.
        batches: Normalised images, float ``[B, 3, S, S]``, on the network's device.

    Raises:
        DataError: There is no batch. The statistics are then untouched.
    """
    layers = batch_norm_layers(network)
    if not layers:
        return
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        raise DataError(
            "There are no images to estimate batch-norm statistics on.", "Give at least one batch of two images."
        )
    momenta = [layer.momentum for layer in layers]
    with in_eval_mode(network):
        try:
            for layer in layers:
                layer.reset_running_stats()
                layer.momentum = None  # a cumulative average, in torch's words
                layer.train()
            for images in chain([first], batches):
                network(images)
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum


def start_near_linear(network: nn.Module) -> None:
    """Give every batch norm of feature maps bias 1: largely in the linear range of a ReLU after it."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.bias)


def fold_batch_norm(network: nn.Module) -> None:
    """Fold batch norm into the convolution before it where a ``Sequential`` holds both: the same outputs in less time.

    Args:
        network: In eval mode, changed in place. It can no longer be trained.
    """
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for (name, layer), (next_name, norm) in pairwise(list(module.named_children())):
            if type(layer) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.track_running_stats:
                setattr(module, name, fuse_conv_bn_eval(layer, norm))
                setattr(module, next_name, nn.Identity())
