import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightssl.methods.base import Method
from lightssl.types import Clock
from lightssl.units import Duration

Views = Callable[..., list[Tensor]]


@pytest.fixture
def method(build: Callable[..., Method]) -> Any:
    return build("dino")


def test_teacher_sees_the_global_views_only(method: Any, draw_views: Views, at: Callable[..., Clock]) -> None:
    method(draw_views(), at())
    assert [images.shape for images in method.teacher.backbone.seen] == [(8, 3, 12, 12)]
    assert [images.shape for images in method.student.backbone.seen] == [(8, 3, 12, 12), (24, 3, 7, 7)]


def test_teacher_follows_by_a_momentum_that_rises_along_a_cosine(method: Any, at: Callable[..., Clock]) -> None:
    expected = [p.detach().double().clone() for p in method.teacher.parameters()]
    for step in range(5):
        with torch.no_grad():
            for p in method.student.parameters():
                p.add_(torch.randn_like(p))
        method.after_step(at(step))
        momentum = 1 - (1 - 0.996) * (math.cos(math.pi * step / 10) + 1) / 2
        expected = [
            momentum * e + (1 - momentum) * s.detach().double()
            for e, s in zip(expected, method.student.parameters(), strict=True)
        ]
    for p, e in zip(method.teacher.parameters(), expected, strict=True):
        torch.testing.assert_close(p.double(), e, atol=1e-6, rtol=1e-5)


def test_center_follows_the_teachers_mean_score(method: Any, draw_views: Views, at: Callable[..., Clock]) -> None:
    center = torch.zeros(12, dtype=torch.float64)
    for step in range(4):
        twin = copy.deepcopy(method.teacher)
        with torch.no_grad():
            scores = twin.head(twin.backbone(draw_views(step)[0].flatten(0, 1)))
        method(draw_views(step), at(step))
        method.after_step(at(step))
        center = 0.9 * center + 0.1 * scores.double().mean(0)
        torch.testing.assert_close(method.center.double(), center, atol=1e-6, rtol=1e-4)


def test_targets_are_centred_by_earlier_batches_alone(method: Any, draw_views: Views, at: Callable[..., Clock]) -> None:
    for step in range(3):
        center, twin = method.center.double().clone(), copy.deepcopy(method)
        with torch.no_grad():
            teacher = twin.teacher(draw_views(step)[:1])[1].double()
            student = twin.student(draw_views(step))[1].double()
        temperature = 0.04 + 0.03 * step / 250  # of the 50 epochs of 5 steps that the ramp takes
        targets = torch.softmax((teacher - center) / temperature, -1)
        cost = [
            [-(targets[t] * torch.log_softmax(student[v] / 0.1, -1)).sum(-1).mean().item() for v in range(8)]
            for t in range(2)
        ]
        exact = 0.4 * (cost[0][1] + cost[1][0]) / 2 + 0.6 * sum(cost[0][2:] + cost[1][2:]) / 12
        output = method(draw_views(step), at(step))
        method.after_step(at(step))
        assert output.loss.item() == pytest.approx(exact, rel=1e-5)
        entropy = -(targets * targets.log()).sum(-1).mean().item()
        assert output.logs["teacher_entropy"].item() == pytest.approx(entropy, rel=1e-4)


def test_prototypes_are_frozen_for_the_first_epoch_only(
    method: Any, draw_views: Views, at: Callable[..., Clock]
) -> None:
    for step in (0, 4, 5):
        method.zero_grad()
        method(draw_views(), at(step)).loss.backward()
        method.after_backward(at(step))
        frozen = all(p.grad is None for p in method.student.head.prototypes.parameters())
        assert frozen == (step < 5)
        assert all(p.grad is not None for p in method.student.head.mlp.parameters())


def test_prototypes_keep_unit_length_while_their_gain_is_frozen(
    method: Any, draw_views: Views, at: Callable[..., Clock], follow: Callable[..., list[float]]
) -> None:
    before = method.student.head.prototypes.weight.detach().clone()
    follow(method, [draw_views()] * 4, at, start=5, rate=1.0)
    after = method.student.head.prototypes.weight.detach()
    assert not torch.equal(before, after)
    torch.testing.assert_close(after.norm(dim=1), torch.ones(12))


def test_temperature_ramps_linearly_then_stays(
    build: Callable[..., Any], draw_views: Views, at: Callable[..., Clock]
) -> None:
    method = build("dino", teacher_temperature_warmup=Duration.parse("5 steps"))
    temperatures = [method(draw_views(), at(step)).logs["teacher_temperature"] for step in range(7)]
    assert temperatures == pytest.approx([0.04, 0.046, 0.052, 0.058, 0.064, 0.07, 0.07])
