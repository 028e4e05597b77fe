"""The sandwich rule (Yu and Huang 2019, arXiv 1903.05134): how the candidates of a supernet take turns in training."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from lightssl.methods.base import Method
from lightssl.search.spaces import Space
from lightssl.search.supernet import activate
from lightssl.train.loop import Passes
from lightssl.types import Clock


def sandwich(space: Space, *, middle: int, seed: int) -> Passes:
    """Make every step a pass of the smallest candidate, of some random ones, and last of the largest.

    All see the same views, and student and teacher are the same candidate. Queues are filled by the largest.

    Args:
        space: Of the method's supernets.
        middle: Number of random candidates, drawn anew from the whole space at each step.
        seed: With the step, decides which.
    """

    def passes(method: Method, clock: Clock) -> Sequence[Callable[[], None]]:
        drawn = space.sample(np.random.default_rng((seed, clock.step)), middle)
        candidates = [space.smallest, *map(space.decode, drawn), space.largest]
        return [partial(activate, method, candidate) for candidate in candidates]

    return passes
