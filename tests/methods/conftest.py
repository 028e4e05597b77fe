"""A tiny backbone that remembers what it saw, and methods around it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightssl.backbones.base import Backbone, Stage
from lightssl.methods import METHODS
from lightssl.methods.base import Method
from lightssl.types import Clock
from lightssl.units import Duration

# Options of every registered method at a tiny size.
OPTIONS: dict[str, dict[str, Any]] = {
    "dino": {"hidden": 16, "bottleneck": 8, "prototypes": 12},
    "swav": {"hidden": 16, "bottleneck": 8, "prototypes": 12, "queue": 8, "queue_start": Duration(2, "steps")},
    "mocov2": {"hidden": 16, "bottleneck": 8, "queue": 12, "momentum": 0.9},
    "simsiam": {"width": 16, "predictor_hidden": 8},
    "simclr": {"hidden": 16, "bottleneck": 8},
    "rotation": {},
    "exemplar": {"width": 8},
    "relative_patch": {"width": 8, "hidden": 16, "patch": 3},
    "jigsaw": {"width": 8, "hidden": 16, "patch": 3, "orders": 10},
}


class TinyBackbone(Backbone):
    """One convolution with batch norm. ``seen`` holds the images [B, 3, H, W] of every forward."""

    feature_width = 6
    stages = (Stage(6, 1),)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach())
        return self.feature_maps(images)[0].mean((2, 3))

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        return [self.norm(self.conv(images)).relu()]


def build_tiny(name: str, weights: tuple[float, float] = (0.4, 0.6), **options: Any) -> Method:
    """Build a registered method, tiny, in training mode; equal calls give equal weights."""
    torch.manual_seed(0)
    method: Method = METHODS[name](TinyBackbone(), weights, **(OPTIONS[name] | options))
    return method.train()


@pytest.fixture
def backbone() -> TinyBackbone:
    torch.manual_seed(0)
    return TinyBackbone()


@pytest.fixture(scope="session")
def build() -> Callable[..., Method]:
    return build_tiny


@pytest.fixture
def draw_views() -> Callable[..., list[Tensor]]:
    """Draw noise on a colour of each image: global views of 12 pixels, local ones of 7. Equal seeds, equal views."""

    def draw(seed: int = 0, *, images: int = 4, global_views: int = 2, local_views: int = 6) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        colours = torch.randn(images, 3, 1, 1, generator=generator)
        sizes = [(global_views, 12), (local_views, 7)]
        return [
            colours + torch.randn(count, images, 3, size, size, generator=generator) for count, size in sizes if count
        ]

    return draw


@pytest.fixture
def at() -> Callable[..., Clock]:
    """The clock at a step of a training of 10 steps, 5 an epoch, with 4 images a batch."""

    def clock(step: int = 0, *, total: int = 10, epoch: int = 5, batch: int = 4) -> Clock:
        return Clock(step, total, epoch, batch)

    return clock


@pytest.fixture
def follow() -> Callable[..., list[float]]:
    """Train a method as the training loop does, by SGD; return the loss of every step."""

    def train(
        method: Method,
        batches: list[list[Tensor]],
        at: Callable[[int], Clock],
        *,
        start: int = 0,
        rate: float = 0.1,
    ) -> list[float]:
        optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=rate)
        losses = []
        for step, views in enumerate(batches, start):
            torch.manual_seed(step)  # what a method draws depends on the step alone
            output = method(views, at(step))
            optimizer.zero_grad(set_to_none=True)
            output.loss.backward()
            method.after_backward(at(step))
            optimizer.step()
            method.after_step(at(step))
            losses.append(output.loss.item())
        return losses

    return train
