"""MoCo-v2 (Chen et al. 2020, arXiv 2003.04297) with multi-crop queries, on SSLight's views."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightssl.backbones.base import Backbone
from lightssl.chains import Chain
from lightssl.distributed import gather
from lightssl.errors import ConfigError
from lightssl.heads import L2Normalised, mlp
from lightssl.losses.contrastive import info_nce
from lightssl.methods.base import Branch, Method, ema_update
from lightssl.types import Clock, Positive, PositiveInt, Share, StepOutput

_PROJECTOR = Chain("projector", layers=4)  # NASiam, arXiv 2302.00059


class MoCoV2(Method):
    """Every view but the first finds, among many images, what a moving average of the network sees in the first.

    The first global view is the key and never enters the query encoder. The defaults are SSLight's.

    Args:
        backbone: Network to train.
        weights: Of the mean over global and the mean over local queries.
        hidden: Width of the head's hidden layer, which has no batch norm; unless there is a projector.
        bottleneck: Width of the embeddings, which are L2-normalised.
        queue: K, keys of earlier images that serve as negatives; a multiple of the batch size.
        temperature: Of the softmax over key and queue.
        momentum: Of the key encoder's moving average.
        projector: Operations of a chain as wide as the backbone's features, in place of the hidden layer.
    """

    queue_keys: Tensor  # [K, bottleneck]; equal in all processes

    def __init__(
        self,
        backbone: Backbone,
        weights: tuple[float, float],
        *,
        hidden: PositiveInt = 2048,
        bottleneck: PositiveInt = 128,
        queue: PositiveInt = 65536,
        temperature: Positive = 0.2,
        momentum: Share = 0.999,
        projector: Annotated[str, _PROJECTOR] | None = None,
    ) -> None:
        super().__init__()
        features = backbone.feature_width
        if projector is None:
            head = mlp((features, hidden, bottleneck), batch_norm=False)
        else:
            chain = _PROJECTOR.build(projector, features, features, features)
            head = nn.Sequential(chain, nn.Linear(features, bottleneck))
        self.query = Branch(backbone, L2Normalised(head))
        self.key = self.query.momentum_copy()
        self.register_buffer("queue_keys", F.normalize(torch.randn(queue, bottleneck), dim=1))
        self.weights = weights
        self.temperature = temperature
        self.momentum = momentum
        self._keys: Tensor | None = None  # [B, bottleneck] of this step, for the queue

    @property
    def branch(self) -> Branch:
        """The query encoder."""
        return self.query

    def check(self, clock: Clock) -> None:
        """Refuse a queue that the batch does not divide: a part of it would be overwritten too early."""
        queue = len(self.queue_keys)
        if queue % clock.batch_size:
            nearest = max(1, round(queue / clock.batch_size)) * clock.batch_size
            raise ConfigError(
                f"method.queue is {queue}, which the batch of {clock.batch_size} images does not divide.",
                f"Use --set method.queue={nearest}, or another multiple of the batch size.",
            )

    def step(self, views: Sequence[Tensor], clock: Clock) -> StepOutput:
        """Compute the loss of one batch: see :meth:`Method.step`."""
        with torch.no_grad():
            keys = self.key([views[0][:1]])[1][0]  # [B, bottleneck]
        features, queries = self.query([views[0][1:], *views[1:]])  # [V - 1, B, D], [V - 1, B, bottleneck]
        loss = info_nce(
            queries,
            keys,
            self.queue_keys,
            global_views=len(views[0]) - 1,
            temperature=self.temperature,
            weights=self.weights,
        )
        self._keys = keys
        agreement = torch.einsum("bd,bd->b", queries[0].detach(), keys).mean()
        return StepOutput(loss=loss, features=features[0].detach(), logs={"key_agreement": agreement})

    @torch.no_grad()
    def after_step(self, clock: Clock) -> None:
        """Replace the oldest keys of the queue, and move the key encoder before it encodes the next batch."""
        if self._keys is not None:
            latest = gather(self._keys)
            oldest = clock.step * clock.batch_size % len(self.queue_keys)
            self.queue_keys[oldest : oldest + len(latest)] = latest
        self._keys = None
        ema_update(self.key, self.query, self.momentum)
