"""The random numbers that views are made from."""

from collections.abc import Iterator

import numpy as np

Numbers = Iterator[float]  # independent, from U(0, 1)

_A_STEP = 1  # numbers at hand for a step: how many local views there are
_A_VIEW = 64  # numbers at hand for one view: flip, colour and blur take up to 10, a crop 40


def view_numbers(seed: int, epoch: int, index: int, views: int) -> list[Numbers]:
    """Return the numbers of each view of an image.

    Those of view v depend on (seed, epoch, index, v) alone: how many views there are, and how many numbers a view
    takes, changes nothing for the others.

    Args:
        seed: The run's seed, 0 or more.
        epoch: Passes over the data before this one.
        index: Position of the image in its source.
        views: How many views.
    """
    rows = np.random.default_rng((seed, epoch, index)).random((views, _A_VIEW)).tolist()
    return [iter(row) for row in rows]


def step_numbers(seed: int, step: int) -> Numbers:
    """Return the numbers of what is drawn for all images of a step together; they depend on (seed, step) alone.

    Args:
        seed: The run's seed, 0 or more.
        step: Steps before this one.
    """
    return iter(np.random.default_rng((seed, step)).random(_A_STEP).tolist())


def between(numbers: Numbers, low: float, high: float) -> float:
    """Take one number from U(low, high)."""
    return low + (high - low) * next(numbers)


def below(numbers: Numbers, bound: int) -> int:
    """Take one whole number of 0 to ``bound - 1``, each as likely."""
    return int(next(numbers) * bound)
