"""Which of some checkpoints each measure would take, and how well measures agree over them."""

from collections.abc import Mapping, Sequence
from math import inf, isnan
from typing import Any

import scipy

# What is better of the measures without labels. All others are accuracies.
LABEL_FREE_MEASURES = {"rank": "higher", "alpha": "near 1", "alignment": "lower", "uniformity": "lower"}

Measures = dict[str, list[float | None]]


def by_checkpoint(written: Mapping[str, Mapping[str, Any]]) -> tuple[list[int], Measures]:
    """Sort results of tasks by checkpoint.

    Args:
        written: Of each task ``results``, one for every checkpoint, in the same order.

    Returns:
        The steps after which each was kept, and of every measure its values: a task with labels goes by its own name.
    """
    steps: list[int] = []
    measures: Measures = {}
    for task, result in written.items():
        rows = result["results"]
        steps = [row["step"] for row in rows]
        if all("top1" in row for row in rows):
            measures[task] = [row["top1"] for row in rows]
        else:
            measures |= {name: [row[name] for row in rows] for name in LABEL_FREE_MEASURES}
    return steps, measures


def goodness(measure: str, values: Sequence[float | None]) -> list[float]:
    """Return numbers that are higher where a measure says that features are better; minus infinity for None."""
    better = LABEL_FREE_MEASURES.get(measure, "higher")
    return [
        -inf if value is None else value if better == "higher" else -value if better == "lower" else -abs(value - 1)
        for value in values
    ]


def choice(measure: str, values: Sequence[float | None]) -> int:
    """Return the place of the checkpoint that a measure would take, the later one of equals."""
    good = goodness(measure, values)
    return max(range(len(good)), key=lambda place: (good[place], place))


def agreement(measures: Mapping[str, Sequence[float | None]], reference: str) -> dict[str, float | None]:
    """Return Kendall's tau-b of each measure with one of them, over the same checkpoints.

    Args:
        measures: Values of each checkpoint, by the name of the measure.
        reference: One of the names.

    Returns:
        From -1, the opposite order, to 1, the same, for every other measure; None where one of the two does not change.
    """
    true = goodness(reference, measures[reference])
    taus = {
        name: float(scipy.stats.kendalltau(goodness(name, values), true).statistic)
        for name, values in measures.items()
        if name != reference
    }
    return {name: None if isnan(tau) else tau for name, tau in taus.items()}


def sentences(steps: Sequence[int], measures: Mapping[str, Sequence[float | None]]) -> list[str]:
    """Say which checkpoint each measure takes and, where there are labels, what that costs and how well they agree."""
    named = [name for name in measures if name not in LABEL_FREE_MEASURES]
    taken = {name: choice(name, values) for name, values in measures.items()}
    if not named:
        return [f"{name} takes the one after {steps[place]:,} steps." for name, place in taken.items()]
    reference, said = named[0], []
    top1 = [value or 0.0 for value in measures[reference]]
    best = max(top1)
    said.append(f"{reference} takes the one after {steps[taken[reference]]:,} steps, with {best:.1f} %.")
    for name, tau in agreement(measures, reference).items():
        lost = best - top1[taken[name]]
        agrees = "does not change" if tau is None else f"Kendall's tau with {reference} {tau:.2f}"
        said.append(f"{name} takes the one after {steps[taken[name]]:,} steps, {lost:.1f} points below; {agrees}.")
    return said
