"""Our losses against lightly's: values and gradients. lightly takes the plain mean over pairs: ``balance: pairs``."""

from collections.abc import Callable

import pytest
import torch
from lightly.loss import DINOLoss, NegativeCosineSimilarity, NTXentLoss, SwaVLoss
from lightly.loss.swav_loss import sinkhorn as lightly_sinkhorn
from torch import Tensor
from torch.nn import functional as F

from lightssl.losses.contrastive import info_nce, nt_xent
from lightssl.losses.cross_view import cross_view_entropy
from lightssl.losses.dino import dino_targets
from lightssl.losses.simsiam import negative_cosine
from lightssl.losses.swav import sinkhorn

sizes = pytest.mark.parametrize(("images", "width"), [(2, 5), (7, 16), (16, 64)])


def pairs(global_views: int, local_views: int) -> tuple[float, float]:
    """Weights with which all pairs of views count alike: 1/7 and 6/7 for 2 and 6 views."""
    others = global_views - 1
    return others / (others + local_views), local_views / (others + local_views)


def cosines(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def unit_vectors(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@sizes
@pytest.mark.parametrize(("global_views", "local_views"), [(2, 0), (2, 1), (2, 6), (3, 4)])
@pytest.mark.parametrize(("student", "teacher"), [(0.1, 0.04), (0.1, 0.07), (0.5, 0.3)])
def test_dino(
    agrees: Callable[..., None],
    images: int,
    width: int,
    global_views: int,
    local_views: int,
    student: float,
    teacher: float,
) -> None:
    teacher_scores = cosines(global_views, images, width, seed=1)
    center = 0.1 * cosines(width, seed=2)

    def theirs(scores: Tensor) -> Tensor:
        loss = DINOLoss(width, student_temp=student).double()
        loss.center.copy_(center)
        return loss(list(teacher_scores.double()), list(scores), teacher_temp=teacher)

    agrees(
        lambda scores: cross_view_entropy(
            scores,
            dino_targets(teacher_scores, center, teacher),
            global_views=global_views,
            temperature=student,
            weights=pairs(global_views, local_views),
        ),
        theirs,
        cosines(global_views + local_views, images, width),
    )


@sizes
@pytest.mark.parametrize("local_views", [0, 1, 6])
@pytest.mark.parametrize("queue", [0, 12])
@pytest.mark.parametrize(("temperature", "epsilon", "iterations"), [(0.1, 0.05, 3), (0.2, 0.1, 1), (0.05, 0.03, 5)])
def test_swav(
    agrees: Callable[..., None],
    images: int,
    width: int,
    local_views: int,
    queue: int,
    temperature: float,
    epsilon: float,
    iterations: int,
) -> None:
    queued = cosines(2, queue, width, seed=1)

    def ours(scores: Tensor) -> Tensor:
        problems = torch.cat([scores[:2], queued], dim=1)
        return cross_view_entropy(
            scores,
            sinkhorn(problems, epsilon=epsilon, iterations=iterations)[:, :images],
            global_views=2,
            temperature=temperature,
            weights=pairs(2, local_views),
        )

    def theirs(scores: Tensor) -> Tensor:
        loss = SwaVLoss(temperature, iterations, epsilon)
        return loss(list(scores[:2]), list(scores[2:]), list(queued.double()) if queue else None)

    agrees(ours, theirs, cosines(2 + local_views, images, width))


@sizes
@pytest.mark.parametrize("epsilon", [0.03, 0.05, 0.5])
@pytest.mark.parametrize("iterations", [1, 3, 8])
def test_sinkhorn(images: int, width: int, epsilon: float, iterations: int) -> None:
    scores = cosines(2, images, width)
    assigned = sinkhorn(scores, epsilon=epsilon, iterations=iterations)
    for problem in range(2):
        theirs = lightly_sinkhorn(scores[problem].double(), iterations, epsilon)
        torch.testing.assert_close(assigned[problem].double(), theirs, rtol=1e-5, atol=1e-5)


@sizes
@pytest.mark.parametrize("queue", [1, 32, 100])
@pytest.mark.parametrize("local_views", [0, 1, 6])
@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_moco(
    agrees: Callable[..., None], images: int, width: int, queue: int, local_views: int, temperature: float
) -> None:
    keys, others = unit_vectors(images, width, seed=1), unit_vectors(queue, width, seed=2)

    def theirs(queries: Tensor) -> Tensor:
        terms = []
        for query in queries:
            loss = NTXentLoss(temperature, memory_bank_size=(queue, width))
            loss.memory_bank.bank = others.double()
            terms.append(loss(query, keys.double()))
        return torch.stack(terms).mean()

    agrees(
        lambda queries: info_nce(
            F.normalize(queries, dim=-1),
            keys,
            others,
            global_views=1,
            temperature=temperature,
            weights=pairs(2, local_views),
        ),
        theirs,  # lightly normalises by itself
        cosines(1 + local_views, images, width),
    )


@sizes
@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_simclr(agrees: Callable[..., None], images: int, width: int, temperature: float) -> None:
    agrees(
        lambda vectors: nt_xent(
            F.normalize(vectors, dim=-1), global_views=2, temperature=temperature, weights=(1.0, 0.0)
        ),
        lambda vectors: NTXentLoss(temperature)(vectors[0], vectors[1]),  # lightly normalises by itself
        cosines(2, images, width),
    )


@sizes
@pytest.mark.parametrize("local_views", [0, 1, 6])
def test_simsiam(agrees: Callable[..., None], images: int, width: int, local_views: int) -> None:
    projections = cosines(2, images, width, seed=1)

    def theirs(predictions: Tensor) -> Tensor:
        loss = NegativeCosineSimilarity()
        terms = [
            loss(predictions[v], projections[t].double()) for t in range(2) for v in range(2 + local_views) if t != v
        ]
        return torch.stack(terms).mean()

    agrees(
        lambda predictions: negative_cosine(predictions, projections, weights=pairs(2, local_views)),
        theirs,
        cosines(2 + local_views, images, width),
    )
