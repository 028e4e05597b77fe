"""What a sweep says: the effect of each axis, and how far chance alone moves a score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, variance

from lightssl.search.points import Measured
from lightssl.search.sweep import Value, ordered


@dataclass(frozen=True)
class Effect:
    """The score at one value of an axis."""

    value: Value
    mean: float  # over seeds, of the mean over points
    low: float  # the lowest and the highest of the seeds
    high: float
    points: int  # that have this value


def effect_of(axis: str, measured: Sequence[Measured], own: Mapping[str, Value | None], *, alone: bool) -> list[Effect]:
    """Return the scores over the values of an axis, in their order.

    Args:
        axis: The axis.
        measured: All points; those that were given up or failed are left out.
        own: Values of the recipe's own plan.
        alone: Take only points that change nothing else, as a factor design has them. Otherwise all, which means over
            whatever values the other axes have.
    """
    scores: dict[Value, list[list[float]]] = {}
    for one in measured:
        changes = dict(one.point.changes)
        value = changes.get(axis, own[axis])
        if one.state == "complete" and value is not None and not (alone and changes.keys() - {axis}):
            scores.setdefault(value, []).append([result["score"] for result in one.results])
    effects = []
    for value in ordered(list(scores)):
        by_seed = [mean(of_seed) for of_seed in zip(*scores[value], strict=True)]
        effects.append(Effect(value, mean(by_seed), min(by_seed), max(by_seed), len(scores[value])))
    return effects


def seed_spread(measured: Sequence[Measured]) -> float | None:
    """Return the standard deviation of a score over seeds, pooled over points; None with a single seed."""
    variances = [
        variance([result["score"] for result in one.results])
        for one in measured
        if one.state == "complete" and len(one.results) > 1
    ]
    return sqrt(mean(variances)) if variances else None
