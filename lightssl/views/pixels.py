"""The pixel arithmetic of the augmentations: OpenCV's, and albumentations' where it is as fast."""

import os
from math import ceil, cos, pi, sin, sqrt
from typing import cast

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # on import it would ask a server for its newest version

import cv2
import numpy as np
from albumentations.augmentations.pixel import functional
from cv2.typing import MatLike
from numpy.typing import NDArray

from lightssl.views.augment import Drawn

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's and torchvision's grey
_UNCHANGED, _NOTHING = np.eye(3), np.zeros(3)
_ROUNDS_DOWN = 0.5  # Pillow and torchvision cut fractions off where OpenCV rounds
_BLURS_FROM = 0.25  # pixels; below, the kernel's neighbours weigh less than a thousandth, and no level changes


def apply(image: NDArray[np.uint8], drawn: Drawn) -> NDArray[np.uint8]:
    """Apply what was drawn to a view, uint8 [H, W, 3] RGB to the same; the input stays as it was."""
    view: MatLike = image
    if drawn.flip:
        view = cv2.flip(view, 1)
    matrix, from_mean = colour_map(drawn)
    if matrix is not _UNCHANGED:
        affine = np.empty((3, 4), np.float32)
        affine[:, :3], affine[:, 3] = matrix, from_mean @ cv2.mean(view)[:3] - _ROUNDS_DOWN
        view = cv2.transform(view, affine)
    if drawn.grey:
        view = cv2.cvtColor(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if drawn.blur is not None and drawn.blur > _BLURS_FROM:
        view = _blur(view, drawn.blur)
    if drawn.solarize is not None:
        # The function wants a share of 255. Half a level less, and rounding cannot leave the threshold itself out.
        view = functional.solarize(view, (drawn.solarize - 0.5) / 255)
    return cast("NDArray[np.uint8]", view)


def colour_map(drawn: Drawn) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return hue, saturation, contrast and brightness of a view as one linear map.

    Saturation blends a colour with its grey, contrast with the grey of the mean colour. The hue is turned about the
    grey axis of the RGB cube, which keeps the sum of red, green and blue, where torchvision's HSV keeps the largest of
    them. What leaves 0..255 is clipped once, where torchvision clips after each operation.

    Returns:
        [3, 3], from a colour to the new one; and [3], from the view's mean colour to what is added to every channel.
    """
    if (drawn.hue, drawn.saturation, drawn.contrast, drawn.brightness) == (0.0, 1.0, 1.0, 1.0):
        return _UNCHANGED, _NOTHING
    angle = 2 * pi * drawn.hue
    across, along = sin(angle) / sqrt(3), (1 - cos(angle)) / 3
    stays = cos(angle) + along
    turned = np.array(
        [
            [stays, along - across, along + across],
            [along + across, stays, along - across],
            [along - across, along + across, stays],
        ]
    )
    grey = LUMA @ turned
    mixed = drawn.saturation * turned + (1 - drawn.saturation) * grey
    return drawn.brightness * drawn.contrast * mixed, drawn.brightness * (1 - drawn.contrast) * grey


def _blur(view: MatLike, sigma: float) -> MatLike:
    """Blur along rows, then along columns: to a level as ``cv2.GaussianBlur``, which takes twice as long."""
    kernel = cv2.getGaussianKernel(2 * ceil(3 * sigma) + 1, sigma)
    # Pillow, which blurs in the published code, extends the border; OpenCV would mirror it.
    return cv2.sepFilter2D(view, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
