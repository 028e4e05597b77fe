"""Exemplar: which crops are of one image? (Dosovitskiy et al. 2014, arXiv 1406.6909)."""

from collections.abc import Sequence

from torch import Tensor, nn

from lightssl.backbones.base import Backbone
from lightssl.errors import ConfigError
from lightssl.heads import L2Normalised
from lightssl.losses.triplet import semi_hard_triplets
from lightssl.methods.base import Branch, Method
from lightssl.types import Clock, Positive, PositiveInt, StepOutput


class Exemplar(Method):
    """Crops of one image are to be closer to each other than to those of others: by semi-hard triplets.

    That is its form in Kolesnikov et al. 2019 (arXiv 1901.09005), with eight crops of an image. Embeddings have unit
    length.

    Args:
        backbone: Network to train.
        weights: Of global and local loss terms, which this task does not tell apart.
        width: Of the embeddings.
        margin: By which crops of other images should be farther away.
    """

    def __init__(
        self, backbone: Backbone, weights: tuple[float, float], *, width: PositiveInt = 1000, margin: Positive = 0.5
    ) -> None:
        super().__init__()
        head = nn.Sequential(nn.Linear(backbone.feature_width, width))
        self.network = Branch(backbone, L2Normalised(head))
        self.margin = margin

    @property
    def branch(self) -> Branch:
        """Backbone and embedding."""
        return self.network

    def check(self, clock: Clock) -> None:
        """Refuse a batch without negatives."""
        if clock.batch_size < 2:
            raise ConfigError("Exemplar compares the images of a batch: it needs two.", "Raise train.batch_size.")

    def step(self, views: Sequence[Tensor], clock: Clock) -> StepOutput:
        """Compute the loss of one batch: see :meth:`Method.step`."""
        features, embeddings = self.network(views)  # [V, B, D], [V, B, width]
        loss = semi_hard_triplets(embeddings, margin=self.margin)
        return StepOutput(loss=loss, features=features[0].detach())
