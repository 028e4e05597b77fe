import copy
import math

import pytest
import torch
from torch import Tensor, nn

from lightssl.backbones.base import Backbone
from lightssl.methods.base import encode_views
from lightssl.methods.dino import DINO
from lightssl.types import Clock
from lightssl.units import Duration

SMALL = {"hidden": 16, "bottleneck": 8, "prototypes": 12}


class Tiny(Backbone):
    feature_width = 6
    total_stride = 1

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        return self.norm(self.conv(images)).relu().mean((2, 3))


def clock(step: int = 0, total: int = 10, epoch: int = 5) -> Clock:
    return Clock(step, total, epoch, 4)


def views(batch: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, batch, 3, 12, 12, generator=generator), torch.randn(6, batch, 3, 7, 7, generator=generator)]


@pytest.fixture
def method() -> DINO:
    torch.manual_seed(0)
    return DINO(Tiny(), (0.4, 0.6), **SMALL)


def test_teacher_starts_as_the_student_head_included(method: DINO) -> None:
    student, teacher = method.student.state_dict(), method.teacher.state_dict()
    assert student.keys() == teacher.keys()
    for name in student:
        assert torch.equal(student[name], teacher[name]), name
    assert not any(p.requires_grad for p in method.teacher.parameters())


def test_one_forward_for_each_resolution_globals_first(method: DINO) -> None:
    method(views(), clock())
    assert method.student.backbone.seen == [(8, 3, 12, 12), (24, 3, 7, 7)]
    assert method.teacher.backbone.seen[-1] == (8, 3, 12, 12)


def test_views_of_equal_size_share_one_forward() -> None:
    backbone = Tiny()
    features = encode_views(backbone, [torch.randn(2, 4, 3, 9, 9), torch.randn(3, 4, 3, 9, 9)])
    assert backbone.seen == [(20, 3, 9, 9)]
    assert features.shape == (5, 4, 6)


def test_features_keep_the_order_of_views_and_images() -> None:
    class Mean(Tiny):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3))

    groups = views()
    features = encode_views(Mean(), groups)
    for v in range(8):
        group, i = (groups[0], v) if v < 2 else (groups[1], v - 2)
        torch.testing.assert_close(features[v], group[i].mean((2, 3)))


def test_ema_several_steps_against_float64(method: DINO) -> None:
    expected = [p.detach().double().clone() for p in method.teacher.parameters()]
    for step in range(5):
        with torch.no_grad():
            for p in method.student.parameters():
                p.add_(torch.randn_like(p))
        now = clock(step)
        method.after_step(now)
        momentum = 1 - (1 - 0.996) * (math.cos(math.pi * step / 10) + 1) / 2
        expected = [
            momentum * e + (1 - momentum) * s.detach().double()
            for e, s in zip(expected, method.student.parameters(), strict=True)
        ]
    for p, e in zip(method.teacher.parameters(), expected, strict=True):
        torch.testing.assert_close(p.double(), e, atol=1e-6, rtol=1e-5)


def test_ema_leaves_batch_norm_statistics_alone(method: DINO) -> None:
    before = copy.deepcopy(dict(method.teacher.named_buffers()))
    with torch.no_grad():
        method.student.backbone.norm.running_mean.add_(3)
    method.after_step(clock())
    for name, buffer in method.teacher.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_center_follows_the_teachers_mean_score(method: DINO) -> None:
    center = torch.zeros(12, dtype=torch.float64)
    for step in range(4):
        twin = copy.deepcopy(method.teacher)
        with torch.no_grad():
            scores = twin.head(twin.backbone(views()[0].flatten(0, 1)))
        method(views(), clock(step))
        center = 0.9 * center + 0.1 * scores.double().mean(0)
        torch.testing.assert_close(method.center.double(), center, atol=1e-6, rtol=1e-4)


def test_prototypes_are_frozen_for_the_first_epoch_only(method: DINO) -> None:
    for step in (0, 4, 5):
        method.zero_grad()
        method(views(), clock(step)).loss.backward()
        method.after_backward(clock(step))
        frozen = all(p.grad is None for p in method.student.head.prototypes.parameters())
        assert frozen == (step < 5)
        assert all(p.grad is not None for p in method.student.head.mlp.parameters())


def test_prototypes_keep_unit_length_while_their_gain_is_frozen(method: DINO) -> None:
    optimizer = torch.optim.SGD([p for p in method.student.parameters() if p.requires_grad], lr=1.0)
    for step in range(5, 9):
        optimizer.zero_grad()
        method(views(), clock(step)).loss.backward()
        optimizer.step()
    lengths = method.student.head.prototypes.weight.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(12))


def test_temperature_ramps_linearly_then_stays() -> None:
    method = DINO(Tiny(), (0.4, 0.6), **SMALL, teacher_temperature_warmup=Duration.parse("5 steps"))
    temperatures = [method(views(), clock(step)).logs["teacher_temperature"] for step in range(7)]
    assert temperatures == pytest.approx([0.04, 0.046, 0.052, 0.058, 0.064, 0.07, 0.07])


def test_the_loss_falls_when_it_is_followed() -> None:
    torch.manual_seed(0)
    method = DINO(Tiny(), (0.4, 0.6), **SMALL, freeze_prototypes=Duration.parse("0 steps"))
    optimizer = torch.optim.SGD([p for p in method.student.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for step in range(40):
        now = clock(step, total=40, epoch=1)
        output = method(views(16), now)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        method.after_step(now)
        losses.append(output.loss.item())
    assert losses[-1] < losses[0] - 0.1
