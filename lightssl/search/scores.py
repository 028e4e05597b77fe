"""What candidates of a trained supernet are worth, without labels: each computes with its part of the weights."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn

from lightssl.backbones.batchnorm import batch_norm_layers, estimate_batch_norm, in_eval_mode
from lightssl.collapse import effective_rank
from lightssl.evaluation.features import Features
from lightssl.evaluation.knn import knn_accuracy
from lightssl.layers import use_training_layers
from lightssl.methods.base import Method
from lightssl.search.spaces import Candidate
from lightssl.search.supernet import Supernet, activate
from lightssl.search.task import Lab
from lightssl.types import Clock

SupernetScore = Literal["agreement", "loss", "rank", "knn"]
Scorer = Callable[[Candidate], Mapping[str, float]]
"""From a candidate to everything found of it; ``score`` is what candidates are compared by, and higher is better."""


class SupernetScorer:
    """Scores candidates of a trained supernet on held-out images, with batch norm estimated for each of them.

    - ``agreement``: linear centred kernel alignment of its features with those of the largest network, 0 to 1. Choosing
      by closeness to the largest follows DATA (Chang et al. 2022, CVPR), which measures a distance of features.
    - ``loss``: the method's own loss on held-out views, batch norm using the statistics of each batch.
    - ``rank``: effective rank of its features: see :func:`lightssl.collapse.effective_rank`.
    - ``knn``: percentage of held-out images that the labels of training images name right; only if asked for.

    Args:
        method: Trained, in which the candidates share their weights.
        clock: Of its last step, where schedules stand for the loss.
        lab: Where images come from.
        images: Held-out images, and as many training images to estimate batch norm on.
        score: Which of them is the score; the loss counts negatively.
    """

    def __init__(self, method: Method, clock: Clock, lab: Lab, *, images: int, score: SupernetScore) -> None:
        self._method, self._clock, self._score, self._device = method, clock, score, lab.device
        self._supernet = cast(Supernet, method.encoder)
        self._train, self._held_out = (lab.images(images, held_out=held_out) for held_out in (False, True))
        self._views = lab.views(images)
        self._labels: tuple[Tensor, Tensor] | None = None
        if score == "knn":
            self._labels = (lab.labels(images, held_out=False), lab.labels(images, held_out=True))
        self._largest = _features(self._calibrated(self._supernet.space.largest), self._held_out)

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        """Score one candidate.

        Raises:
            ConfigError: It is not in the supernet's space.
        """
        network = self._calibrated(candidate)
        features = _features(network, self._held_out)
        scores = {
            "agreement": linear_cka(features, self._largest),
            "loss": self._loss(candidate),
            "rank": effective_rank(features),
        }
        if self._labels is not None:
            scores["knn"] = _knn(_features(network, self._train), features, *self._labels)
        return {"score": -scores["loss"] if self._score == "loss" else scores[self._score], **scores}

    def _calibrated(self, candidate: Candidate) -> nn.Module:
        network = self._supernet.subnet(candidate)
        use_training_layers(network, self._device)
        estimate_batch_norm(network, self._train)
        return network

    @torch.no_grad()
    def _loss(self, candidate: Candidate) -> float:
        activate(self._method, candidate)
        with in_eval_mode(self._method):
            for layer in batch_norm_layers(self._method):
                layer.train()
            losses = [self._method.step(views, self._clock).loss for views in self._views]
        return float(torch.stack(losses).mean())


@torch.no_grad()
def _features(network: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """Return features of all batches, float32 [N, D]."""
    with in_eval_mode(network):
        return torch.cat([network(images).float() for images in batches])


@torch.no_grad()
def linear_cka(first: Tensor, second: Tensor) -> float:
    """How alike two networks tell the same images apart: linear CKA (Kornblith et al. 2019, arXiv 1905.00414).

    Centred kernel alignment does not change with rotation or scale of either network's features.

    Args:
        first: Features of N images, [N, D].
        second: Of the same images by another network, [N, E].

    Returns:
        1 when their similarities of images are proportional, 0 when they have nothing in common or features are
        constant.
    """
    first, second = (features.double() - features.double().mean(dim=0) for features in (first, second))
    common = (first.T @ second).square().sum()
    own = (first.T @ first).norm() * (second.T @ second).norm()
    return float(common / own) if own > 0 else 0.0


def _knn(train: Tensor, held_out: Tensor, train_labels: Tensor, held_out_labels: Tensor) -> float:
    labels = torch.cat([train_labels, held_out_labels])
    features = Features(
        train=train.cpu(),
        train_labels=train_labels,
        test=held_out.cpu(),
        test_labels=held_out_labels,
        classes=[str(label) for label in range(int(labels.max()) + 1)],
        train_indices=torch.arange(len(train)),
        test_indices=torch.arange(len(held_out)),
    )
    return float(knn_accuracy(features, k=min(20, len(train)))["top1"])
