"""The view-sampling plan: how many views of an image are drawn, from how much of it, and how large.

SSLight (arXiv 2210.02808) finds that low-compute networks fail in self-supervised learning because the views ask too
much of them, and that three controlled choices repair it. A :class:`ViewPlan` holds just these:

- where the boundary lies between the area that global and local views cover (``scale``),
- how many pixels a local view is drawn with (``size``), so that both kinds show things at about the same pixel scale,
- how many local views there are, and how the two kinds of loss terms are balanced.

A plan says nothing about colour: see :mod:`lightssl.views.augment`.
"""

from math import sqrt
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lightssl.types import Positive, PositiveInt, Share


class Crops(BaseModel):
    """One kind of view: ``count`` crops of ``size`` x ``size`` pixels, each covering a share of the image's area."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: Annotated[int, Field(ge=0)]
    size: PositiveInt
    scale: tuple[Share, Share]

    @model_validator(mode="after")
    def _scale_is_ascending(self) -> Self:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale must ascend from above 0, got [{low:g}, {high:g}]")
        return self

    @property
    def pixel_scale(self) -> float:
        """Pixels of the view per length of the image's side, ``size / sqrt(mean area share)``."""
        return self.size / sqrt((self.scale[0] + self.scale[1]) / 2)


class Balance(BaseModel):
    """Weights of the mean global-global and the mean global-local loss term; without local views it plays no part."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    global_: Annotated[float, Field(ge=0, alias="global")]
    local: Annotated[float, Field(ge=0)]


class ViewPlan(BaseModel):
    """How views are sampled. The published plans are ``recipes/views/sslight.yaml`` and ``baseline.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    global_: Annotated[Crops, Field(alias="global")]
    local: Crops
    # "pairs" weighs every pair of views alike, whatever their number: the plain mean that multi-crop methods take.
    balance: Balance | Literal["pairs"]
    aspect: tuple[Positive, Positive] = (3 / 4, 4 / 3)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.global_.count < 2:
            raise ValueError("global.count must be at least 2: every global view is compared with another one")
        if self.aspect[0] > self.aspect[1]:
            raise ValueError(f"aspect must ascend, got [{self.aspect[0]:g}, {self.aspect[1]:g}]")
        if sum(self.weights) == 0:
            raise ValueError("balance.global and balance.local are both 0: no loss would be left")
        return self

    @property
    def weights(self) -> tuple[float, float]:
        """Weights of the mean global-global and of the mean global-local loss term."""
        if self.local.count == 0:
            return 1.0, 0.0
        if isinstance(self.balance, Balance):
            return self.balance.global_, self.balance.local
        # Each of G global views is compared with the G - 1 others and with all L local ones.
        others = self.global_.count - 1
        total = others + self.local.count
        return others / total, self.local.count / total

    @property
    def pixel_scale_ratio(self) -> float:
        """Pixel scale of local over global views: 1 when both show things at the same size."""
        return self.local.pixel_scale / self.global_.pixel_scale

    @property
    def pixels(self) -> int:
        """Pixels drawn for one image over all views."""
        return self.global_.count * self.global_.size**2 + self.local.count * self.local.size**2

    def describe(self) -> str:
        """One line for people: counts, sizes, scales, weights and the pixel-scale ratio."""
        g, l, (w_global, w_local) = self.global_, self.local, self.weights
        text = f"{g.count} global views of {g.size} px (area {g.scale[0]:g}-{g.scale[1]:g})"
        if l.count == 0:
            return f"{text}, no local views"
        return (
            f"{text}, {l.count} local view{'s' if l.count > 1 else ''} of {l.size} px "
            f"(area {l.scale[0]:g}-{l.scale[1]:g}), loss weights {w_global:.3g} / {w_local:.3g}, "
            f"pixel-scale ratio {self.pixel_scale_ratio:.2f}"
        )


def resize_plan(plan: dict[str, Any], global_size: int) -> dict[str, Any]:
    """Draw a plan, given as its recipe keys, at another global size; local views shrink or grow alike.

    The ratio of the sizes is kept, and with it the pixel-scale ratio, but for rounding to whole pixels.
    """
    ratio = global_size / plan["global"]["size"]
    local_size = max(1, round(plan["local"]["size"] * ratio))
    return {**plan, "global": {**plan["global"], "size": global_size}, "local": {**plan["local"], "size": local_size}}
