"""What a strategy is given, and what it gives back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lightssl.backbones.topology import TopologyBackbone
from lightssl.methods.base import Method
from lightssl.progress import Narrator
from lightssl.search.budget import Limits
from lightssl.search.cost import CostTable
from lightssl.search.spaces import Candidate
from lightssl.train.architecture import ArchitectureSteps
from lightssl.train.loop import Passes
from lightssl.types import Batch, Clock
from lightssl.units import Duration


class Stopped(Exception):  # noqa: N818 (nothing went wrong)
    """The user stopped the search. What is done is kept, so that it can go on."""


@dataclass(frozen=True)
class Scored:
    """A candidate that was looked at."""

    candidate: Candidate
    score: float  # what the strategy compares by: higher is better
    scores: Mapping[str, float]  # everything that was found of it, by name
    proposed: bool = True  # False for the stock networks, which are there to be compared with


MakeArchitecture = Callable[[Clock, Callable[[int], Iterable[Batch]]], ArchitectureSteps]
"""From the clock of the first step, and the batches of the architecture, to what is trained in turns with weights."""


class Lab(Protocol):
    """What a recipe and its images are to a strategy. Held-out images are drawn by the seed; training leaves them out.

    Images and views are normalised and on the device. They can be gone through more than once, are in the same order
    each time, and may be fewer than asked for. No batch is of a single image.
    """

    device: torch.device

    def train(
        self, duration: Duration, passes: Passes, architecture: MakeArchitecture | None = None
    ) -> tuple[Method, Clock]:
        """Train the recipe's method around a supernet, or go on with it, or load it; with the clock of its last step.

        Args:
            duration: How long.
            passes: Of each step.
            architecture: Makes what is trained in turns with the weights, which then see one half of the images, and
                the architecture the other. Its parameters end as they were trained, also where they are loaded.

        Raises:
            Stopped: The user stopped it.
        """

    def build(self, candidate: Candidate) -> TopologyBackbone:
        """Build a candidate as it will be deployed, with random weights that depend on the seed alone."""

    def images(self, count: int, *, held_out: bool, size: int | None = None) -> Iterable[Tensor]:
        """Return images as evaluations show them, float [B, 3, S, S]; S is that of the recipe if it is not given."""

    def labels(self, count: int, *, held_out: bool) -> Tensor:
        """Return the labels of the same images, int64 [N], on the CPU.

        Raises:
            DataError: There are none.
        """

    def views(self, count: int) -> Iterable[list[Tensor]]:
        """Return batches of views of held-out images, as methods take them: [V, B, 3, H, W] a resolution."""


@dataclass(frozen=True)
class Task:
    """What is searched for, and what a strategy may use to find it.

    Args:
        table: Prices of the space that is searched.
        limits: The budget.
        stock: The published networks of the space, by name.
        seed: Decides everything that is drawn.
        lab: What the recipe and its images offer.
        storage: URL of the database that candidates are kept in.
        name: Of this search in it.
        question: What is asked, which a search in the storage must have been asked as well.
        worker: Who scores candidates here: of several at once, each needs a name of its own, which it keeps.
        narrator: Told how it goes.
    """

    table: CostTable
    limits: Limits
    stock: Mapping[str, Candidate]
    seed: int
    lab: Lab
    storage: str
    name: str
    question: str
    worker: str
    narrator: Narrator


def best(found: Sequence[Scored]) -> Scored:
    """Return the candidate of the highest score among those that were proposed."""
    return max((scored for scored in found if scored.proposed), key=lambda scored: scored.score)
