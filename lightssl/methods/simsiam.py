"""SimSiam: siamese networks without negatives or momentum (Chen and He 2020, arXiv 2011.10566)."""

from collections.abc import Sequence

from torch import Tensor

from lightssl.backbones.base import Backbone
from lightssl.heads import mlp
from lightssl.losses.simsiam import negative_cosine
from lightssl.methods.base import Branch, Method
from lightssl.types import Clock, PositiveInt, StepOutput


class SimSiam(Method):
    """A predictor maps each view to the projection of another global view; no gradient flows through that one.

    Published with two global views; local views, if a plan has them, are predicted from but never predicted.

    Args:
        backbone: Network to train.
        weights: Of the mean global-global and the mean global-local loss term.
        width: Of the projector's layers and of its output.
        projector_layers: Linear layers of the projector.
        predictor_hidden: Width of the predictor's hidden layer.
    """

    def __init__(
        self,
        backbone: Backbone,
        weights: tuple[float, float],
        *,
        width: PositiveInt = 2048,
        projector_layers: PositiveInt = 3,
        predictor_hidden: PositiveInt = 512,
    ) -> None:
        super().__init__()
        projector = mlp((backbone.feature_width, *[width] * projector_layers), final_norm=True)
        self.network = Branch(backbone, projector)
        self.predictor = mlp((width, predictor_hidden, width))
        self.weights = weights

    @property
    def encoder(self) -> Backbone:
        """The backbone."""
        return self.network.backbone

    def step(self, views: Sequence[Tensor], clock: Clock) -> StepOutput:
        """Compute the loss of one batch: see :meth:`Method.step`."""
        features, projections = self.network(views)  # [V, B, D], [V, B, width]
        predictions = self.predictor(projections.flatten(0, 1)).unflatten(0, projections.shape[:2])
        loss = negative_cosine(predictions, projections[: len(views[0])], weights=self.weights)
        return StepOutput(loss=loss, features=features[0].detach())
