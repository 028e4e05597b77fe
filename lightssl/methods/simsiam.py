"""SimSiam: siamese networks without negatives or momentum (Chen and He 2020, arXiv 2011.10566)."""

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor, nn

from lightssl.backbones.base import Backbone
from lightssl.chains import Chain
from lightssl.heads import mlp
from lightssl.losses.simsiam import negative_cosine
from lightssl.methods.base import Branch, Method
from lightssl.types import Clock, PositiveInt, StepOutput

_PROJECTOR, _PREDICTOR = Chain("projector", layers=6), Chain("predictor", layers=4)  # NASiam, arXiv 2302.00059


class SimSiam(Method):
    """A predictor maps each view to the projection of another global view; no gradient flows through that one.

    Published with two global views; local views, if a plan has them, are predicted from but never predicted.

    Args:
        backbone: Network to train.
        weights: Of the mean global-global and the mean global-local loss term.
        width: Of the projector's layers and of its output.
        projector_layers: Linear layers of the projector, unless it is a chain.
        predictor_hidden: Width of the predictor's hidden layer, or layers.
        projector: Operations of a chain as wide as the backbone's features, after which one Linear layer is left of
            the projector.
        predictor: Operations of a chain that is the predictor.
    """

    def __init__(
        self,
        backbone: Backbone,
        weights: tuple[float, float],
        *,
        width: PositiveInt = 2048,
        projector_layers: PositiveInt = 3,
        predictor_hidden: PositiveInt = 512,
        projector: Annotated[str, _PROJECTOR] | None = None,
        predictor: Annotated[str, _PREDICTOR] | None = None,
    ) -> None:
        super().__init__()
        features = backbone.feature_width
        if projector is None:
            head = mlp((features, *[width] * projector_layers), final_norm=True)
        else:
            chain = _PROJECTOR.build(projector, features, features, features)
            head = nn.Sequential(chain, mlp((features, width), final_norm=True))
        self.network = Branch(backbone, head)
        if predictor is None:
            self.predictor = mlp((width, predictor_hidden, width))
        else:
            self.predictor = _PREDICTOR.build(predictor, width, predictor_hidden, width)
        self.weights = weights

    @property
    def branch(self) -> Branch:
        """Backbone and projector."""
        return self.network

    def step(self, views: Sequence[Tensor], clock: Clock) -> StepOutput:
        """Compute the loss of one batch: see :meth:`Method.step`."""
        features, projections = self.network(views)  # [V, B, D], [V, B, width]
        predictions = self.predictor(projections.flatten(0, 1)).unflatten(0, projections.shape[:2])
        loss = negative_cosine(predictions, projections[: len(views[0])], weights=self.weights)
        return StepOutput(loss=loss, features=features[0].detach())
