"""The pixel arithmetic of :mod:`lightssl.views.pixels` for a batch at a time, on the device that trains.

For machines with more accelerator than processor: workers then only decode and crop, and send what was drawn for each
view along as numbers. The views are the same, but for levels that are rounded nowhere in between.
"""

from collections.abc import Callable
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F

from lightssl.views.augment import Drawn
from lightssl.views.pixels import LUMA, colour_map

_NEVER = 256.0  # a threshold that no level reaches
_COLUMNS = (1, 9, 3, 1, 1, 1)  # flip; matrix and what the mean adds, of colour_map; grey; blur; solarize


def as_row(drawn: Drawn) -> list[float]:
    """Write what was drawn for one view as 16 numbers, for :func:`apply_batch`."""
    matrix, from_mean = colour_map(drawn)
    threshold = _NEVER if drawn.solarize is None else float(drawn.solarize)
    colour = [*matrix.ravel().tolist(), *from_mean.tolist()]
    return [float(drawn.flip), *colour, float(drawn.grey), drawn.blur or 0.0, threshold]


def apply_batch(views: Tensor, rows: Tensor) -> Tensor:
    """Apply what was drawn to the views of one resolution.

    Args:
        views: uint8 [V, B, S, S, 3] RGB, on any device.
        rows: float32 [V, B, 16] of :func:`as_row`, on the host: which views an operation leaves alone is then known
            without waiting for the device.

    Returns:
        float32 [V, B, S, S, 3], levels of 0 to 255.
    """
    # View by view, which bounds the memory that the steps in between take.
    return torch.stack([_apply(images.float(), row) for images, row in zip(views, rows, strict=True)])


def _apply(images: Tensor, rows: Tensor) -> Tensor:
    """Apply the operations to float images [B, S, S, 3], in place where that saves memory, in the published order."""
    flip, matrix, from_mean, grey, sigma, threshold = rows.split(_COLUMNS, dim=1)

    def change(chosen: Tensor, operation: Callable[..., Tensor], *arguments: Tensor) -> None:
        if chosen.any():
            where = chosen.nonzero().flatten()
            moved = [argument[where].to(images.device, non_blocking=True) for argument in arguments]
            where = where.to(images.device, non_blocking=True)
            images[where] = operation(images[where], *moved)

    change(flip[:, 0] > 0, lambda chosen: chosen.flip(2))
    change((matrix != torch.eye(3).flatten()).any(dim=1), _map_colours, matrix.unflatten(1, (3, 3)), from_mean)
    change(grey[:, 0] > 0, _grey)
    change(sigma[:, 0] > 0, _blur, sigma)
    change(threshold[:, 0] < _NEVER, _solarize, threshold)
    return images.clamp_(0, 255)  # weights that sum to 1 only nearly leave it by a rounding error


def _map_colours(images: Tensor, matrix: Tensor, from_mean: Tensor) -> Tensor:
    added = (images.mean(dim=(1, 2)) * from_mean).sum(dim=1)
    return (torch.einsum("bhwi,boi->bhwo", images, matrix) + added[:, None, None, None]).clamp_(0, 255)


def _grey(images: Tensor) -> Tensor:
    return (images * images.new_tensor(LUMA)).sum(dim=-1, keepdim=True).expand_as(images)


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image by its own Gaussian, along columns, then along rows."""
    count, size = images.shape[:2]
    radius = ceil(3 * sigma.max().item())
    x = torch.arange(-radius, radius + 1, device=images.device)
    kernels = torch.exp(-0.5 * (x / sigma) ** 2)
    kernels = (kernels / kernels.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)[:, None]  # [3 B, 1, 2 r + 1]
    planes = images.movedim(-1, 1).reshape(1, 3 * count, size, size)
    planes = F.pad(planes, (radius,) * 4, mode="replicate")
    planes = F.conv2d(planes, kernels[..., None], groups=3 * count)
    planes = F.conv2d(planes, kernels[:, :, None], groups=3 * count)
    return planes.view(count, 3, size, size).movedim(1, -1)


def _solarize(images: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(images >= threshold[:, None, None] - 0.5, 255 - images, images)
