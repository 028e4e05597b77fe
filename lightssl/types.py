"""What the parts of lightssl hand to each other. Shapes: B images, V views, D feature width."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, NamedTuple

from annotated_types import Ge, Gt, Interval

from lightssl.units import Duration

if TYPE_CHECKING:
    from torch import Tensor

# Ranges of recipe values. They annotate keyword arguments; the recipe schema checks them.
PositiveInt = Annotated[int, Gt(0)]
NonNegativeInt = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Interval(ge=0, le=1)]


class BadImage(NamedTuple):
    """An image that could not be used, and why."""

    index: int  # type: ignore[assignment] # position in the source
    name: str  # path or member name
    reason: str


@dataclass
class Batch:
    """One step's images, as the loader yields them."""

    views: "list[Tensor]"  # one uint8 [V, B, H, W, 3] a resolution: the global views first, then the local ones
    indices: "Tensor"  # int64 [B], position of each image in its source
    bad: list[BadImage] = field(default_factory=list)  # met while this batch was made, replaced by other images
    # What is left for the device to do with each of ``views``, float32 [V, B, 16] on the host; empty if nothing is.
    left_to_do: "list[Tensor]" = field(default_factory=list)

    def pin_memory(self) -> "Batch":
        """Move the tensors to page-locked memory; the DataLoader calls this."""
        views = [group.pin_memory() for group in self.views]
        return replace(self, views=views, indices=self.indices.pin_memory())


class Clock(NamedTuple):
    """Where training stands; schedules are functions of it."""

    step: int  # steps done before this one: 0 at the first
    total_steps: int
    steps_per_epoch: int
    batch_size: int  # images in one step over all processes

    @property
    def epoch(self) -> int:
        """Passes over the data completed before this step."""
        return self.step // self.steps_per_epoch

    @property
    def fraction(self) -> float:
        """Share of training done before this step: 0 at the first."""
        return self.step / self.total_steps

    def steps(self, duration: Duration) -> int:
        """Convert a length of training to steps."""
        return duration.steps(
            batch_size=self.batch_size, steps_per_epoch=self.steps_per_epoch, total_steps=self.total_steps
        )


@dataclass
class StepOutput:
    """What a method computes for one batch."""

    loss: "Tensor"  # scalar, with gradient
    features: "Tensor"  # [B, D] backbone features of the first view that the trained encoder saw, detached
    logs: "dict[str, Tensor | float]" = field(default_factory=dict)
    probe_loss: "Tensor | None" = None  # scalar, of a linear probe that is trained beside the method
