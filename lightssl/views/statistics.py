"""How the views of a plan are distributed: area, pixel scale and overlap, from boxes alone; no pixel is looked at.

This is what SSLight (arXiv 2210.02808) controls: how much of an image a view covers, how large it shows things, and how
much of a local view another view has seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightssl.views.maker import ViewMaker


class Spread(NamedTuple):
    """A distribution in figures: its mean, and what 5, 50 and 95 % of it stay below."""

    mean: float
    p5: float
    p50: float
    p95: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "Spread | None":
        """Summarise values of any shape; None where there are none."""
        return cls(float(values.mean()), *np.percentile(values, (5, 50, 95)).tolist()) if values.size else None


@dataclass(frozen=True)
class ViewStatistics:
    """What was drawn. N images drawn from, G global and L local views of each."""

    global_size: int  # pixels
    local_size: int
    global_area: NDArray[np.float64]  # [N, G], share of the image's area
    local_area: NDArray[np.float64]  # [N, L]
    # Pixels of the view per pixel of the image, along a side: above 1, the view is enlarged.
    global_pixel_scale: NDArray[np.float64]  # [N, G]
    local_pixel_scale: NDArray[np.float64]  # [N, L]
    local_inside_global: NDArray[np.float64]  # [N, L, G], share of the local box that lies inside the global box
    global_iou: NDArray[np.float64]  # [N, G (G - 1) / 2], intersection over union of each pair of global boxes

    @property
    def pixel_scale_ratio(self) -> float | None:
        """Pixel scale of local over global views, ``size / sqrt(mean area)`` each; None without local views.

        :attr:`lightssl.views.plan.ViewPlan.pixel_scale_ratio` is the same in closed form, from the range that areas are
        drawn from. What is drawn differs: a large area fits into an image only where its aspect is about that of the
        image, and is drawn again elsewhere. Global views are therefore smaller than the middle of their range.
        """
        if not self.local_area.size:
            return None
        return self.local_size / self.global_size * float(np.sqrt(self.global_area.mean() / self.local_area.mean()))


def view_statistics(
    maker: ViewMaker, sizes: Sequence[tuple[int, int]], keys: Sequence[tuple[int, int]]
) -> ViewStatistics:
    """Draw the boxes of some images as training does, and measure them.

    Args:
        maker: Draws them.
        sizes: Height and width of each image, in pixels; at least one.
        keys: (epoch, index) of each, on which its boxes depend.
    """
    plan = maker.plan
    drawn = [
        maker.boxes(height, width, epoch, index) for (height, width), (epoch, index) in zip(sizes, keys, strict=True)
    ]
    boxes = np.array(drawn, np.float64)  # [N, V, 4]
    pixels = np.array(sizes, np.float64).prod(axis=1)[:, None]  # [N, 1]
    global_, local = np.split(boxes, [plan.global_.count], axis=1)
    shared = intersection(global_[:, :, None], global_[:, None])  # [N, G, G]
    both = area(global_)[:, :, None] + area(global_)[:, None] - shared
    pairs = np.triu_indices(plan.global_.count, 1)
    return ViewStatistics(
        global_size=plan.global_.size,
        local_size=plan.local.size,
        global_area=area(global_) / pixels,
        local_area=area(local) / pixels,
        global_pixel_scale=plan.global_.size / np.sqrt(area(global_)),
        local_pixel_scale=plan.local.size / np.sqrt(area(local)),
        local_inside_global=intersection(local[:, :, None], global_[:, None]) / area(local)[:, :, None],
        global_iou=(shared / both)[:, *pairs],
    )


def area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the areas of boxes [..., 4], as (top, left, height, width): [...]."""
    return boxes[..., 2] * boxes[..., 3]


def intersection(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area that boxes share with others: both [..., 4] as in :func:`area`, broadcast to [...]."""
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    return np.maximum(high - low, 0).prod(axis=-1)
