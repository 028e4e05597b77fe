"""SwAV: swapping assignments between views (Caron et al. 2020, arXiv 2006.09882), on SSLight's views."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightssl.backbones.base import Backbone
from lightssl.chains import Chain
from lightssl.distributed import gather, process_rank, world_size
from lightssl.errors import ConfigError
from lightssl.heads import L2Normalised, mlp
from lightssl.losses.cross_view import cross_view_entropy
from lightssl.losses.swav import sinkhorn
from lightssl.methods.base import Branch, Method
from lightssl.types import Clock, NonNegativeInt, Positive, PositiveInt, StepOutput
from lightssl.units import Duration

_PROJECTOR = Chain("projector", layers=4)  # not in NASiam (arXiv 2302.00059): as long as MoCo's there
ASSIGNED = 2  # views that are assigned to prototypes: the first two global ones, as published


class SwAV(Method):
    """Every view predicts which prototype another view of the image was assigned to, all prototypes equally in use.

    The defaults are SSLight's.

    Args:
        backbone: Network to train.
        weights: Of the mean global-global and the mean global-local loss term.
        hidden: Width of the head's hidden layer, or layers.
        bottleneck: Width of the embeddings, which are L2-normalised.
        prototypes: K.
        freeze_prototypes: How long the prototypes stay as they were initialised.
        temperature: Of the predictions' softmax.
        epsilon: Smoothness of the assignments.
        sinkhorn_iterations: Of the assignment to prototypes.
        queue: Embeddings of earlier images that are assigned together with the batch, for each assigned view; cut to a
            multiple of the batch. 0 for none.
        queue_start: When embeddings begin to be kept. They take part once the queue is full.
        projector: Operations of a chain in place of the hidden layer.
    """

    queue_embeddings: Tensor  # [ASSIGNED, queue, bottleneck], the latest first; equal in all processes

    def __init__(
        self,
        backbone: Backbone,
        weights: tuple[float, float],
        *,
        hidden: PositiveInt = 4096,
        bottleneck: PositiveInt = 128,
        prototypes: PositiveInt = 3000,
        freeze_prototypes: Duration = Duration(1, "epochs"),
        temperature: Positive = 0.1,
        epsilon: Positive = 0.05,
        sinkhorn_iterations: PositiveInt = 3,
        queue: NonNegativeInt = 3840,
        queue_start: Duration = Duration(15, "epochs"),
        projector: Annotated[str, _PROJECTOR] | None = None,
    ) -> None:
        super().__init__()
        features = backbone.feature_width
        if projector is None:
            head = mlp((features, hidden, bottleneck))
        else:
            head = nn.Sequential(_PROJECTOR.build(projector, features, hidden, hidden), nn.Linear(hidden, bottleneck))
        self.network = Branch(backbone, L2Normalised(head))
        self.prototypes = nn.Linear(bottleneck, prototypes, bias=False)
        self.register_buffer("queue_embeddings", torch.zeros(ASSIGNED, queue, bottleneck))
        self.weights = weights
        self.freeze_prototypes = freeze_prototypes
        self.temperature = temperature
        self.epsilon = epsilon
        self.sinkhorn_iterations = sinkhorn_iterations
        self.queue_start = queue_start
        self._embeddings: Tensor | None = None  # [ASSIGNED, B, bottleneck] of this step, for the queue

    @property
    def branch(self) -> Branch:
        """Backbone and head."""
        return self.network

    def check(self, clock: Clock) -> None:
        """Refuse a queue that does not hold one batch."""
        queue = self.queue_embeddings.shape[1]
        if 0 < queue < clock.batch_size:
            raise ConfigError(
                f"method.queue is {queue}, less than one batch of {clock.batch_size} images.",
                "Use --set method.queue=0 for no queue, or a multiple of the batch size.",
            )

    def step(self, views: Sequence[Tensor], clock: Clock) -> StepOutput:
        """Compute the loss of one batch: see :meth:`Method.step`."""
        with torch.no_grad():
            self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        features, embeddings = self.network(views)  # [V, B, D], [V, B, bottleneck]
        scores = self.prototypes(embeddings)  # [V, B, K]
        targets = self._assign(scores[:ASSIGNED].detach(), clock)
        loss = cross_view_entropy(
            scores, targets, global_views=len(views[0]), temperature=self.temperature, weights=self.weights
        )
        self._embeddings = embeddings[:ASSIGNED].detach()
        return StepOutput(
            loss=loss,
            features=features[0].detach(),
            logs={"assignment_entropy": torch.special.entr(targets).sum(dim=-1).mean()},
        )

    @torch.no_grad()
    def _assign(self, scores: Tensor, clock: Clock) -> Tensor:
        """Assign the batch to the prototypes, together with the queue once that is full."""
        batch = scores.shape[1]
        length = self._queue_length(clock)
        filled = (clock.step - clock.steps(self.queue_start)) * clock.batch_size
        if 0 < length <= filled:
            share = length // world_size()  # each process assigns its part of the queue
            part = self.queue_embeddings[:, process_rank() * share : (process_rank() + 1) * share]
            scores = torch.cat([scores, self.prototypes(part)], dim=1)
        return sinkhorn(scores, epsilon=self.epsilon, iterations=self.sinkhorn_iterations)[:, :batch]

    def _queue_length(self, clock: Clock) -> int:
        queue = self.queue_embeddings.shape[1]
        return queue - queue % clock.batch_size

    def after_backward(self, clock: Clock) -> None:
        """Keep the prototypes where they started for the first epoch."""
        if clock.step < clock.steps(self.freeze_prototypes):
            self.prototypes.weight.grad = None

    @torch.no_grad()
    def after_step(self, clock: Clock) -> None:
        """Put the embeddings of this step at the head of the queue."""
        length = self._queue_length(clock)
        if self._embeddings is not None and length and clock.step >= clock.steps(self.queue_start):
            latest = gather(self._embeddings.transpose(0, 1)).transpose(0, 1)
            kept = self.queue_embeddings[:, : length - latest.shape[1]]
            self.queue_embeddings[:, :length] = torch.cat([latest.to(kept.dtype), kept], dim=1)
        self._embeddings = None
