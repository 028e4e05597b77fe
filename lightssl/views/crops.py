"""Random crops: where a view lies in its image, and drawing it at the size the network sees.

The distribution is that of torchvision's RandomResizedCrop, which the published recipes use.
"""

from math import exp, log, sqrt
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from lightssl.views.chance import Numbers, below, between

_ATTEMPTS = 10  # as torchvision


class Box(NamedTuple):
    """A part of an image, in its pixels."""

    top: int
    left: int
    height: int
    width: int


def sample_box(
    numbers: Numbers, height: int, width: int, scale: tuple[float, float], aspect: tuple[float, float]
) -> Box:
    """Draw a box that covers a share U(scale) of the image, its aspect (width / height) log-uniform in ``aspect``.

    When no box of ten fits, the largest central one whose aspect lies in the range is taken, so that any image
    with a pixel gets a box.
    """
    log_aspect = log(aspect[0]), log(aspect[1])
    for _ in range(_ATTEMPTS):
        area = height * width * between(numbers, *scale)
        ratio = exp(between(numbers, *log_aspect))
        box_width, box_height = round(sqrt(area * ratio)), round(sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            top, left = below(numbers, height - box_height + 1), below(numbers, width - box_width + 1)
            return Box(top, left, box_height, box_width)
    return _central_box(height, width, aspect)


def _central_box(height: int, width: int, aspect: tuple[float, float]) -> Box:
    """Return the largest central box whose aspect lies in the range."""
    box_width = min(width, max(1, round(height * aspect[1])))
    box_height = min(height, max(1, round(width / aspect[0])))
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)


def draw(image: NDArray[np.uint8], box: Box, size: int) -> NDArray[np.uint8]:
    """Draw a box of an image, uint8 [H, W, 3], at ``size`` x ``size`` pixels: uint8 [size, size, 3].

    The filter is Pillow's bicubic one, which draws the published views: it widens as it shrinks an image, and so does
    not alias. Torch has it for uint8 pixels, on average within a tenth of a level and several times as fast.
    """
    top, left, height, width = box
    crop = image[None, top : top + height, left : left + width].copy()
    # As a batch of one in channels_last, for which torch has the fast kernel.
    view = interpolate(torch.from_numpy(crop).permute(0, 3, 1, 2), (size, size), mode="bicubic", antialias=True)
    return view.permute(0, 2, 3, 1).numpy()[0]
