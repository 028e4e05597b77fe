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
    scale = torch.tensor([1 / (255 * s) for s in std], device=images.device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=images.device)
    return images.to(torch.float32).mul_(scale).add_(shift).movedim(-1, -3)
