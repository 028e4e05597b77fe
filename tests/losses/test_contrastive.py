"""MoCo's and SimCLR's losses against their formulas written out in float64, image by image."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightssl.losses.contrastive import info_nce, nt_xent

WEIGHTS = [(0.4, 0.6), (1 / 7, 6 / 7)]


def unit_vectors(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def weigh(to_global: list[Tensor], to_local: list[Tensor], weights: tuple[float, float]) -> Tensor:
    loss = weights[0] * torch.stack(to_global).mean()
    return loss + weights[1] * torch.stack(to_local).mean() if to_local else loss


def info_nce_reference(
    queries: Tensor, keys: Tensor, queue: Tensor, global_views: int, temperature: float, weights: tuple[float, float]
) -> Tensor:
    """``-log(exp(q k / t) / (exp(q k / t) + sum over the queue))`` of every image of every query view."""
    to_global, to_local = [], []
    for v in range(len(queries)):
        for i in range(len(keys)):
            positive = (queries[v, i].dot(keys[i]) / temperature).exp()
            negatives = sum((queries[v, i].dot(other) / temperature).exp() for other in queue)
            (to_global if v < global_views else to_local).append(-(positive / (positive + negatives)).log())
    return weigh(to_global, to_local, weights)


def nt_xent_reference(
    embeddings: Tensor, global_views: int, temperature: float, weights: tuple[float, float]
) -> Tensor:
    """Every view of every image finds every other global view of it among the global views of the other images."""
    to_global, to_local = [], []
    views, images, _ = embeddings.shape
    for v in range(views):
        for t in range(global_views):
            if v == t:
                continue
            for i in range(images):
                anchor = embeddings[v, i]
                positive = (anchor.dot(embeddings[t, i]) / temperature).exp()
                negatives = sum(
                    (anchor.dot(embeddings[g, j]) / temperature).exp()
                    for g in range(global_views)
                    for j in range(images)
                    if j != i
                )
                (to_global if v < global_views else to_local).append(-(positive / (positive + negatives)).log())
    return weigh(to_global, to_local, weights)


@pytest.mark.parametrize(("images", "width", "queue"), [(1, 4, 1), (3, 8, 16), (5, 16, 33)])
@pytest.mark.parametrize(("global_views", "local_views"), [(1, 0), (1, 6), (2, 3)])
@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_info_nce_equals_the_formula(
    agrees: Callable[..., None],
    images: int,
    width: int,
    queue: int,
    global_views: int,
    local_views: int,
    temperature: float,
    weights: tuple[float, float],
) -> None:
    keys, others = unit_vectors(images, width, seed=1), unit_vectors(queue, width, seed=2)
    agrees(
        lambda q: info_nce(q, keys, others, global_views=global_views, temperature=temperature, weights=weights),
        lambda q: info_nce_reference(q, keys.double(), others.double(), global_views, temperature, weights),
        unit_vectors(global_views + local_views, images, width),
    )


@pytest.mark.parametrize("queue", [1, 7, 4096])
def test_info_nce_of_equal_similarities_is_log_of_one_more_than_the_queue(queue: int) -> None:
    same = unit_vectors(1, 8)
    loss = info_nce(
        same.expand(7, 3, 8), same.expand(3, 8), same.expand(queue, 8), global_views=1, weights=(1 / 7, 6 / 7)
    )
    assert loss.item() == pytest.approx(math.log(queue + 1), rel=1e-5)


def test_no_gradient_reaches_the_keys() -> None:
    queries = unit_vectors(2, 3, 8).requires_grad_()
    keys = unit_vectors(3, 8, seed=1).requires_grad_()
    info_nce(queries, keys, unit_vectors(5, 8, seed=2), global_views=1, weights=(0.4, 0.6)).backward()
    assert keys.grad is None
    assert queries.grad is not None


@pytest.mark.parametrize(("images", "width"), [(2, 4), (3, 8), (6, 16)])
@pytest.mark.parametrize(("global_views", "local_views"), [(2, 0), (2, 1), (2, 6), (3, 2)])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_nt_xent_equals_the_formula(
    agrees: Callable[..., None],
    images: int,
    width: int,
    global_views: int,
    local_views: int,
    temperature: float,
    weights: tuple[float, float],
) -> None:
    agrees(
        lambda e: nt_xent(e, global_views=global_views, temperature=temperature, weights=weights),
        lambda e: nt_xent_reference(e, global_views, temperature, weights),
        unit_vectors(global_views + local_views, images, width),
    )


@pytest.mark.parametrize("images", [2, 9, 64])
def test_nt_xent_of_equal_similarities_is_log_of_the_candidates(images: int) -> None:
    loss = nt_xent(unit_vectors(1, 8).expand(8, images, 8), global_views=2, weights=(0.4, 0.6))
    assert loss.item() == pytest.approx(math.log(2 * images - 1), rel=1e-5)


def test_autocast_does_not_round_the_losses() -> None:
    embeddings, queue = unit_vectors(4, 8, 16), unit_vectors(32, 16, seed=1)

    def losses() -> list[Tensor]:
        return [
            info_nce(embeddings[1:], embeddings[0], queue, global_views=1, weights=(0.4, 0.6)),
            nt_xent(embeddings, global_views=2, weights=(0.4, 0.6)),
        ]

    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = losses()
    assert rounded == losses()
