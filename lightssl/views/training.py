"""What a classifier is trained on: one crop of each image, mirrored half of the time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightssl.views.chance import Numbers, view_numbers
from lightssl.views.crops import Box, draw, sample_box

_ASPECT = 3 / 4, 4 / 3


class TrainingCrop:
    """Makes the one view of an image; its randomness depends on (seed, epoch, image index) alone. Can be pickled.

    Args:
        size: Pixels of a side.
        area: Share of the image that a crop covers, least and most.
        seed: 0 or more.
    """

    def __init__(self, size: int, area: tuple[float, float], *, seed: int) -> None:
        self.size, self.area, self.seed = size, area, seed
        self.shapes = self.largest_shapes = [(1, size, size, 3)]

    def at(self, step: int, total_steps: int) -> "TrainingCrop":
        """Return what makes the views of one step: all are made alike."""
        return self

    def __call__(
        self, image: NDArray[np.uint8], epoch: int, index: int, out: Sequence[NDArray[np.uint8]]
    ) -> Sequence[NDArray[np.uint8]]:
        """Draw the view of an image, uint8 [H, W, 3], into ``out``, one array uint8 [1, size, size, 3]."""
        box, mirrored = self._box(image.shape[0], image.shape[1], epoch, index)
        view = draw(image, box, self.size)
        out[0][0] = view[:, ::-1] if mirrored else view
        return out

    def left_to_do(self, epoch: int, index: int) -> list[list[float]]:
        """Return what the device has still to do with the view: nothing."""
        return []

    def reduction(self, height: int, width: int, epoch: int, index: int) -> int:
        """Return by how much the image may be shrunk beforehand so that the view has not to be enlarged for it."""
        box, _ = self._box(height, width, epoch, index)
        return max(1, min(box.height, box.width) // self.size)

    def _box(self, height: int, width: int, epoch: int, index: int) -> tuple[Box, bool]:
        numbers: Numbers = view_numbers(self.seed, epoch, index, 1)[0]
        mirrored = next(numbers) < 0.5
        return sample_box(numbers, height, width, self.area, _ASPECT), mirrored
