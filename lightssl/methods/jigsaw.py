"""Jigsaw: in which order were the patches of an image laid? (Noroozi and Favaro 2016, arXiv 1603.09246)."""

from collections.abc import Sequence
from functools import cache
from itertools import permutations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightssl.backbones.base import Backbone
from lightssl.errors import ConfigError
from lightssl.methods.patches import CELLS, PatchMethod
from lightssl.types import Clock, PositiveInt, Share, StepOutput


class Jigsaw(PatchMethod):
    """The patches of an image are laid in an order out of a fixed set, which is to be named: see :class:`PatchMethod`.

    Args:
        backbone: Network to train.
        weights: Of global and local loss terms; local views play no part.
        orders: How many orders the set has: see :func:`far_orders`.
        shown: How many of them, drawn at random, the images of a batch are laid in, each in all of them.
        width: Of the embedding of a patch.
        hidden: Width of the layer that sees the embeddings side by side.
        dropout: Share of that layer which is left out.
        patch: Pixels of the side of a patch.
    """

    orders: Tensor

    def __init__(
        self,
        backbone: Backbone,
        weights: tuple[float, float],
        *,
        orders: PositiveInt = 100,
        shown: PositiveInt = 8,
        width: PositiveInt = 1000,
        hidden: PositiveInt = 4096,
        dropout: Share = 0.5,
        patch: PositiveInt = 64,
    ) -> None:
        super().__init__(
            backbone, width=width, hidden=hidden, dropout=dropout, patch=patch, inputs=CELLS, classes=orders
        )
        self.register_buffer("orders", torch.tensor(far_orders(orders)))  # which weights cannot do without
        self.shown = min(shown, orders)

    def step(self, views: Sequence[Tensor], clock: Clock) -> StepOutput:
        """Compute the loss of one batch: see :meth:`Method.step`."""
        features, embeddings = self.embed(views)
        chosen = torch.randperm(len(self.orders), device=embeddings.device)[: self.shown]
        laid = embeddings[self.orders[chosen]]  # [shown, 9, B, width]
        logits = self.classifier(laid.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)).float()
        targets = chosen.repeat_interleave(laid.shape[2])
        accuracy = 100.0 * (logits.detach().argmax(dim=1) == targets).float().mean()
        loss = cross_entropy(logits, targets)
        return StepOutput(loss=loss, features=features, logs={"pretext_top1": accuracy})


@cache
def far_orders(count: int) -> np.ndarray:
    """Return so many orders of nine things that differ from each other in as many places as they can.

    The rule is greedy: to those chosen, the first of which leaves all in place, comes the one farthest from the nearest
    of them, by Hamming distance; of several, the one farthest from all together; of those, the first by dictionary. It
    draws nothing, so every training has the same ones.

    Returns:
        int64 [count, 9].

    Raises:
        ConfigError: There are not so many.
    """
    every = np.array(list(permutations(range(CELLS))), np.int8)
    if count > len(every):
        raise ConfigError(f"Nine patches have {len(every):,} orders, not {count:,}.", "Lower method.orders.")
    chosen = [0]
    nearest, total = np.full(len(every), CELLS + 1, np.int64), np.zeros(len(every), np.int64)
    while len(chosen) < count:
        distance = (every != every[chosen[-1]]).sum(axis=1)
        nearest, total = np.minimum(nearest, distance), total + distance
        nearest[chosen] = -1
        chosen.append(int(np.argmax(nearest * (CELLS * count + 1) + total)))
    return every[chosen].astype(np.int64)
