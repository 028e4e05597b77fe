"""The pixel arithmetic of the augmentations: OpenCV's, and albumentations' where it is as fast."""

import os
from itertools import groupby
from math import ceil
from typing import cast

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # on import it would ask a server for its newest version

import cv2
import numpy as np
from albumentations.augmentations.pixel import functional
from cv2.typing import MatLike
from numpy.typing import NDArray

from lightssl.views.augment import Drawn

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's and torchvision's grey
_DIAGONAL = np.diag_indices(3)
_ROUNDS_DOWN = 0.5  # Pillow and torchvision cut fractions off where OpenCV rounds
_BLURS_FROM = 0.25  # pixels; below, the kernel's neighbours weigh less than a thousandth, and no level changes


def apply(image: NDArray[np.uint8], drawn: Drawn) -> NDArray[np.uint8]:
    """Apply what was drawn to a view, uint8 [H, W, 3] RGB to the same; the input stays as it was."""
    view: MatLike = image
    if drawn.flip:
        view = cv2.flip(view, 1)
    for is_hue, operations in groupby(drawn.jitter, key=lambda operation: operation[0] == "hue"):
        factors = dict(operations)
        view = _turn_hue(view, **factors) if is_hue else _mix_colours(view, **factors)
    if drawn.grey:
        view = cv2.cvtColor(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if drawn.blur is not None and drawn.blur > _BLURS_FROM:
        view = _blur(view, drawn.blur)
    if drawn.solarize is not None:
        # The function wants a share of 255. Half a level less, and rounding cannot leave the threshold itself out.
        view = functional.solarize(view, (drawn.solarize - 0.5) / 255)
    return cast("NDArray[np.uint8]", view)


def _mix_colours(view: MatLike, brightness: float = 1.0, contrast: float = 1.0, saturation: float = 1.0) -> MatLike:
    """Apply what maps colours linearly as one matrix.

    Contrast blends with the grey of the mean colour, saturation with each pixel's own. As neither changes the mean
    grey, the three may come in any order. What leaves 0..255 is clipped once, where torchvision clips after each.
    """
    grey = float(_LUMA @ cv2.mean(view)[:3])
    matrix = np.empty((3, 4), np.float32)
    matrix[:, :3] = brightness * contrast * (1 - saturation) * _LUMA
    matrix[_DIAGONAL] += brightness * contrast * saturation
    matrix[:, 3] = brightness * (1 - contrast) * grey - _ROUNDS_DOWN
    return cv2.transform(view, matrix)


def _turn_hue(view: MatLike, hue: float) -> MatLike:
    """Move the hue by so many turns; it wraps around at 256 as bytes do."""
    hsv = cv2.cvtColor(view, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(256 * hue) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL, dst=hsv)


def _blur(view: MatLike, sigma: float) -> MatLike:
    """Blur along rows, then along columns: to a level as ``cv2.GaussianBlur``, which takes twice as long."""
    kernel = cv2.getGaussianKernel(2 * ceil(3 * sigma) + 1, sigma)
    # Pillow, which blurs in the published code, extends the border; OpenCV would mirror it.
    return cv2.sepFilter2D(view, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
