"""Learning rate and weight decay, step by step."""

from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from lightssl.schedules import cosine, warmup_cosine, warmup_steps_down
from lightssl.types import Clock, NonNegative, Positive, Share
from lightssl.units import Duration


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Linear warm-up and cosine decay of the learning rate, cosine of the weight decay, both per iteration.

    Attributes:
        base_rate: Peak learning rate for a batch of 256 images; the peak is ``base_rate * batch size / 256``.
        end_rate: At the end of training. Not scaled with the batch.
        warmup: Length of the warm-up.
        warmup_from: Learning rate at the first step. Not scaled with the batch.
        weight_decay: At the start.
        weight_decay_end: At the end; the same as at the start if not given.
        milestones: Shares of the training at which the learning rate falls to a tenth, in place of the cosine.
    """

    base_rate: Positive
    end_rate: NonNegative = 0.0
    warmup: Duration = Duration(0, "steps")
    warmup_from: NonNegative = 0.0
    weight_decay: NonNegative = 0.0
    weight_decay_end: NonNegative | None = None
    milestones: tuple[Share, ...] | None = None

    def learning_rate(self, clock: Clock) -> float:
        """Learning rate of this step."""
        shared: dict[str, Any] = {
            "total_steps": clock.total_steps,
            "warmup_steps": clock.steps(self.warmup),
            "warmup_from": self.warmup_from,
            "peak": self.base_rate * clock.batch_size / 256,
        }
        if self.milestones:
            return warmup_steps_down(clock.step, milestones=self.milestones, **shared)
        return warmup_cosine(clock.step, end=self.end_rate, **shared)

    def decay(self, clock: Clock) -> float:
        """Weight decay of this step, for the parameters that have one."""
        end = self.weight_decay if self.weight_decay_end is None else self.weight_decay_end
        return cosine(self.weight_decay, end, clock.fraction)

    def apply(self, optimizer: Optimizer, clock: Clock) -> tuple[float, float]:
        """Set both on an optimiser made from :func:`lightssl.optim.parameter_groups`, and return them."""
        rate, decay = self.learning_rate(clock), self.decay(clock)
        for group in optimizer.param_groups:
            group["lr"] = rate
            group["weight_decay"] = decay if group["decay"] else 0.0
        return rate, decay
