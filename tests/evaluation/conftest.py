from collections.abc import Callable

import pytest
import torch

from lightssl import precision
from lightssl.evaluation.features import Features


@pytest.fixture
def clusters() -> Callable[..., Features]:
    """Make features of Gaussian classes; ``spread`` says how much they overlap."""

    def make(*, spread: float, train: int = 600, test: int = 300, width: int = 16, classes: int = 5) -> Features:
        generator = torch.Generator().manual_seed(3)
        centres = torch.randn(classes, width, generator=generator)

        def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
            labels = torch.randint(classes, (count,), generator=generator)
            return centres[labels] + spread * torch.randn(count, width, generator=generator), labels

        (x, y), (x_test, y_test) = draw(train), draw(test)
        names = [f"class {label}" for label in range(classes)]
        return Features(x, y, x_test, y_test, names, torch.arange(train) + 1000, torch.arange(test) + 2000)

    return make


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train as a CPU that does not compute in bfloat16."""
    monkeypatch.setattr(precision, "has_native_bf16", lambda: False)
