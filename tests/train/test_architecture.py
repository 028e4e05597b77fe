"""Architecture parameters are trained in turns with the weights, each on its own images."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import count

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from lightssl.backbones.base import Backbone, Stage
from lightssl.data.embedded import Sample
from lightssl.data.sources import Subset
from lightssl.errors import DataError
from lightssl.methods.base import Method
from lightssl.optim import parameter_groups
from lightssl.train.architecture import ArchitectureSteps, halves
from lightssl.train.loop import Trainer
from lightssl.types import Batch, Clock

LATER = 100  # batches from here on are those of the architecture


class Mixed(Backbone):
    """Two linear layers, mixed by a softmax over architecture parameters."""

    feature_width = 8
    stages = (Stage(8, 1),)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 8) for _ in range(2))
        self.mixture = nn.Parameter(torch.zeros(2))

    def forward(self, images: Tensor) -> Tensor:
        outputs = torch.stack([layer(images.mean((2, 3))) for layer in self.layers])
        return torch.einsum("o,obd->bd", self.mixture.softmax(0), outputs)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        raise NotImplementedError


@pytest.fixture
def make(
    make_trainer: Callable[..., Trainer], host: Fabric, draw_batch: Callable[[int], Batch]
) -> Callable[..., Trainer]:
    def build(name: str, **options: object) -> Trainer:
        torch.manual_seed(0)
        backbone = Mixed()

        def batches(done: int) -> Iterator[Batch]:
            return (draw_batch(LATER + number) for number in count(done))

        steps = ArchitectureSteps(
            [backbone.mixture], torch.optim.AdamW([backbone.mixture], lr=0.01), batches, **options
        )
        return make_trainer(name, host, backbone=backbone, architecture=steps)

    return build


def snapshot(method: Method) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in method.named_parameters()}


def changed(before: dict[str, Tensor], method: Method) -> set[str]:
    return {name for name, parameter in method.named_parameters() if not torch.equal(parameter, before[name])}


@pytest.mark.parametrize("name", ["dino", "mocov2", "simclr"])
def test_each_step_changes_its_own_parameters_alone(
    name: str, make: Callable[..., Trainer], draw_batch: Callable[[int], Batch]
) -> None:
    trainer = make(name)
    clock = trainer.plan.clock(0)
    trainer.schedule.apply(trainer.optimizer, clock)
    before = snapshot(trainer.method)
    trainer.architecture_step(draw_batch(0), clock)
    (mixture,) = changed(before, trainer.method)
    assert mixture.endswith(".mixture")
    assert mixture.split(".")[0] in ("student", "query", "network")  # not the teacher's or the key's

    before = snapshot(trainer.method)
    trainer.train_step(draw_batch(1), clock)
    assert mixture not in changed(before, trainer.method)
    assert changed(before, trainer.method)


def test_the_gradient_is_that_of_the_objective(
    make: Callable[..., Trainer], draw_batch: Callable[[int], Batch]
) -> None:
    prepared: list[Clock] = []
    gradients = []
    for factor in (1.0, 3.0):
        trainer = make(
            "simclr", prepare=lambda method, clock: prepared.append(clock), objective=lambda x, f=factor: f * x
        )
        trainer.architecture_step(draw_batch(0), trainer.plan.clock(4))
        assert trainer.architecture is not None
        gradients.append(trainer.architecture.parameters[0].grad)
    assert [clock.step for clock in prepared] == [4, 4]
    torch.testing.assert_close(gradients[1], 3 * gradients[0])
    assert gradients[0].abs().max() > 0


def test_steps_are_due_from_the_start_on_and_numbered_on_after_a_stop(make: Callable[..., Trainer]) -> None:
    steps = make("simclr", every=3, start=4).architecture
    assert steps is not None
    assert [step for step in range(12) if steps.due(step)] == [4, 7, 10]
    for step in range(12):
        assert steps.done_before(step) == sum(map(steps.due, range(step)))


def test_the_state_holds_parameters_and_their_averages(
    make: Callable[..., Trainer], draw_batch: Callable[[int], Batch]
) -> None:
    first, second = make("simclr"), make("simclr")
    first.architecture_step(draw_batch(0), first.plan.clock(0))
    assert first.architecture is not None
    assert second.architecture is not None
    second.architecture.load_state_dict(deepcopy(first.architecture.state_dict()))
    second.method.load_state_dict(first.method.state_dict())
    for trainer in (first, second):
        trainer.architecture_step(draw_batch(1), trainer.plan.clock(1))
    torch.testing.assert_close(second.architecture.parameters[0], first.architecture.parameters[0], rtol=0, atol=0)


def test_what_is_left_out_is_in_no_group() -> None:
    network = Mixed()
    kept = {id(p) for group in parameter_groups(network, leave_out=[network.mixture]) for p in group["params"]}
    assert kept == {id(parameter) for parameter in network.parameters()} - {id(network.mixture)}


def test_halves_share_no_image_and_depend_on_the_seed() -> None:
    whole = Subset(Sample("train"), np.arange(101), "some")
    names = [
        [{part.item_name(i) for i in range(len(part))} for part in halves(whole, seed=s, batch_size=8)]
        for s in (0, 0, 1)
    ]
    weights, architecture = names[0]
    assert (len(weights), len(architecture)) == (50, 51)
    assert not weights & architecture
    assert names[1] == names[0]
    assert names[2] != names[0]


def test_halves_that_fill_no_batch_are_refused() -> None:
    whole = Subset(Sample("train"), np.arange(30), "some")
    with pytest.raises(DataError, match=r"a batch of 16 cannot be filled from 15.\n.* --set train.batch_size=8"):
        halves(whole, seed=0, batch_size=16)
