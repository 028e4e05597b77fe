"""Values that change over training: cosine decay, linear warm-up, linear ramps. Plain arithmetic, no torch."""

from collections.abc import Sequence
from math import cos, pi


def cosine(start: float, end: float, fraction: float) -> float:
    """Half a cosine from ``start`` (fraction 0) to ``end`` (fraction 1); constant outside of [0, 1]."""
    fraction = min(max(fraction, 0.0), 1.0)
    return end + 0.5 * (start - end) * (1.0 + cos(pi * fraction))


def linear(start: float, end: float, fraction: float) -> float:
    """A straight line from ``start`` (fraction 0) to ``end`` (fraction 1); constant outside of [0, 1]."""
    fraction = min(max(fraction, 0.0), 1.0)
    return start + (end - start) * fraction


def warmup_cosine(
    step: int, *, total_steps: int, warmup_steps: int, warmup_from: float, peak: float, end: float
) -> float:
    """Linear warm-up from ``warmup_from`` to ``peak`` over ``warmup_steps``, then a cosine to ``end`` at the last step.

    The last step (``total_steps - 1``) is one step short of ``end``, as in the published code.
    """
    if step < warmup_steps:
        # The warm-up reaches the peak on its last step: numpy.linspace(from, peak, warmup_steps).
        return linear(warmup_from, peak, step / max(1, warmup_steps - 1))
    return cosine(peak, end, (step - warmup_steps) / max(1, total_steps - warmup_steps))


def warmup_steps_down(
    step: int, *, total_steps: int, warmup_steps: int, warmup_from: float, peak: float, milestones: Sequence[float]
) -> float:
    """Linear warm-up as in :func:`warmup_cosine`, then ``peak``, a tenth of it from each share of all steps on."""
    if step < warmup_steps:
        return linear(warmup_from, peak, step / max(1, warmup_steps - 1))
    return peak * 0.1 ** sum(step >= share * total_steps for share in milestones)
