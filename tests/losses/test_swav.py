"""Sinkhorn-Knopp against the published iteration written out in float64."""

import numpy as np
import pytest
import torch

from lightssl.losses.swav import sinkhorn


def reference(scores: np.ndarray, epsilon: float, iterations: int) -> np.ndarray:
    """One problem [N, K]: a matrix of total 1 whose prototypes are scaled to 1/K each, then its samples to 1/N."""
    samples, prototypes = scores.shape
    q = np.exp(scores / epsilon)
    q /= q.sum()
    for _ in range(iterations):
        for k in range(prototypes):
            q[:, k] /= q[:, k].sum() * prototypes
        for n in range(samples):
            q[n] /= q[n].sum() * samples
    return q * samples


def cosines(problems: int, samples: int, prototypes: int) -> torch.Tensor:
    return torch.rand(problems, samples, prototypes, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(("samples", "prototypes"), [(1, 3), (4, 2), (7, 12), (40, 9)])
@pytest.mark.parametrize("epsilon", [0.03, 0.05, 0.5])
@pytest.mark.parametrize("iterations", [1, 2, 3, 10])
def test_equals_the_published_iteration(samples: int, prototypes: int, epsilon: float, iterations: int) -> None:
    scores = cosines(2, samples, prototypes)
    assigned = sinkhorn(scores, epsilon=epsilon, iterations=iterations).numpy()
    for problem in range(2):
        exact = reference(scores[problem].double().numpy(), epsilon, iterations)
        np.testing.assert_allclose(assigned[problem], exact, rtol=1e-5, atol=1e-6)


def test_every_sample_is_assigned_once_and_in_the_end_all_prototypes_alike() -> None:
    assigned = sinkhorn(cosines(2, 60, 12), epsilon=0.5, iterations=100)
    torch.testing.assert_close(assigned.sum(dim=2), torch.ones(2, 60))
    torch.testing.assert_close(assigned.sum(dim=1), torch.full((2, 12), 5.0), rtol=1e-3, atol=0)


def test_equal_scores_are_assigned_to_all_prototypes_alike() -> None:
    torch.testing.assert_close(sinkhorn(torch.ones(2, 5, 8)), torch.full((2, 5, 8), 1 / 8))


@pytest.mark.parametrize("epsilon", [0.05, 0.01, 0.001])
def test_sharp_problems_stay_in_range(epsilon: float) -> None:
    scores = cosines(1, 6, 4)
    scores[0, 0] = -1.0  # far from all prototypes: its exponentials vanish beside those of the others
    scores[0, :, 1] = -1.0  # a prototype that is far from all samples
    assigned = sinkhorn(scores, epsilon=epsilon)
    assert assigned.isfinite().all()
    torch.testing.assert_close(assigned.sum(dim=2), torch.ones(1, 6))


def test_scores_are_left_alone_and_get_no_gradient() -> None:
    scores = cosines(2, 5, 4).requires_grad_()
    before = scores.detach().clone()
    assert not sinkhorn(scores).requires_grad
    assert torch.equal(scores.detach(), before)
