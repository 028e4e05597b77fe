"""Images whose sides are no multiple of a transformer's patch."""

from torch import Tensor

from lightssl.errors import ConfigError


def whole_patches(images: Tensor, patch: int) -> Tensor:
    """Drop the rows and columns at the lower and right edge that fill no patch, as DINO does.

    Args:
        images: [B, C, H, W].
        patch: Side of a patch in pixels.

    Returns:
        [B, C, H', W'], multiples of ``patch``.

    Raises:
        ConfigError: An image holds no whole patch.
    """
    height, width = images.shape[-2:]
    if min(height, width) < patch:
        raise ConfigError(
            f"Images of {height} x {width} pixels are smaller than one patch of {patch} x {patch}.",
            "Make all views and the evaluated images as large as a patch, or take a smaller patch.",
        )
    return images[..., : height - height % patch, : width - width % patch]
