"""Random crops: where a view lies in its image, and drawing it at the size the network sees.

The distribution is that of torchvision's RandomResizedCrop, which the published recipes use.
"""

from math import exp, log, sqrt
from typing import NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray

_ATTEMPTS = 10  # as torchvision

# The published views are drawn by Pillow, whose bicubic filter widens as it shrinks an image; OpenCV's does not, and
# aliases. From about this reduction on, averaging over areas is the closer of the two: over the crops of the published
# plans 1.3 of 255 levels from Pillow on average, where the bicubic filter alone is 3, and in a third of Pillow's time.
_REDUCTION_TO_AVERAGE = 1.1


class Box(NamedTuple):
    """A part of an image, in its pixels."""

    top: int
    left: int
    height: int
    width: int


def sample_box(
    rng: np.random.Generator, height: int, width: int, scale: tuple[float, float], aspect: tuple[float, float]
) -> Box:
    """Draw a box that covers a share U(scale) of the image, its aspect (width / height) log-uniform in ``aspect``.

    When no box of ten fits, the largest central one whose aspect lies in the range is taken, so that any image
    with a pixel gets a box.
    """
    log_aspect = log(aspect[0]), log(aspect[1])
    for _ in range(_ATTEMPTS):
        area = height * width * rng.uniform(*scale)
        ratio = exp(rng.uniform(*log_aspect))
        box_width, box_height = round(sqrt(area * ratio)), round(sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            top, left = rng.integers(height - box_height + 1), rng.integers(width - box_width + 1)
            return Box(int(top), int(left), box_height, box_width)
    return _central_box(height, width, aspect)


def _central_box(height: int, width: int, aspect: tuple[float, float]) -> Box:
    """Return the largest central box whose aspect lies in the range."""
    box_width = min(width, max(1, round(height * aspect[1])))
    box_height = min(height, max(1, round(width / aspect[0])))
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)


def draw(image: NDArray[np.uint8], box: Box, size: int) -> NDArray[np.uint8]:
    """Draw a box of an image, uint8 [H, W, 3], at ``size`` x ``size`` pixels: uint8 [size, size, 3]."""
    top, left, height, width = box
    crop = image[top : top + height, left : left + width]
    averaged = sqrt(height * width) > _REDUCTION_TO_AVERAGE * size
    view = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if averaged else cv2.INTER_CUBIC)
    return cast("NDArray[np.uint8]", view)
