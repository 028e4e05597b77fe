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

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_NEVER = 256.0  # a threshold that no level reaches
_MIXING = ("brightness", "contrast", "saturation")
COLUMNS = ("flip", *_MIXING, "hue", *(f"{name} after hue" for name in _MIXING), "grey", "blur", "solarize")


def as_row(drawn: Drawn) -> list[float]:
    """Write what was drawn for one view as numbers, one for each of :data:`COLUMNS`."""
    numbers = dict.fromkeys(COLUMNS, 1.0) | {
        "flip": float(drawn.flip),
        "hue": 0.0,
        "grey": float(drawn.grey),
        "blur": drawn.blur or 0.0,
        "solarize": _NEVER if drawn.solarize is None else float(drawn.solarize),
    }
    hue_is_turned = False
    for operation, factor in drawn.jitter:
        numbers[f"{operation} after hue" if hue_is_turned else operation] = factor
        hue_is_turned |= operation == "hue"
    return [numbers[column] for column in COLUMNS]


def apply_batch(views: Tensor, rows: Tensor) -> Tensor:
    """Apply what was drawn to the views of one resolution.

    Args:
        views: uint8 [V, B, S, S, 3] RGB, on any device.
        rows: float32 [V, B, 11] of :func:`as_row`, on the host: which views an operation leaves alone is then known
            without waiting for the device.

    Returns:
        float32 [V, B, S, S, 3], levels of 0 to 255.
    """
    # View by view, which bounds the memory that the steps in between take.
    return torch.stack([_apply(images.float(), row) for images, row in zip(views, rows, strict=True)])


def _apply(images: Tensor, rows: Tensor) -> Tensor:
    """Apply the operations to float images [B, S, S, 3], in place where that saves memory, in the published order."""
    column = dict(zip(COLUMNS, rows.unbind(dim=1), strict=True))

    def change(chosen: Tensor, operation: Callable[..., Tensor], *arguments: Tensor) -> None:
        if chosen.any():
            where = chosen.nonzero().flatten()
            moved = [argument[where].to(images.device, non_blocking=True) for argument in arguments]
            where = where.to(images.device, non_blocking=True)
            images[where] = operation(images[where], *moved)

    change(column["flip"] > 0, lambda chosen: chosen.flip(2))
    before, after = ([column[f"{name}{suffix}"] for name in _MIXING] for suffix in ("", " after hue"))
    change(_any_but(1, before), _mix_colours, *before)
    change(column["hue"] != 0, _turn_hue, column["hue"])
    change(_any_but(1, after), _mix_colours, *after)
    change(column["grey"] > 0, lambda chosen: _grey(chosen).expand_as(chosen))
    change(column["blur"] > 0, _blur, column["blur"])
    change(column["solarize"] < _NEVER, _solarize, column["solarize"])
    return images


def _any_but(neutral: float, columns: list[Tensor]) -> Tensor:
    return (torch.stack(columns) != neutral).any(dim=0)


def _grey(images: Tensor) -> Tensor:
    return (images * images.new_tensor(_LUMA)).sum(dim=-1, keepdim=True)


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _mix_colours(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    grey = _grey(images)
    mixed = torch.lerp(grey, images, _each(saturation))
    return (_each(brightness) * torch.lerp(grey.mean(dim=(1, 2), keepdim=True), mixed, _each(contrast))).clamp_(0, 255)


def _turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Move the hue, keeping what HSV calls saturation and value."""
    red, green, blue = images.unbind(dim=-1)
    value, lowest = images.amax(dim=-1), images.amin(dim=-1)
    chroma = value - lowest
    safe = chroma.clamp(min=1e-6)
    # In sixths of a turn from red, by which of the three is the largest.
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue = hue + 6 * turns[:, None, None]
    # Each channel falls from the value to the lowest level as the hue goes away from it.
    distance = torch.stack([hue + 5, hue + 3, hue + 1], dim=-1).remainder(6)
    return value[..., None] - chroma[..., None] * torch.minimum(distance, 4 - distance).clamp(0, 1)


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image by its own Gaussian, along columns, then along rows."""
    count, size = images.shape[:2]
    radius = ceil(3 * sigma.max().item())
    x = torch.arange(-radius, radius + 1, device=images.device)
    kernels = torch.exp(-0.5 * (x / sigma[:, None]) ** 2)
    kernels = (kernels / kernels.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)[:, None]  # [3 B, 1, 2 r + 1]
    planes = images.movedim(-1, 1).reshape(1, 3 * count, size, size)
    planes = F.pad(planes, (radius,) * 4, mode="replicate")
    planes = F.conv2d(planes, kernels[..., None], groups=3 * count)
    planes = F.conv2d(planes, kernels[:, :, None], groups=3 * count)
    return planes.view(count, 3, size, size).movedim(1, -1)


def _solarize(images: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(images >= _each(threshold) - 0.5, 255 - images, images)
