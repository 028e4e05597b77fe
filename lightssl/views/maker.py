"""From an image to its views: crops as the plan says, then colour and blur by role."""

import numpy as np
from numpy.typing import NDArray

from lightssl.views.augment import Augmentations, Role
from lightssl.views.crops import Box, draw, sample_box
from lightssl.views.pixels import apply
from lightssl.views.plan import Crops, ViewPlan


class ViewMaker:
    """Makes the views of an image; the randomness of a view depends on (seed, epoch, image index, view) alone.

    Any number of workers or processes, and a resumed run, therefore see the same views. Can be pickled.

    Args:
        plan: How many views, of which share of the image, at which size.
        augmentations: Colour and blur by role.
        seed: The run's seed, 0 or more.
    """

    def __init__(self, plan: ViewPlan, augmentations: Augmentations, *, seed: int) -> None:
        self.plan = plan
        self.augmentations = augmentations
        self.seed = seed

    def __call__(self, image: NDArray[np.uint8], epoch: int, index: int) -> list[NDArray[np.uint8]]:
        """Draw the views of the image at position ``index`` of its source.

        Args:
            image: uint8 [H, W, 3] RGB.
            epoch: Passes over the data before this one.
            index: Position of the image in its source.

        Returns:
            The global views, uint8 [G, S, S, 3], then, when the plan has any, the local views, uint8 [L, s, s, 3].
        """
        groups: list[NDArray[np.uint8]] = []
        view = 0
        for crops in self._kinds():
            group = np.empty((crops.count, crops.size, crops.size, 3), np.uint8)
            for position in range(crops.count):
                rng = self._rng(epoch, index, view)
                box = self._box(rng, image.shape[0], image.shape[1], crops)
                drawn = self.augmentations.sample(rng, self.role(view))
                group[position] = apply(draw(image, box, crops.size), drawn)
                view += 1
            groups.append(group)
        return groups

    def boxes(self, height: int, width: int, epoch: int, index: int) -> list[Box]:
        """Return where each view lies in an image of this size, global views first, without drawing them."""
        kinds = [crops for crops in self._kinds() for _ in range(crops.count)]
        return [self._box(self._rng(epoch, index, view), height, width, crops) for view, crops in enumerate(kinds)]

    def role(self, view: int) -> Role:
        """Return the role of a view by its number: global views are counted first."""
        if view == 0:
            return "global_1"
        return "global_2" if view < self.plan.global_.count else "local"

    def _kinds(self) -> list[Crops]:
        """The kinds of views that the plan has any of."""
        return [self.plan.global_, self.plan.local] if self.plan.local.count else [self.plan.global_]

    def _rng(self, epoch: int, index: int, view: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, epoch, index, view))

    def _box(self, rng: np.random.Generator, height: int, width: int, crops: Crops) -> Box:
        return sample_box(rng, height, width, crops.scale, self.plan.aspect)
