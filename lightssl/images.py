"""From the bytes of an image to what a network reads. Every part that feeds a network goes through here."""

from collections.abc import Sequence

import torch
from torch import Tensor


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turn images into network input: ``(image / 255 - mean) / std``, on the device the images are on.

    Args:
        images: uint8 ``[..., H, W, 3]``, or float32 levels of 0 to 255, which are overwritten.
        mean: Of each colour channel, in [0, 1].
        std: Of each colour channel, in [0, 1].

    Returns:
        float32 ``[..., 3, H, W]``. A view with the channels moved to the front, not a copy: a contiguous input gives a
        tensor that convolutions take as ``torch.channels_last``.
    """
    # By rows of the image: a loop over three colours is too short for vector instructions.
    width = images.shape[-2]
    scale = torch.tensor([1 / (255 * s) for s in std]).repeat(width)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).repeat(width)
    scale, shift = (row.to(images.device, non_blocking=True) for row in (scale, shift))
    rows = images.flatten(-2).to(torch.float32)
    return rows.mul_(scale).add_(shift).unflatten(-1, (width, 3)).movedim(-1, -3)
