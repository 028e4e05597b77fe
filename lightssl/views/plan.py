"""The view-sampling plan: how many views of an image are drawn, from how much of it, and how large.

SSLight (arXiv 2210.02808) finds that low-compute networks fail in self-supervised learning because the views ask too
much of them, and that three controlled choices repair it. A :class:`ViewPlan` holds just these:

- where the boundary lies between the area that global and local views cover (``scale``),
- how many pixels a local view is drawn with (``size``), so that both kinds show things at about the same pixel scale,
- how many local views there are, and how the two kinds of loss terms are balanced.

Beyond the published plans, views may differ from each other and over time: the first global view may be drawn from
areas of its own, the number of local views be drawn for every step, and boundary and local size move over the training.

A plan says nothing about colour: see :mod:`lightssl.views.augment`.
"""

from math import sqrt
from statistics import mean
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from lightssl.types import Positive, PositiveInt, Share


def _ascending(scale: tuple[float, float]) -> tuple[float, float]:
    low, high = scale
    if not 0 < low <= high:
        raise ValueError(f"must ascend from above 0, got [{low:g}, {high:g}]")
    return scale


_UNSAID = Field(exclude_if=lambda value: value is None)  # a plan that is written out has no word of what it lacks
Scale = Annotated[tuple[Share, Share], AfterValidator(_ascending)]


class Crops(BaseModel):
    """One kind of view: ``count`` crops of ``size`` x ``size`` pixels, each covering a share of the image's area."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: Annotated[int, Field(ge=0)]
    size: PositiveInt
    scale: Scale

    def scale_of(self, view: int) -> tuple[float, float]:
        """Return the share of the image's area that a view of this kind covers, least and most."""
        return self.scale

    @property
    def pixel_scale(self) -> float:
        """Pixels of the view per length of the image's side, ``size / sqrt(mean area share)``."""
        return self.size / sqrt(mean(sum(self.scale_of(view)) / 2 for view in range(max(1, self.count))))


class GlobalCrops(Crops):
    """The views that others are compared with."""

    # Of the first one, where it differs from the others: MoCo-v2 takes it as the key, and no other method as special.
    first_scale: Annotated[Scale | None, _UNSAID] = None

    def scale_of(self, view: int) -> tuple[float, float]:
        """Return the share of the image's area that a view of this kind covers, least and most."""
        return self.scale if view or self.first_scale is None else self.first_scale


class LocalCrops(Crops):
    """The views of parts of an image."""

    # The number is drawn for every step, from this to ``count``.
    min_count: Annotated[PositiveInt | None, _UNSAID] = None

    @property
    def counts(self) -> range:
        """How many there may be in a step, each as likely."""
        return range(self.count if self.min_count is None else self.min_count, self.count + 1)


class Start(BaseModel):
    """What a plan starts training with; from there it moves linearly to what it says otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    boundary: Positive | None = None  # largest share of local, and least of global views
    local_size: PositiveInt | None = None
    until: Annotated[float, Field(gt=0, le=1)] = 1.0  # share of the training after which it does not move any more

    @model_validator(mode="after")
    def _differs(self) -> Self:
        if self.boundary is None and self.local_size is None:
            raise ValueError("start needs a boundary, a local_size, or both")
        return self


class Balance(BaseModel):
    """Weights of the mean global-global and the mean global-local loss term; without local views it plays no part."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    global_: Annotated[float, Field(ge=0, alias="global")]
    local: Annotated[float, Field(ge=0)]


