"""SimSiam's loss against the formula written out in float64, image by image."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightssl.losses.simsiam import negative_cosine


def reference(predictions: Tensor, projections: Tensor, weights: tuple[float, float]) -> Tensor:
    """``-p z / (|p| |z|)`` of every image of every pair of a projection and another view's prediction."""
    to_global, to_local = [], []
    for t in range(len(projections)):
        for v in range(len(predictions)):
            if t == v:
                continue
            for p, z in zip(predictions[v], projections[t], strict=True):
                term = -p.dot(z) / (p.square().sum() * z.square().sum()).sqrt()
                (to_global if v < len(projections) else to_local).append(term)
    loss = weights[0] * torch.stack(to_global).mean()
    return loss + weights[1] * torch.stack(to_local).mean() if to_local else loss


def random(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("images", "width"), [(1, 2), (4, 16), (9, 33)])
@pytest.mark.parametrize(("global_views", "local_views"), [(2, 0), (2, 1), (2, 6), (3, 2)])
@pytest.mark.parametrize("weights", [(0.4, 0.6), (1 / 7, 6 / 7), (1.0, 0.0)])
def test_equals_the_formula(
    agrees: Callable[..., None],
    images: int,
    width: int,
    global_views: int,
    local_views: int,
    weights: tuple[float, float],
) -> None:
    projections = random(global_views, images, width, seed=1)
    agrees(
        lambda p: negative_cosine(p, projections, weights=weights),
        lambda p: reference(p, projections.double(), weights),
        random(global_views + local_views, images, width),
    )


@pytest.mark.parametrize(("images", "width"), [(3, 8), (128, 2048)])
def test_views_that_agree_cost_minus_one_and_opposite_ones_one(images: int, width: int) -> None:
    same = random(1, images, width)
    views, targets = same.expand(8, -1, -1), same.expand(2, -1, -1)
    assert negative_cosine(views, targets, weights=(0.4, 0.6)).item() == pytest.approx(-1, rel=1e-6)
    assert negative_cosine(-views, targets, weights=(0.4, 0.6)).item() == pytest.approx(1, rel=1e-6)


def test_no_gradient_reaches_the_projections() -> None:
    predictions, projections = random(3, 4, 8).requires_grad_(), random(2, 4, 8, seed=1).requires_grad_()
    negative_cosine(predictions, projections, weights=(0.4, 0.6)).backward()
    assert projections.grad is None
    assert predictions.grad is not None


def test_autocast_does_not_round_the_loss() -> None:
    predictions, projections = random(4, 8, 16), random(2, 8, 16, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = negative_cosine(predictions, projections, weights=(0.4, 0.6))
    assert torch.equal(loss, negative_cosine(predictions, projections, weights=(0.4, 0.6)))
