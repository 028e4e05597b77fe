import numpy as np
import pytest
from torch import nn

from lightssl.config.load import load_recipe
from lightssl.optim import LARS, parameter_groups
from lightssl.pipeline.building import fields_of
from lightssl.train.schedule import Schedule
from lightssl.types import Clock
from lightssl.units import Duration


def test_the_published_schedule_step_by_step() -> None:
    """SSLight on ImageNet: 1251 steps an epoch, peak 1.92 after 10 epochs, .0048 at the end; neither end is scaled."""
    epoch, total = 1251, 200 * 1251
    schedule = Schedule(**fields_of(load_recipe("mobilenetv2_dino").schedule))

    def rate(step: int) -> float:
        return schedule.learning_rate(Clock(step, total, epoch, 1024))

    assert rate(0) == 0.0
    assert rate(10 * epoch - 1) == pytest.approx(1.92)
    assert rate(10 * epoch) == pytest.approx(1.92)
    assert rate(105 * epoch) == pytest.approx((1.92 + 0.0048) / 2, rel=1e-6)
    assert rate(total - 1) == pytest.approx(0.0048, rel=1e-4)
    assert np.all(np.diff([rate(step) for step in range(10 * epoch, total, 997)]) < 0)
    assert schedule.decay(Clock(total // 2, total, epoch, 1024)) == 1e-6


def test_the_rate_falls_in_steps_where_there_are_milestones() -> None:
    """Revisiting: 35 epochs, warm-up over 5, a tenth after 15 and again after 25."""
    epoch, total = 100, 3500
    schedule = Schedule(**fields_of(load_recipe("resnet50_rotation").schedule))

    def rate(step: int) -> float:
        return schedule.learning_rate(Clock(step, total, epoch, 512))

    assert rate(0) == 0.0
    assert [rate(step) for step in (499, 500, 1499)] == pytest.approx([0.2] * 3)
    assert [rate(step) for step in (1500, 2499)] == pytest.approx([0.02] * 2)
    assert [rate(step) for step in (2500, total - 1)] == pytest.approx([0.002] * 2)


def test_weight_decay_follows_a_cosine_where_it_has_an_end() -> None:
    schedule = Schedule(base_rate=1.0, weight_decay=0.04, weight_decay_end=0.4)
    values = [schedule.decay(Clock(step, 100, 10, 8)) for step in (0, 50, 100)]
    assert values == pytest.approx([0.04, 0.22, 0.4])


def test_both_are_set_on_the_groups_that_want_them() -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Linear(2, 2))
    optimizer = LARS(parameter_groups(network))
    schedule = Schedule(base_rate=0.5, weight_decay=0.1, warmup=Duration(0, "steps"))
    assert schedule.apply(optimizer, Clock(0, 10, 10, 512)) == (1.0, 0.1)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(1.0, 0.1), (1.0, 0.0), (1.0, 0.0)]
