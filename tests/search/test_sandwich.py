"""Candidates take turns within a step: what is updated is updated once, by the sum of all gradients."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from lightssl.images import normalise
from lightssl.search.sandwich import sandwich
from lightssl.search.spaces import Space
from lightssl.search.supernet import Supernet, activate
from lightssl.train.loop import Trainer
from lightssl.types import Batch, Clock
from tests.train.conftest import draw_batch, host, make_trainer

__all__ = ["draw_batch", "host", "make_trainer"]


def test_the_largest_comes_last_and_the_middle_is_drawn_anew(small: tuple[Space, dict[str, Any]]) -> None:
    space, options = small
    method = torch.nn.Sequential(Supernet(space, **options))
    rule = sandwich(space, middle=2, seed=3)

    def turns(step: int) -> list[str]:
        seen = []
        for prepare in rule(method, Clock(step, 10, 2, 4)):  # type: ignore[arg-type]
            prepare()
            seen.append(str(method[0].active))
        return seen

    first, *middle, last = turns(0)
    assert (first, last) == (str(space.smallest), str(space.largest))
    drawn = space.sample(np.random.default_rng((3, 0)), 2)
    assert middle == [str(space.decode(row)) for row in drawn]
    assert turns(0)[1:-1] == middle
    assert turns(1)[1:-1] != middle


@pytest.mark.parametrize("name", ["dino", "swav", "mocov2", "simsiam", "simclr"])
def test_a_step_adds_up_gradients_and_updates_once(
    name: str,
    small_spaces: dict[str, tuple[Space, dict[str, Any]]],
    make_trainer: Callable[..., Trainer],
    draw_batch: Callable[[int], Batch],
    host: Fabric,
) -> None:
    """Beside a loop written out: gradients of all candidates, one step of the optimiser, one of momentum and queue."""
    space, options = small_spaces["mobilenetv2"]
    rule = sandwich(space, middle=1, seed=0)

    def build(**passes: Any) -> Trainer:
        torch.manual_seed(0)
        return make_trainer(name, host, backbone=Supernet(space, **options), **passes)

    ours, plain = trainers = build(passes=rule), build()
    for step in range(3):
        clock = ours.plan.clock(step)
        for trainer in trainers:
            trainer.method.train()
            trainer.schedule.apply(trainer.optimizer, clock)
        output = ours.train_step(draw_batch(step), clock)
        assert ours.method.encoder.active == space.largest  # type: ignore[attr-defined]

        torch.manual_seed(hash((plain.seed, step, 0)))
        plain.optimizer.zero_grad()
        views = [normalise(group, plain.mean, plain.std) for group in draw_batch(step).views]
        middle = space.decode(space.sample(np.random.default_rng((0, step)), 1)[0])
        for candidate in (space.smallest, middle, space.largest):
            activate(plain.method, candidate)
            expected = plain.method(views, clock, plain.labels)
            (expected.loss + expected.probe_loss).backward()
        plain.method.after_backward(clock)
        plain.optimizer.step()
        plain.method.after_step(clock)
        assert output.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    for (key, value), (_, other) in zip(
        ours.method.state_dict().items(), plain.method.state_dict().items(), strict=True
    ):
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-6, msg=key)
