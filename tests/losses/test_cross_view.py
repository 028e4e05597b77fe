"""The loss of DINO and SwAV against the cross entropy written out in float64, image by image."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightssl.losses.cross_view import cross_view_entropy


def reference(
    scores: Tensor, targets: Tensor, global_views: int, temperature: float, weights: tuple[float, float]
) -> Tensor:
    """``-sum_k p_k log q_k`` for every image of every pair of a target and another view."""
    to_global, to_local = [], []
    for t, target in enumerate(targets):
        for v, score in enumerate(scores):
            if t == v:
                continue
            for p, s in zip(target, score, strict=True):
                powers = (s / temperature).exp()
                term = -(p * (powers / powers.sum()).log()).sum()
                (to_global if v < global_views else to_local).append(term)
    loss = weights[0] * torch.stack(to_global).mean()
    return loss + weights[1] * torch.stack(to_local).mean() if to_local else loss


def random_inputs(targets: int, views: int, images: int, prototypes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(views, images, prototypes, generator=generator) * 2 - 1  # as cosines
    probabilities = torch.softmax(3 * torch.randn(targets, images, prototypes, generator=generator), -1)
    return scores, probabilities


@pytest.mark.parametrize(("images", "prototypes"), [(1, 2), (5, 17), (16, 64)])
@pytest.mark.parametrize(("targets", "global_views", "local_views"), [(2, 2, 0), (2, 2, 1), (2, 2, 6), (2, 3, 2)])
@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("weights", [(0.4, 0.6), (1 / 7, 6 / 7), (1.0, 0.0)])
def test_equals_the_formula(
    agrees: Callable[..., None],
    images: int,
    prototypes: int,
    targets: int,
    global_views: int,
    local_views: int,
    temperature: float,
    weights: tuple[float, float],
) -> None:
    scores, probabilities = random_inputs(targets, global_views + local_views, images, prototypes)
    agrees(
        lambda s: cross_view_entropy(
            s, probabilities, global_views=global_views, temperature=temperature, weights=weights
        ),
        lambda s: reference(s, probabilities.double(), global_views, temperature, weights),
        scores,
    )


@pytest.mark.parametrize(("images", "prototypes"), [(3, 2), (64, 4096), (2, 65536)])
def test_uniform_predictions_and_targets_cost_log_k_at_published_sizes(images: int, prototypes: int) -> None:
    scores = torch.ones(8, images, prototypes)
    targets = torch.full((2, images, prototypes), 1 / prototypes)
    loss = cross_view_entropy(scores, targets, global_views=2, temperature=0.1, weights=(0.4, 0.6))
    assert loss.item() == pytest.approx(math.log(prototypes), rel=1e-6)


def test_autocast_does_not_round_the_loss() -> None:
    scores, targets = random_inputs(2, 8, 16, 64)
    options = {"global_views": 2, "temperature": 0.1, "weights": (0.4, 0.6)}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_view_entropy(scores, targets, **options)
    assert torch.equal(loss, cross_view_entropy(scores, targets, **options))
