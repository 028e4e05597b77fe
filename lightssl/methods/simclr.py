"""SimCLR: contrastive learning within the batch (Chen et al. 2020, arXiv 2002.05709)."""

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from lightssl.backbones.base import Backbone
from lightssl.chains import Chain
from lightssl.errors import ConfigError
from lightssl.heads import L2Normalised, mlp
from lightssl.losses.contrastive import nt_xent
from lightssl.methods.base import Branch, Method
from lightssl.types import Clock, Positive, PositiveInt, StepOutput

_PROJECTOR = Chain("projector", layers=6)  # NASiam, arXiv 2302.00059


class SimCLR(Method):
    """Every view finds another global view of its image among the global views of the batch.

    Published with two global views; local views, if a plan has them, are anchors but never candidates.

    Args:
        backbone: Network to train.
        weights: Of the mean global-global and the mean global-local loss term.
        hidden: Width of the projector's hidden layer, or layers.
        bottleneck: Width of the embeddings, which are L2-normalised.
        temperature: Of the softmax.
        projector: Operations of a chain that is the projector.
    """

    def __init__(
        self,
        backbone: Backbone,
        weights: tuple[float, float],
        *,
        hidden: PositiveInt = 2048,
        bottleneck: PositiveInt = 128,
        temperature: Positive = 0.5,
        projector: Annotated[str, _PROJECTOR] | None = None,
    ) -> None:
        super().__init__()
        features = backbone.feature_width
        if projector is None:
            head = mlp((features, hidden, bottleneck), final_norm=True)
        else:
            head = _PROJECTOR.build(projector, features, hidden, bottleneck)
        self.network = Branch(backbone, L2Normalised(head))
        self.weights = weights
        self.temperature = temperature

    @property
    def branch(self) -> Branch:
        """Backbone and projector."""
        return self.network

    def check(self, clock: Clock) -> None:
        """Refuse a batch without negatives."""
        if clock.batch_size < 2:
            raise ConfigError("SimCLR compares the images of a batch: it needs two.", "Raise train.batch_size.")

    def step(self, views: Sequence[Tensor], clock: Clock) -> StepOutput:
        """Compute the loss of one batch: see :meth:`Method.step`."""
        features, embeddings = self.network(views)  # [V, B, D], [V, B, bottleneck]
        loss = nt_xent(embeddings, global_views=len(views[0]), temperature=self.temperature, weights=self.weights)
        return StepOutput(loss=loss, features=features[0].detach())
