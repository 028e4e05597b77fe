"""From an image to its views: crops as the plan says, then colour and blur by role."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lightssl.views.augment import Augmentations, Drawn, Role
from lightssl.views.batch import as_row
from lightssl.views.chance import Numbers, below, step_numbers, view_numbers
from lightssl.views.crops import Box, draw, sample_box
from lightssl.views.pixels import apply
from lightssl.views.plan import Crops, Scale, ViewPlan


class ViewMaker:
    """Makes the views of an image; the randomness of a view depends on (seed, epoch, image index, view) alone.

    Any number of workers or processes, and a resumed run, therefore see the same views. Can be pickled.

    Where the plan varies over the steps of a training, this makes views as it is in the end, and as many as there ever
    are; see :meth:`at`.

    Args:
        plan: How many views, of which share of the image, at which size.
        augmentations: Colour and blur by role.
        seed: The run's seed, 0 or more.
        crops_only: Leave flip, colour and blur to :func:`lightssl.views.batch.apply_batch`.
    """

    def __init__(self, plan: ViewPlan, augmentations: Augmentations, *, seed: int, crops_only: bool = False) -> None:
        self.plan = plan
        self.augmentations = augmentations
        self.seed = seed
        self.crops_only = crops_only

    def at(self, step: int, total_steps: int) -> "ViewMaker":
        """Return what makes the views of one step: the same for all processes, and for a resumed run."""
        if not self.plan.varies:
            return self
        plan, counts = self.plan.at(step / max(1, total_steps - 1)), self.plan.local.counts
        count = counts[below(step_numbers(self.seed, step), len(counts))]
        local = plan.local.model_copy(update={"count": count, "min_count": None})
        plan = plan.model_copy(update={"local": local})
        return ViewMaker(plan, self.augmentations, seed=self.seed, crops_only=self.crops_only)

    @property
    def largest_shapes(self) -> list[tuple[int, int, int, int]]:
        """Those :attr:`shapes` into which the views of any step fit."""
        start = self.plan.at(0)
        sizes = [max(self.plan.global_.size, start.global_.size), max(self.plan.local.size, start.local.size)]
        return [(crops.count, size, size, 3) for crops, size in zip(self._kinds(), sizes, strict=False)]

    @property
    def shapes(self) -> list[tuple[int, int, int, int]]:
        """Of one image's views: [G, S, S, 3] of the global and, when there are any, [L, s, s, 3] of the local ones."""
        return [(crops.count, crops.size, crops.size, 3) for crops in self._kinds()]

    def __call__(
        self, image: NDArray[np.uint8], epoch: int, index: int, out: Sequence[NDArray[np.uint8]] | None = None
    ) -> Sequence[NDArray[np.uint8]]:
        """Draw the views of the image at position ``index`` of its source.

        Args:
            image: uint8 [H, W, 3] RGB.
            epoch: Passes over the data before this one.
            index: Position of the image in its source.
            out: Where to draw them: uint8 arrays of :attr:`shapes`.

        Returns:
            The global views, then, when the plan has any, the local views: uint8, of :attr:`shapes`.
        """
        groups = [np.empty(shape, np.uint8) for shape in self.shapes] if out is None else out
        places = [place for group in groups for place in group]
        height, width = image.shape[:2]
        chosen = [
            (self._box(numbers, height, width, scale), size, drawn)
            for size, scale, drawn, numbers in self._views(epoch, index)
        ]
        # One kind of work after the other, which its code and data stay in the CPU's caches for.
        views = [draw(image, box, size) for box, size, _ in chosen]
        for place, view, (_, _, drawn) in zip(places, views, chosen, strict=True):
            place[...] = view if self.crops_only else apply(view, drawn)
        return groups

    def left_to_do(self, epoch: int, index: int) -> list[list[float]]:
        """Return what :func:`lightssl.views.batch.apply_batch` has still to do with each view, global views first.

        Empty unless the maker does ``crops_only``.
        """
        return [as_row(drawn) for _, _, drawn, _ in self._views(epoch, index)] if self.crops_only else []

    def boxes(self, height: int, width: int, epoch: int, index: int) -> list[Box]:
        """Return where each view lies in an image of this size, global views first, without drawing them."""
        return [self._box(numbers, height, width, scale) for _, scale, _, numbers in self._views(epoch, index)]

    def reduction(self, height: int, width: int, epoch: int, index: int) -> int:
        """Return by how much the image may be shrunk beforehand so that no view has to be enlarged for it.

        Boxes are shares of the image, so that those of the shrunk image show the same parts.
        """
        if min(height, width) < 2 * self.plan.global_.size:  # no box can be twice as large as its view
            return 1
        boxes = self.boxes(height, width, epoch, index)
        sizes = [crops.size for crops in self._kinds() for _ in range(crops.count)]
        return max(1, min(min(box.height, box.width) // size for box, size in zip(boxes, sizes, strict=True)))

    def role(self, view: int) -> Role:
        """Return the role of a view by its number: global views are counted first."""
        if view == 0:
            return "global_1"
        return "global_2" if view < self.plan.global_.count else "local"

    def _kinds(self) -> list[Crops]:
        """The kinds of views that the plan has any of."""
        return [self.plan.global_, self.plan.local] if self.plan.local.count else [self.plan.global_]

    def _views(self, epoch: int, index: int) -> Iterator[tuple[int, Scale, Drawn, Numbers]]:
        """Yield each view's size and scale, its flip, colour and blur, and the numbers that its box is drawn from."""
        views = [(crops.size, crops.scale_of(number)) for crops in self._kinds() for number in range(crops.count)]
        for view, numbers in enumerate(view_numbers(self.seed, epoch, index, len(views))):
            yield *views[view], self.augmentations.sample(numbers, self.role(view)), numbers

    def _box(self, numbers: Numbers, height: int, width: int, scale: Scale) -> Box:
        return sample_box(numbers, height, width, scale, self.plan.aspect)
