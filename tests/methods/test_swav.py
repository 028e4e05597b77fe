import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightssl.errors import ConfigError
from lightssl.methods.base import Method
from lightssl.types import Clock
from lightssl.units import Duration

Views = Callable[..., list[Tensor]]


def assign(scores: Tensor) -> Tensor:
    """Published Sinkhorn-Knopp of one problem [N, K], in float64."""
    q = (scores.double() / 0.05).exp()
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(0, keepdim=True) / q.shape[1]
        q = q / q.sum(1, keepdim=True) / q.shape[0]
    return q * len(q)


def exact_loss(scores: Tensor, targets: list[Tensor]) -> float:
    cost = [
        [-(target * torch.log_softmax(score.double() / 0.1, -1)).sum(-1).mean().item() for score in scores]
        for target in targets
    ]
    return 0.4 * (cost[0][1] + cost[1][0]) / 2 + 0.6 * sum(cost[0][2:] + cost[1][2:]) / 12


@torch.no_grad()
def encode(method: Any, views: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Embeddings [V, B, D] and scores [V, B, K] that the next step will see; the method stays as it is."""
    twin = copy.deepcopy(method)
    embeddings = twin.network(views)[1]
    return embeddings, embeddings @ F.normalize(twin.prototypes.weight, dim=1).T


@pytest.mark.parametrize("queue", [8, 10])  # 10 is cut to two batches of 4
def test_queue_and_loss_follow_the_published_order(
    build: Callable[..., Method],
    draw_views: Views,
    at: Callable[..., Clock],
    follow: Callable[..., list[float]],
    queue: int,
) -> None:
    method: Any = build("swav", queue=queue, queue_start=Duration(2, "steps"))
    kept: list[Tensor] = []  # embeddings [2, B, D] of earlier batches, the latest first
    changed_by_queue = []
    for step in range(9):
        views = draw_views(step)
        embeddings, scores = encode(method, views)
        prototypes = F.normalize(method.prototypes.weight.detach(), dim=1)
        alone = [assign(scores[v]) for v in range(2)]
        targets = alone
        if len(kept) == 2:  # full
            targets = [
                assign(torch.cat([scores[v], *(batch[v] @ prototypes.T for batch in kept)]))[:4] for v in range(2)
            ]
        (loss,) = follow(method, [views], at, start=step)
        assert loss == pytest.approx(exact_loss(scores, targets), rel=1e-5)
        changed_by_queue.append(abs(exact_loss(scores, alone) / loss - 1) > 1e-3)

        if step >= 2:
            kept = [embeddings[:2], *kept][:2]
        expected = torch.zeros(2, queue, 8)
        if kept:
            expected[:, : 4 * len(kept)] = torch.cat(kept, dim=1)
        torch.testing.assert_close(method.queue_embeddings, expected, rtol=1e-4, atol=1e-6)
    assert changed_by_queue == [step >= 4 for step in range(9)]


def test_without_a_queue_the_batch_is_assigned_alone(
    build: Callable[..., Method], draw_views: Views, at: Callable[..., Clock], follow: Callable[..., list[float]]
) -> None:
    method: Any = build("swav", queue=0, queue_start=Duration(0, "steps"))
    for step in range(4):
        _, scores = encode(method, draw_views(step))
        (loss,) = follow(method, [draw_views(step)], at, start=step)
        assert loss == pytest.approx(exact_loss(scores, [assign(scores[v]) for v in range(2)]), rel=1e-5)
    assert method.queue_embeddings.shape == (2, 0, 8)


def test_prototypes_are_of_unit_length_in_every_forward(
    build: Callable[..., Method], draw_views: Views, at: Callable[..., Clock], follow: Callable[..., list[float]]
) -> None:
    method: Any = build("swav")
    used = []
    method.prototypes.register_forward_pre_hook(lambda layer, _: used.append(layer.weight.detach().clone()))
    with torch.no_grad():
        method.prototypes.weight.mul_(5)
    for step in range(6):
        before = method.prototypes.weight.detach().clone()
        follow(method, [draw_views(step)], at, start=step + 5, rate=3.0)
        torch.testing.assert_close(used[-1], before / before.norm(dim=1, keepdim=True))
    assert not torch.allclose(method.prototypes.weight.norm(dim=1), torch.ones(12))  # the steps changed it


def test_prototypes_are_frozen_for_the_first_epoch_only(
    build: Callable[..., Method], draw_views: Views, at: Callable[..., Clock]
) -> None:
    method: Any = build("swav")
    for step in (0, 4, 5):
        method.zero_grad()
        method(draw_views(), at(step)).loss.backward()
        method.after_backward(at(step))
        assert (method.prototypes.weight.grad is None) == (step < 5)
        assert all(p.grad is not None for p in method.network.parameters())


def test_of_three_global_views_two_are_assigned(
    build: Callable[..., Method], draw_views: Views, at: Callable[..., Clock]
) -> None:
    method: Any = build("swav", weights=(1.0, 0.0))
    views = draw_views(global_views=3, local_views=0)
    _, scores = encode(method, views)
    targets = [assign(scores[v]) for v in range(2)]
    terms = [
        -(targets[t] * torch.log_softmax(scores[v].double() / 0.1, -1)).sum(-1).mean().item()
        for t, v in [(0, 1), (0, 2), (1, 0), (1, 2)]
    ]
    assert method(views, at()).loss.item() == pytest.approx(sum(terms) / 4, rel=1e-5)


def test_a_queue_that_does_not_hold_a_batch_is_refused(build: Callable[..., Method], at: Callable[..., Clock]) -> None:
    method = build("swav", queue=10)
    method.check(at(batch=10))
    with pytest.raises(ConfigError, match=r"method\.queue is 10, less than one batch of 16 images\.") as caught:
        method.check(at(batch=16))
    assert "--set method.queue=0" in str(caught.value)
    build("swav", queue=0).check(at(batch=16))
