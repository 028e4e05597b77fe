"""The pixel arithmetic of the augmentations: albumentations' functions where it has them, OpenCV's elsewhere."""

import os
from typing import cast

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # on import it would ask a server for its newest version

import cv2
import numpy as np
from albumentations.augmentations.pixel import functional
from cv2.typing import MatLike
from numpy.typing import NDArray

from lightssl.views.augment import Drawn

_JITTER = {
    "brightness": functional.adjust_brightness_torchvision,
    "contrast": functional.adjust_contrast_torchvision,
    "saturation": functional.adjust_saturation_torchvision,
    "hue": functional.adjust_hue_torchvision,
}


def apply(image: NDArray[np.uint8], drawn: Drawn) -> NDArray[np.uint8]:
    """Apply what was drawn to a view, uint8 [H, W, 3] RGB to the same; the input stays as it was."""
    view: MatLike = image
    if drawn.flip:
        view = cv2.flip(view, 1)
    for operation, factor in drawn.jitter:
        view = _JITTER[operation](view, factor)
    if drawn.grey:
        view = cv2.cvtColor(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if drawn.blur is not None:
        # Pillow, which blurs in the published code, extends the border; OpenCV would mirror it.
        view = cv2.GaussianBlur(view, (0, 0), drawn.blur, borderType=cv2.BORDER_REPLICATE)
    if drawn.solarize is not None:
        # The function wants a share of 255. Half a level less, and rounding cannot leave the threshold itself out.
        view = functional.solarize(view, (drawn.solarize - 0.5) / 255)
    return cast("NDArray[np.uint8]", view)
