"""A trainer of any method, small, whose steps tests take one by one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from lightssl.backbones.base import Backbone
from lightssl.backbones.mobilenetv2 import MobileNetV2
from lightssl.data.loader import BadImages
from lightssl.methods import METHODS
from lightssl.optim import parameter_groups
from lightssl.runs import Run
from lightssl.train import OPTIMIZERS
from lightssl.train.loop import Plan, Trainer
from lightssl.train.schedule import Schedule
from lightssl.types import Batch
from lightssl.units import Duration

BATCH = 4
OPTIONS: dict[str, dict[str, Any]] = {
    "dino": {"hidden": 16, "bottleneck": 8, "prototypes": 12},
    "swav": {"hidden": 16, "bottleneck": 8, "prototypes": 12, "queue": 8, "queue_start": Duration(1, "steps")},
    "mocov2": {"hidden": 16, "bottleneck": 8, "queue": 8},
    "simsiam": {"width": 16, "predictor_hidden": 8},
    "simclr": {"hidden": 16, "bottleneck": 8},
    "rotation": {},
    "exemplar": {"width": 8},
    "relative_patch": {"width": 8, "hidden": 16, "patch": 3},
    "jigsaw": {"width": 8, "hidden": 16, "patch": 3, "orders": 10},
}


@pytest.fixture(scope="session")
def host() -> Fabric:
    """One process on the CPU."""
    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture(scope="session")
def make_trainer() -> Callable[..., Trainer]:
    """Build a trainer of a method with a probe; equal calls give equal weights."""

    def make(
        name: str,
        fabric: Any,
        *,
        backbone: Backbone | None = None,
        optimizer: str = "sgd",
        architecture: Any = None,
        **options: Any,
    ) -> Trainer:
        torch.manual_seed(0)
        method = METHODS[name](backbone or MobileNetV2(width=0.25), (0.4, 0.6), **OPTIONS[name])
        method.attach_probe(3)
        return Trainer(
            method,
            OPTIMIZERS[optimizer](parameter_groups(method, leave_out=architecture.parameters if architecture else ())),
            Schedule(base_rate=0.64),
            fabric=fabric,
            run=Run(Path("unused")),
            recipe={},
            plan=Plan(total_steps=10, steps_per_epoch=2, batch_size=BATCH, log_every=1, checkpoint_every=1),
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            seed=0,
            bad_images=BadImages(BATCH),
            max_bad_share=0.0,
            labels=torch.arange(BATCH) % 3,
            architecture=architecture,
            **options,
        )

    return make


@pytest.fixture
def draw_batch() -> Callable[[int], Batch]:
    """Draw the batch of a step: two global views of 40 pixels and two local ones of 32."""

    def draw(step: int) -> Batch:
        generator = torch.Generator().manual_seed(step)
        views = [
            torch.randint(256, (2, BATCH, size, size, 3), dtype=torch.uint8, generator=generator) for size in (40, 32)
        ]
        return Batch(views, torch.arange(BATCH))

    return draw


@pytest.fixture
def losses_of(draw_batch: Callable[[int], Batch]) -> Callable[..., list[float]]:
    """Train for some steps, long enough for the queues to take part, and return the loss of each."""

    def train(trainer: Trainer, steps: int = 4) -> list[float]:
        losses = []
        trainer.method.train()
        for step in range(steps):
            clock = trainer.plan.clock(step)
            trainer.schedule.apply(trainer.optimizer, clock)
            losses.append(trainer.train_step(draw_batch(step), clock).loss.item())
        return losses

    return train
