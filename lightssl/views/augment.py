"""Which colour and blur a view is given: flip, colour jitter, grey, Gaussian blur, solarize, as published.

Each view's probabilities follow its role: the first global view, the other global views, the local views. What is drawn
here is applied in :mod:`lightssl.views.pixels`. The two are apart so that reading a recipe imports no image library.
"""

from typing import Annotated, Literal, NamedTuple, Self

from annotated_types import Interval
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lightssl.types import NonNegative, Positive, Share
from lightssl.views.chance import Numbers, between

Role = Literal["global_1", "global_2", "local"]


class ByRole(BaseModel):
    """A probability for each role of a view."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    global_1: Share  # the first global view
    global_2: Share  # every other global view
    local: Share


class Jitter(BaseModel):
    """Colour jitter as torchvision's ColorJitter: factors from U(1 - x, 1 + x), the hue moved by U(-hue, hue) turns.

    torchvision applies the four in random order. Here all are linear in the colour, and the order hardly matters: see
    :func:`lightssl.views.pixels.colour_map`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    probability: Share
    brightness: NonNegative
    contrast: NonNegative
    saturation: NonNegative
    hue: Annotated[float, Interval(ge=0, le=0.5)]


class Blur(BaseModel):
    """Gaussian blur with a standard deviation from U(sigma), in pixels of the view."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sigma: tuple[Positive, Positive]
    probability: ByRole

    @model_validator(mode="after")
    def _sigma_is_ascending(self) -> Self:
        if self.sigma[0] > self.sigma[1]:
            raise ValueError(f"sigma must ascend, got [{self.sigma[0]:g}, {self.sigma[1]:g}]")
        return self


class Solarize(BaseModel):
    """Inversion of the values from ``threshold`` up."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: Annotated[int, Field(ge=0, le=255)]
    probability: ByRole


class Drawn(NamedTuple):
    """What was drawn for one view, in the order in which it is applied. The defaults leave it as it is."""

    flip: bool = False
    hue: float = 0.0  # turns
    saturation: float = 1.0  # share of each colour; the rest is its grey
    contrast: float = 1.0  # share of each colour; the rest is the grey of the mean colour
    brightness: float = 1.0  # factor
    grey: bool = False
    blur: float | None = None  # sigma in pixels
    solarize: int | None = None  # threshold


class Augmentations(BaseModel):
    """The distribution that a view's colour and blur are drawn from: ``recipes/augment/*.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flip: Share
    jitter: Jitter
    grey: Share
    blur: Blur
    solarize: Solarize

    def sample(self, numbers: Numbers, role: Role) -> Drawn:
        """Draw the augmentations of one view in this role."""
        jitter = self.jitter
        drawn = Drawn(
            flip=next(numbers) < self.flip,
            grey=next(numbers) < self.grey,
            blur=between(numbers, *self.blur.sigma) if next(numbers) < getattr(self.blur.probability, role) else None,
            solarize=self.solarize.threshold if next(numbers) < getattr(self.solarize.probability, role) else None,
        )
        if next(numbers) >= jitter.probability:
            return drawn
        return drawn._replace(
            hue=between(numbers, -jitter.hue, jitter.hue),
            saturation=_factor(numbers, jitter.saturation),
            contrast=_factor(numbers, jitter.contrast),
            brightness=_factor(numbers, jitter.brightness),
        )


def _factor(numbers: Numbers, spread: float) -> float:
    """Draw a factor around 1, never below 0."""
    return between(numbers, max(0.0, 1 - spread), 1 + spread)
