"""What a step does besides running the backbone, counted in operations and bytes: no stray copy, no loop over tensors.

Times would depend on the machine. The bounds leave room for other versions of torch.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightssl.backbones.base import Backbone, Stage
from lightssl.methods import METHODS
from lightssl.train import OPTIMIZERS
from lightssl.train.loop import Trainer
from lightssl.types import Batch

every_method = pytest.mark.parametrize("name", list(METHODS))
# Those that look at the views as they are, and not at turned or cut ones.
plain_method = pytest.mark.parametrize("name", ["dino", "swav", "mocov2", "simsiam", "simclr", "exemplar"])


class Recorder(TorchDispatchMode):
    """Lists the operations of each part of a step, and counts the bytes they write; the backbone's forward apart."""

    def __init__(self) -> None:
        super().__init__()
        self.part = "forward"
        self.operations: dict[str, list[str]] = {"forward": [], "backbone": [], "backward": [], "update": []}
        self.written = dict.fromkeys(self.operations, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.operations[self.part].append(str(func))
            for result in results if isinstance(results, (tuple, list)) else [results]:
                self.written[self.part] += result.nbytes if isinstance(result, Tensor) else 0
        return results


class Layers(Backbone):
    """Linear layers on the mean colour."""

    feature_width = 8
    stages = (Stage(8, 1),)
    recorder: Recorder | None = None

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), *(nn.Linear(8, 8) for _ in range(layers - 1)))

    def forward(self, images: Tensor) -> Tensor:
        before, Layers.recorder.part = Layers.recorder.part, "backbone"
        features = self.layers(images.mean((2, 3)))
        Layers.recorder.part = before
        return features

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        raise NotImplementedError


@pytest.fixture
def record(
    make_trainer: Callable[..., Trainer],
    host: Fabric,
    draw_batch: Callable[[int], Batch],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Recorder]:
    """Record one step, the fourth, for which all state is there."""

    def take(name: str, optimizer: str = "sgd", layers: int = 1) -> Recorder:
        recorder = Layers.recorder = Recorder()
        trainer = make_trainer(name, host, backbone=Layers(layers), optimizer=optimizer)

        def by_part(fabric: Fabric, loss: Tensor) -> None:
            recorder.part = "backward"
            loss.backward()
            recorder.part = "update"

        for step in range(3):
            trainer.train_step(draw_batch(step), trainer.plan.clock(step))
        batch = draw_batch(3)
        monkeypatch.setattr(Fabric, "backward", by_part)
        with recorder:
            trainer.train_step(batch, trainer.plan.clock(3))
        return recorder

    return take


@every_method
def test_a_step_is_some_dozens_of_operations_besides_the_backbone(name: str, record: Callable[..., Recorder]) -> None:
    operations = record(name).operations
    assert 10 < len(operations["forward"]) < 130
    assert 10 < len(operations["backward"]) < 130


@plain_method
def test_views_are_written_by_the_normalisation_alone(
    name: str, record: Callable[..., Recorder], draw_batch: Callable[[int], Batch]
) -> None:
    views = sum(group.numel() for group in draw_batch(0).views) * torch.float32.itemsize
    written = record(name).written["forward"]
    assert 2 * views < written < 3.7 * views  # it converts, multiplies and adds; one more copy would be seen


@every_method
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_the_update_does_not_go_through_parameters_one_by_one(
    name: str, optimizer: str, record: Callable[..., Recorder]
) -> None:
    few, many = (record(name, optimizer, layers).operations["update"] for layers in (1, 30))
    assert few == many
    assert len(few) < 40


def test_one_more_copy_of_the_views_is_noticed(
    record: Callable[..., Recorder], draw_batch: Callable[[int], Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    import lightssl.train.loop as loop

    normalise = loop.normalise
    monkeypatch.setattr(loop, "normalise", lambda *arguments: normalise(*arguments).contiguous())
    with pytest.raises(AssertionError):
        test_views_are_written_by_the_normalisation_alone("dino", record, draw_batch)
