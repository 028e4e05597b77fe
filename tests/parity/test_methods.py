"""Whole trainings, several steps in a row: our loss, averages and queues against those that lightly computes.

lightly gets the outputs of our networks in every step. Its losses take the plain mean over pairs of views.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from lightly.loss import DINOLoss, NTXentLoss, SwaVLoss
from lightly.models.modules.memory_bank import MemoryBankModule
from lightly.models.utils import update_momentum
from torch import Tensor, nn

from lightssl.backbones.mobilenetv2 import MobileNetV2
from lightssl.methods import METHODS
from lightssl.types import Clock, StepOutput
from lightssl.units import Duration

BATCH, STEPS = 4, 8
PAIRS = (1 / 3, 2 / 3)  # of two global and two local views


def outputs_of(branch: nn.Module) -> list[Tensor]:
    """Collect the head's outputs [V, B, K] of a branch from now on."""
    collected: list[Tensor] = []
    branch.register_forward_hook(lambda _module, _inputs, output: collected.append(output[1].detach()))
    return collected


@pytest.fixture
def build() -> Callable[..., Any]:
    def method(name: str, **options: Any) -> Any:
        torch.manual_seed(0)
        return METHODS[name](MobileNetV2(width=0.25), PAIRS, bottleneck=8, **options).train()

    return method


@pytest.fixture
def steps() -> Callable[..., Iterator[tuple[Clock, StepOutput]]]:
    """Train on other random views in every step; yield between the method's two halves of a step."""

    def train(method: Any) -> Iterator[tuple[Clock, StepOutput]]:
        optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
        for step in range(STEPS):
            clock = Clock(step, STEPS, steps_per_epoch=3, batch_size=BATCH)
            output = method([torch.randn(2, BATCH, 3, 32, 32), torch.randn(2, BATCH, 3, 24, 24)], clock)
            optimizer.zero_grad(set_to_none=True)
            output.loss.backward()
            method.after_backward(clock)
            optimizer.step()
            yield clock, output
            method.after_step(clock)

    return train


def test_dino(build: Callable[..., Any], steps: Callable[..., Any]) -> None:
    method = build("dino", hidden=16, prototypes=12, teacher_momentum=0.9, teacher_momentum_end=0.9)
    teacher, student = outputs_of(method.teacher), outputs_of(method.student)
    theirs = DINOLoss(12)
    average = copy.deepcopy(method.student)
    for parameter, other in zip(average.parameters(), method.teacher.parameters(), strict=True):
        assert torch.equal(parameter, other)
    for _, output in steps(method):
        for parameter, other in zip(average.parameters(), method.teacher.parameters(), strict=True):
            torch.testing.assert_close(other, parameter, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(method.center, theirs.center[0, 0], rtol=1e-5, atol=1e-6)
        loss = theirs(list(teacher[-1]), list(student[-1]), teacher_temp=output.logs["teacher_temperature"])
        torch.testing.assert_close(output.loss, loss, rtol=1e-5, atol=1e-6)
        update_momentum(method.student, average, 0.9)


def test_swav(build: Callable[..., Any], steps: Callable[..., Any]) -> None:
    method = build("swav", hidden=16, prototypes=12, queue=2 * BATCH, queue_start=Duration(2, "steps"))
    embeddings = outputs_of(method.network)
    prototypes: list[Tensor] = []
    method.prototypes.register_forward_pre_hook(lambda layer, _: prototypes.append(layer.weight.detach().clone()))
    theirs = SwaVLoss()
    banks = [MemoryBankModule((2 * BATCH, 8), feature_dim_first=False) for _ in range(2)]
    for clock, output in steps(method):
        scores = embeddings[-1] @ prototypes[-1].T
        full = clock.step >= 4
        queue = [bank.bank @ prototypes[-1].T for bank in banks] if full else None
        loss = theirs(list(scores[:2]), list(scores[2:]), queue)
        torch.testing.assert_close(output.loss, loss[0], rtol=1e-5, atol=1e-6)
        if clock.step >= 2:
            for bank, latest in zip(banks, embeddings[-1][:2], strict=True):
                bank(latest, update=True)


def test_mocov2(build: Callable[..., Any], steps: Callable[..., Any]) -> None:
    method = build("mocov2", hidden=16, queue=3 * BATCH, momentum=0.9)
    keys, queries = outputs_of(method.key), outputs_of(method.query)
    theirs = NTXentLoss(temperature=0.2, memory_bank_size=(3 * BATCH, 8))
    theirs.memory_bank.bank = method.queue_keys.clone()
    average = copy.deepcopy(method.query)
    for _, output in steps(method):
        for parameter, other in zip(average.parameters(), method.key.parameters(), strict=True):
            torch.testing.assert_close(other, parameter, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(method.queue_keys, theirs.memory_bank.bank, rtol=1e-5, atol=1e-6)
        terms = [theirs(query, keys[-1][0]) for query in queries[-1]]
        torch.testing.assert_close(output.loss, torch.stack(terms).mean(), rtol=1e-5, atol=1e-6)
        theirs.memory_bank(keys[-1][0], update=True)
        update_momentum(method.query, average, 0.9)
