"""The search for heads: what it trains, that it finds what is there to be found, and the images it is given."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import count
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F

from lightssl.backbones.base import Backbone, Stage
from lightssl.chains import OPERATIONS, SEARCHED, Chain
from lightssl.data.loader import BadImages
from lightssl.errors import ConfigError
from lightssl.methods.base import Branch, Method
from lightssl.optim import parameter_groups
from lightssl.runs import Run
from lightssl.search.heads import HeadSearch, genotype, mixed_layers, searched_parts, shares
from lightssl.train import OPTIMIZERS
from lightssl.train.loop import Plan, Trainer
from lightssl.train.schedule import Schedule
from lightssl.types import Batch, Clock, StepOutput

WIDTH, BATCH, STEPS = 12, 64, 150


class Pixels(Backbone):
    """The red pixels of an image, as they are."""

    feature_width = WIDTH
    stages = (Stage(WIDTH, 1),)

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0].flatten(1)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        raise NotImplementedError


class Planted(Method):
    """A layer of all operations that is to compute what one of them does at the start."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.backbone = Pixels()
        self.chain = Chain("projector", layers=1).build(SEARCHED, WIDTH, WIDTH, WIDTH)
        self.given = deepcopy(self.chain[0].operations[name]).requires_grad_(False)

    @property
    def branch(self) -> Branch:
        return Branch(self.backbone, self.chain)

    def step(self, views: Sequence[Tensor], clock: Clock) -> StepOutput:
        features = self.backbone(views[0][0])
        return StepOutput(F.mse_loss(self.chain(features), self.given(features)), features.detach())


def draw(number: int) -> Batch:
    pixels = torch.randint(256, (1, BATCH, 3, WIDTH // 3, 3), generator=torch.Generator().manual_seed(number))
    return Batch([pixels.to(torch.uint8)], torch.arange(BATCH))


def trainer_of(method: Method, search: HeadSearch) -> Trainer:
    def batches(done: int) -> Iterator[Batch]:
        return (draw(10**6 + number) for number in count(done))  # others than the weights see

    steps = search.steps(method, batches)
    return Trainer(
        method,
        OPTIMIZERS["sgd"](parameter_groups(method, leave_out=steps.parameters)),
        Schedule(base_rate=0.4),
        fabric=Fabric(accelerator="cpu", devices=1),
        run=Run(Path("unused")),
        recipe={},
        plan=Plan(total_steps=STEPS, steps_per_epoch=10, batch_size=BATCH, log_every=1, checkpoint_every=1),
        mean=(0.5, 0.5, 0.5),
        std=(0.3, 0.3, 0.3),
        seed=0,
        bad_images=BadImages(BATCH),
        max_bad_share=0.0,
        architecture=steps,
    )


@pytest.mark.parametrize("planted", OPERATIONS)
@pytest.mark.parametrize("optimizer", ["adamw", "adam"])
def test_the_operation_that_was_planted_is_found(planted: str, optimizer: str) -> None:
    torch.manual_seed(0)
    method = Planted(planted)
    trainer = trainer_of(method, HeadSearch(optimizer=optimizer, rate=0.03))
    method.train()
    for step in range(STEPS):
        clock = trainer.plan.clock(step)
        trainer.schedule.apply(trainer.optimizer, clock)
        trainer.architecture_step(draw(10**6 + step), clock)
        trainer.train_step(draw(step), clock)
    assert genotype(shares(method)) == {"projector": planted}
    assert shares(method)["projector.0"][planted] > 0.5


def test_the_weights_optimiser_has_no_architecture_and_the_other_nothing_else() -> None:
    method = Planted("relu")
    trainer = trainer_of(method, HeadSearch())
    held = [
        {id(p) for group in optimizer.param_groups for p in group["params"]}
        for optimizer in (trainer.optimizer, trainer.architecture.optimizer)  # type: ignore[union-attr]
    ]
    architecture = {id(layer.architecture) for layer in mixed_layers(method).values()}
    trained = {id(parameter) for parameter in method.parameters() if parameter.requires_grad}
    assert held == [trained - architecture, architecture]


def test_what_is_logged_are_the_shares_of_every_layer() -> None:
    method = Planted("relu")
    figures = HeadSearch().steps(method, lambda done: ()).figures()
    assert list(figures) == [f"projector.0.{name}" for name in OPERATIONS]
    assert sum(figures.values()) == pytest.approx(1.0)


def test_the_largest_share_is_chosen_in_each_layer() -> None:
    found = {
        "projector.0": {"max": 0.2, "id": 0.5, "elu": 0.3},
        "projector.1": {"max": 0.4, "id": 0.3, "elu": 0.3},
        "predictor.0": {"max": 0.1, "id": 0.2, "elu": 0.7},
    }
    assert genotype(found) == {"projector": "id max", "predictor": "elu"}


def test_a_method_without_chains_has_nothing_to_search() -> None:
    with pytest.raises(ConfigError, match="Planted has no heads that could be searched"):
        searched_parts(Planted)
