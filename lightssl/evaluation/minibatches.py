"""What classifiers have in common that are trained on frozen features step by step."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Standardised(NamedTuple):
    """Shifts and scales features as those that it was made of need it, to mean 0 and standard deviation 1."""

    mean: Tensor  # [D]
    scale: Tensor  # [D], 0 for a dimension that never changes

    @classmethod
    def of(cls, features: Tensor) -> "Standardised":
        """Measure features, float32 ``[N, D]``."""
        std, mean = torch.std_mean(features, dim=0, correction=0)
        return cls(mean, torch.where(std > 0, 1 / std, 0.0))

    def __call__(self, features: Tensor) -> Tensor:
        """Apply to features, float32 ``[N, D]``."""
        return (features - self.mean) * self.scale


def minibatches(count: int, batch_size: int, epochs: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the rows of each step, int64 ``[B]``: every epoch is a new order, and its last batch may be smaller."""
    for _ in range(epochs):
        yield from torch.randperm(count, generator=generator).split(batch_size)
