"""DINO's loss against the formula written out in float64, value and gradient."""

from itertools import product

import numpy as np
import pytest
import torch

from lightssl.losses.balance import balanced_mean
from lightssl.losses.dino import dino_loss, dino_targets


def reference(
    student: np.ndarray, teacher: np.ndarray, center: np.ndarray, ts: float, tt: float, weights: tuple
) -> float:
    """Every (teacher view, other student view) pair by itself: -sum_k p_k log q_k, mean over images."""

    def softmax(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    global_terms, local_terms = [], []
    for g, v in product(range(len(teacher)), range(len(student))):
        if g == v:
            continue
        p, q = softmax((teacher[g] - center) / tt), softmax(student[v] / ts)
        (global_terms if v < len(teacher) else local_terms).append(-(p * np.log(q)).sum(-1).mean())
    return weights[0] * np.mean(global_terms) + (weights[1] * np.mean(local_terms) if local_terms else 0.0)


@pytest.mark.parametrize("locals_", [0, 1, 6])
@pytest.mark.parametrize(("ts", "tt"), [(0.1, 0.04), (0.1, 0.07), (0.5, 0.3)])
@pytest.mark.parametrize("weights", [(0.4, 0.6), (1 / 7, 6 / 7), (1.0, 0.0)])
def test_equals_the_formula(locals_: int, ts: float, tt: float, weights: tuple[float, float]) -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(2 + locals_, 5, 17, generator=generator)
    teacher = torch.randn(2, 5, 17, generator=generator)
    center = torch.randn(17, generator=generator) * 0.1
    student.requires_grad_()
    loss = dino_loss(student, dino_targets(teacher, center, tt), temperature=ts, weights=weights)
    exact = reference(
        student.detach().double().numpy(), teacher.double().numpy(), center.double().numpy(), ts, tt, weights
    )
    assert loss.item() == pytest.approx(exact, rel=1e-5)

    loss.backward()
    wide = student.detach().double().requires_grad_()
    targets = torch.softmax((teacher.double() - center.double()) / tt, -1)
    terms = {
        (g, v): -(targets[g] * torch.log_softmax(wide[v] / ts, -1)).sum(-1).mean()
        for g, v in product(range(2), range(len(wide)))
        if g != v
    }
    both = torch.stack([term for (_, v), term in terms.items() if v < 2]).mean() * weights[0]
    if locals_:
        both = both + torch.stack([term for (_, v), term in terms.items() if v >= 2]).mean() * weights[1]
    both.backward()
    torch.testing.assert_close(student.grad, wide.grad.float(), atol=1e-6, rtol=1e-5)


def test_pair_weights_are_the_plain_mean_over_all_terms() -> None:
    generator = torch.Generator().manual_seed(1)
    terms = torch.rand(14, generator=generator)
    is_global = torch.tensor([True] * 2 + [False] * 12)
    assert balanced_mean(terms, is_global, (1 / 7, 6 / 7)).item() == pytest.approx(terms.mean().item(), abs=1e-6)


def test_uniform_student_and_teacher_cost_log_k() -> None:
    scores = torch.zeros(8, 4, 64)
    targets = dino_targets(torch.zeros(2, 4, 64), torch.zeros(64), 0.04)
    assert dino_loss(scores, targets, weights=(0.4, 0.6)).item() == pytest.approx(np.log(64), rel=1e-6)


def test_no_gradient_reaches_the_teacher() -> None:
    teacher = torch.randn(2, 3, 8, requires_grad=True)
    assert not dino_targets(teacher, torch.zeros(8), 0.04).requires_grad
