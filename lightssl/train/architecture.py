"""Architecture parameters, trained in turns with the weights of the network whose architecture they are."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightssl.data.sources import Source, Subset
from lightssl.errors import DataError
from lightssl.methods.base import Method
from lightssl.types import Batch, Clock


def _nothing(method: Method, clock: Clock) -> None:
    return None


def _itself(loss: Tensor) -> Tensor:
    return loss


def _no_figures() -> Mapping[str, float]:
    return {}


@dataclass
class ArchitectureSteps:
    """Updates of architecture parameters on images that the weights do not see.

    That is the first-order alternation of DARTS (Liu et al. 2019, arXiv 1806.09055): before a step of the weights on
    one half of the images, a step of the architecture on the other half, with the same loss.

    Args:
        parameters: What is trained here, in the method or beside it; the optimiser of the weights must leave it out.
        optimizer: Over ``parameters`` alone; its learning rate stays as it is.
        batches: Maps the number of architecture steps done before to the batches from there on, one a step.
        every: Steps of the weights to one of the architecture.
        start: Steps of the weights before the first one of the architecture.
        prepare: Called before each pass, such as to draw gates.
        objective: Maps the method's loss to what is minimised, such as by adding a penalty.
        figures: Returns what is logged of the architecture.
    """

    parameters: Sequence[nn.Parameter]
    optimizer: Optimizer
    batches: Callable[[int], Iterable[Batch]]
    every: int = 1
    start: int = 0
    prepare: Callable[[Method, Clock], None] = _nothing
    objective: Callable[[Tensor], Tensor] = _itself
    figures: Callable[[], Mapping[str, float]] = _no_figures

    def due(self, step: int) -> bool:
        """Tell whether a step of the architecture goes before this step of the weights."""
        return step >= self.start and (step - self.start) % self.every == 0

    def done_before(self, step: int) -> int:
        """Return how many steps of the architecture went before those that belong to this step of the weights."""
        return max(0, -(-(step - self.start) // self.every))

    def state_dict(self) -> dict[str, Any]:
        """Return what it takes to go on from here."""
        return {
            "parameters": [parameter.detach().clone() for parameter in self.parameters],
            "optimizer": self.optimizer.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        for parameter, kept in zip(self.parameters, state["parameters"], strict=True):
            parameter.copy_(kept)
        self.optimizer.load_state_dict(state["optimizer"])


def halves(source: Source, *, seed: int, batch_size: int) -> tuple[Source, Source]:
    """Split images at random: a half for the weights, and one for the architecture.

    Raises:
        DataError: A half does not fill a batch.
    """
    half = len(source) // 2
    if half < batch_size:
        raise DataError(
            f"A search trains the weights on one half of the images and the architecture on the other: a batch of "
            f"{batch_size:,} cannot be filled from {half:,}.",
            f"Use more images, or a smaller batch: --set train.batch_size={max(1, 2 ** (half.bit_length() - 1))}",
        )
    order = np.random.default_rng(seed).permutation(len(source))
    return Subset(source, order[:half], source.name), Subset(source, order[half:], source.name)
