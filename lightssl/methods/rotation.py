"""Rotation: by which quarter turn is an image rotated? (Gidaris et al. 2018, arXiv 1803.07728)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightssl.backbones.base import Backbone
from lightssl.methods.base import Branch, Method
from lightssl.types import Clock, StepOutput

TURNS = 4  # quarters of a turn, to the left


class Rotation(Method):
    """Every view is shown upright and rotated by one, two and three quarters of a turn, all in one batch.

    Views are square. A plan with one global view and no local one is the published task; more views are rotated alike.

    Args:
        backbone: Network to train.
        weights: Of global and local loss terms, which this task does not tell apart.
    """

    least_global_views = 1

    def __init__(self, backbone: Backbone, weights: tuple[float, float]) -> None:
        super().__init__()
        self.network = Branch(backbone, nn.Sequential(nn.Linear(backbone.feature_width, TURNS)))

    @property
    def branch(self) -> Branch:
        """Backbone and classifier."""
        return self.network

    def step(self, views: Sequence[Tensor], clock: Clock) -> StepOutput:
        """Compute the loss of one batch: see :meth:`Method.step`."""
        features, logits = self.network([rotations(group) for group in views])  # [4 * V, B, D], [4 * V, B, 4]
        turns = torch.arange(TURNS, device=logits.device)
        # Each resolution has its upright views first, then those of each turn.
        labels = torch.cat([turns.repeat_interleave(len(group)) for group in views])
        targets = labels[:, None].expand(logits.shape[:2])
        loss = cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        accuracy = 100.0 * (logits.detach().argmax(dim=-1) == targets).float().mean()
        return StepOutput(loss=loss, features=features[0].detach(), logs={"pretext_top1": accuracy})


def rotations(views: Tensor) -> Tensor:
    """Rotate square views [V, B, 3, S, S] by 0 to 3 quarters of a turn to the left: [4 * V, B, 3, S, S]."""
    return torch.cat([torch.rot90(views, turn, dims=(-2, -1)) for turn in range(TURNS)])