class ViewPlan(BaseModel):
    """How views are sampled. The published plans are ``recipes/views/sslight.yaml`` and ``baseline.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    global_: Annotated[GlobalCrops, Field(alias="global")]
    local: LocalCrops
    # "pairs" weighs every pair of views alike, whatever their number: the plain mean that multi-crop methods take.
    balance: Balance | Literal["pairs"]
    aspect: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    start: Annotated[Start | None, _UNSAID] = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.global_.count < 1:
            raise ValueError("global.count must be at least 1")
        if self.aspect[0] > self.aspect[1]:
            raise ValueError(f"aspect must ascend, got [{self.aspect[0]:g}, {self.aspect[1]:g}]")
        if sum(self.weights) == 0:
            raise ValueError("balance.global and balance.local are both 0: no loss would be left")
        if self.local.min_count is not None:
            if self.local.min_count > self.local.count:
                raise ValueError(f"local.min_count must be at most local.count, which is {self.local.count}")
            if self.balance == "pairs":
                raise ValueError("local.min_count needs a balance with weights: that of pairs changes with the number")
        if self.start is not None:
            low, high, boundary = self.local.scale[0], self.global_.scale[1], self.start.boundary
            if self.local.count == 0:
                raise ValueError("start needs local views: local.count is 0")
            if boundary is not None and not low <= boundary <= high:
                raise ValueError(f"start.boundary must be from {low:g} to {high:g}, between which all views are drawn")
        return self

    @property
    def varies(self) -> bool:
        """Whether steps differ in how views are drawn."""
        return self.start is not None or len(self.local.counts) > 1

    def at(self, fraction: float) -> "ViewPlan":
        """Return the plan of a moment of the training, which moves no more.

        Args:
            fraction: Of the training that is over, 0 to 1.
        """
        if self.start is None:
            return self
        left = max(0.0, 1 - fraction / self.start.until)
        first_boundary, first_size = self.start.boundary, self.start.local_size
        global_, local, low, high = self.global_, self.local, self.global_.scale[0], self.local.scale[1]
        if first_boundary is not None:
            low, high = (left * first_boundary + (1 - left) * last for last in (low, high))
        size = local.size if first_size is None else round(left * first_size + (1 - left) * local.size)
        return self.model_copy(
            update={
                "global_": global_.model_copy(update={"scale": (low, global_.scale[1])}),
                "local": local.model_copy(update={"scale": (local.scale[0], high), "size": size}),
                "start": None,
            }
        )

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

    def describe(self) -> str:
        """One line for people: counts, sizes, scales, weights, the pixel-scale ratio, and what varies."""
        g, l, (w_global, w_local) = self.global_, self.local, self.weights
        first = f", {_range(g.first_scale)} of the first" if g.first_scale is not None else ""
        text = f"{g.count} global view{'s' if g.count > 1 else ''} of {g.size} px (area {_range(g.scale)}{first})"
        if l.count == 0:
            return f"{text}, no local views"
        counts = f"{l.counts[0]} to {l.count}" if len(l.counts) > 1 else f"{l.count}"
        text += (
            f", {counts} local view{'s' if l.count > 1 else ''} of {l.size} px "
            f"(area {_range(l.scale)}), loss weights {w_global:.3g} / {w_local:.3g}, "
            f"pixel-scale ratio {self.pixel_scale_ratio:.2f}"
        )
        if self.start is not None:
            boundary, size = self.start.boundary, self.start.local_size
            text += (
                f"; reached after {100 * self.start.until:.3g} % of the training, from "
                + " and ".join(
                    ([f"a boundary at {boundary:g}"] if boundary is not None else [])
                    + ([f"local views of {size} px"] if size is not None else [])
                )
                + f", ratio {self.at(0).pixel_scale_ratio:.2f}"
            )
        return text


def _range(scale: tuple[float, float]) -> str:
    return f"{scale[0]:g}-{scale[1]:g}"


def resize_plan(plan: dict[str, Any], global_size: int) -> dict[str, Any]:
    """Draw a plan, given as its recipe keys, at another global size; local views shrink or grow alike.

    The ratio of the sizes is kept, and with it the pixel-scale ratio, but for rounding to whole pixels.
    """
    ratio = global_size / plan["global"]["size"]

    def resized(section: dict[str, Any], key: str) -> dict[str, Any]:
        return {**section, key: max(1, round(section[key] * ratio))}

    start = {"start": resized(plan["start"], "local_size")} if "local_size" in plan.get("start", {}) else {}
    global_ = {**plan["global"], "size": global_size}
    return {**plan, "global": global_, "local": resized(plan["local"], "size"), **start}
