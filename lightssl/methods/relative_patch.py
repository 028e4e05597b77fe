"""Relative patch location: where does a patch lie, from the middle? (Doersch et al. 2015, arXiv 1505.05192)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightssl.backbones.base import Backbone
from lightssl.methods.patches import CELLS, PatchMethod
from lightssl.types import Clock, PositiveInt, Share, StepOutput

MIDDLE = CELLS // 2
AROUND = [cell for cell in range(CELLS) if cell != MIDDLE]  # row by row


class RelativePatch(PatchMethod):
    """All eight patches around the middle one are told apart, each beside the middle one: see :class:`PatchMethod`.

    Args:
        backbone: Network to train.
        weights: Of global and local loss terms; local views play no part.
        width: Of the embedding of a patch.
        hidden: Width of the layer that sees the embeddings side by side.
        dropout: Share of that layer which is left out.
        patch: Pixels of the side of a patch.
    """

    def __init__(
        self,
        backbone: Backbone,
        weights: tuple[float, float],
        *,
        width: PositiveInt = 1000,
        hidden: PositiveInt = 4096,
        dropout: Share = 0.5,
        patch: PositiveInt = 64,
    ) -> None:
        super().__init__(
            backbone, width=width, hidden=hidden, dropout=dropout, patch=patch, inputs=2, classes=len(AROUND)
        )

    def step(self, views: Sequence[Tensor], clock: Clock) -> StepOutput:
        """Compute the loss of one batch: see :meth:`Method.step`."""
        features, embeddings = self.embed(views)
        around = embeddings[AROUND]  # [8, B, width]
        pairs = torch.cat([around, embeddings[MIDDLE].expand_as(around)], dim=-1)
        logits = self.classifier(pairs.flatten(0, 1)).float()
        targets = torch.arange(len(AROUND), device=logits.device).repeat_interleave(around.shape[1])
        accuracy = 100.0 * (logits.detach().argmax(dim=1) == targets).float().mean()
        loss = cross_entropy(logits, targets)
        return StepOutput(loss=loss, features=features, logs={"pretext_top1": accuracy})
