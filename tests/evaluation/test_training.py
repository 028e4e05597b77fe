"""A training that was stopped ends, bit by bit, as one that was not."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from lightssl.errors import LightSSLError
from lightssl.evaluation import training as module
from lightssl.evaluation.training import Training, UnderWay, fingerprint, train
from lightssl.progress import Bar, Silent
from lightssl.types import BadImage

TITLE = "Fine-tuning, 10 % of the labels"


@dataclass
class Step:
    number: int
    bad: list[BadImage] = field(default_factory=list)


@dataclass
class Told(Silent):
    """Remembers lines and looks at the loss, and may stop like a user who presses Ctrl-C."""

    stop_at: int | None = None
    lines: list[str] = field(default_factory=list)
    seen: list[tuple[int, str]] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def work(self, title: str, total: int) -> Iterator[Bar]:
        def bar(done: int, status: str = "") -> None:
            if self.stop_at is not None and done > self.stop_at:
                raise KeyboardInterrupt
            self.seen.append((done, status))

        yield bar


def sgd(network: nn.Module) -> Optimizer:
    return SGD(network.parameters(), lr=0.1, momentum=0.9)


def adamw(network: nn.Module) -> Optimizer:
    return AdamW([{"params": [one], "lr": 0.01 * (1 + place)} for place, one in enumerate(network.parameters())])


def make(optimizer: Callable[[nn.Module], Optimizer] = sgd, *, steps: int = 35, seed: int = 3) -> Training:
    """Return a training whose batches depend on the step, and which draws at random besides."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6(), nn.Dropout(0.3), nn.Conv2d(8, 2, 4)
    )

    def batches(start_step: int) -> Iterator[Step]:
        yield from map(Step, range(start_step, steps))

    def loss(step: Step) -> Tensor:
        images = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(step.number))
        return (network(images).flatten(1) - images.mean(dim=(2, 3))[:, :2]).square().mean()

    return Training(
        network.train(),
        [network],
        optimizer(network),
        batches,
        loss,
        lambda step: 1 - step / steps,
        steps=steps,
        batch_size=6,
        images=60,
        seed=seed,
        device="cpu",
    )


def weights(training: Training) -> list[Tensor]:
    return [tensor.clone() for tensor in training.network.state_dict().values()]


def same(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UnderWay:
    monkeypatch.setattr(module, "_KEEP_EVERY_S", 0.0)
    return UnderWay(tmp_path / "under-way", {"images": ["some", "1234"]})


def stopped(training: Training, kept: UnderWay) -> Training:
    with pytest.raises(KeyboardInterrupt):
        train(training, TITLE, Told(stop_at=20), kept)
    return training


@pytest.mark.parametrize("optimizer", [sgd, adamw])
def test_a_stopped_training_goes_on_to_the_same_end(optimizer: Callable[..., Optimizer], kept: UnderWay) -> None:
    whole = make(optimizer)
    train(whole, TITLE, Silent())
    half = stopped(make(optimizer), kept)
    assert not same(weights(half), weights(whole))
    again, told = make(optimizer), Told()
    train(again, TITLE, told, kept)
    assert told.lines == [f"{TITLE}: going on after step 11 of 35."]
    assert [done for done, _ in told.seen] == [21, 31, 35]
    assert same(weights(again), weights(whole))


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_one_that_is_told_to_stop_keeps_its_last_step(
    asked: signal.Signals, kept: UnderWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEEP_EVERY_S", 1e9)
    bad = BadImage(3, "three.png", "it is empty")

    def of_the_first_step_bad(training: Training) -> Training:
        return replace(training, batches=lambda first: (Step(n, [] if n else [bad]) for n in range(first, 35)))

    def loss(step: Step) -> Tensor:
        if step.number == 14:
            signal.raise_signal(asked)
        return training.loss(step)

    whole = of_the_first_step_bad(make())
    train(whole, TITLE, Silent())
    training, told = of_the_first_step_bad(make()), Told()
    with pytest.raises(KeyboardInterrupt):
        train(replace(training, loss=loss), TITLE, told, kept)
    again = of_the_first_step_bad(make())
    train(again, TITLE, told, kept)
    assert told.lines == [
        f"{TITLE}: stopped after step 15 of 35. The same command goes on.",
        f"{TITLE}: going on after step 15 of 35.",
        "1 training images could not be used; others took their place.",
    ]
    assert same(weights(again), weights(whole))


def test_one_that_is_done_takes_no_step(kept: UnderWay) -> None:
    whole = make()
    train(whole, TITLE, Silent(), kept)
    again = replace(make(), loss=lambda _: pytest.fail("a step was taken"))
    train(again, TITLE, Silent(), kept)
    assert same(weights(again), weights(whole))


def other_start(training: Training) -> Training:
    with torch.no_grad():
        training.network[0].bias[0] += 1
    return training


@pytest.mark.parametrize(
    "other",
    [
        lambda: make(adamw),
        lambda: make(steps=36),
        lambda: make(seed=4),
        lambda: other_start(make()),
        lambda: replace(make(), batch_size=7),
    ],
    ids=["optimizer", "steps", "seed", "start", "batch"],
)
def test_the_state_of_another_training_is_not_gone_on_with(other: Callable[[], Training], kept: UnderWay) -> None:
    whole, told = other(), Told()
    train(whole, TITLE, Silent())
    stopped(make(), kept)
    training = other()
    train(training, TITLE, told, kept)
    assert not told.lines
    assert same(weights(training), weights(whole))


@pytest.mark.parametrize("change", ["images", "title", "damage"])
def test_neither_is_that_of_other_images_or_a_damaged_one(change: str, kept: UnderWay) -> None:
    stopped(make(), kept)
    (path,) = kept.folder.iterdir()
    assert path.name == "fine-tuning-10-of-the-labels.pt"
    if change == "images":
        kept = replace(kept, what={"images": ["some", "1235"]})
    if change == "damage":
        path.write_bytes(path.read_bytes()[:1000])
    told = Told()
    train(make(), "Fine-tuning, 1 % of the labels" if change == "title" else TITLE, told, kept)
    assert not told.lines
    assert told.seen[0][0] == 1


def test_rates_are_shares_of_those_the_optimiser_begins_with(kept: UnderWay) -> None:
    training = make(adamw)
    train(training, TITLE, Silent(), kept)
    last = [group["lr"] for group in training.optimizer.param_groups]
    assert last == pytest.approx([0.01 * (1 + place) / 35 for place in range(len(last))])


def test_a_loss_that_is_not_finite_is_an_error_and_no_state(kept: UnderWay) -> None:
    training = make()
    broken = replace(training, loss=lambda step: training.loss(step) * (float("nan") if step.number > 4 else 1))
    with pytest.raises(LightSSLError, match=r"The loss of step 10 of the training is nan\.\n.*learning_rate"):
        train(broken, TITLE, Silent(), kept)
    again, told = make(), Told()
    train(again, TITLE, told, kept)
    assert told.lines == [f"{TITLE}: going on after step 1 of 35."]


def test_images_that_could_not_be_used_are_counted_once(kept: UnderWay) -> None:
    bad = BadImage(3, "three.png", "it is empty")
    told = Told()
    training = replace(make(), batches=lambda first: [Step(number, [bad]) for number in range(first, 35)])
    train(training, TITLE, told, kept)
    assert told.lines == ["1 training images could not be used; others took their place."]


def test_the_draws_of_others_stay_as_they_were(kept: UnderWay) -> None:
    training = make()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(training, TITLE, Silent(), kept)
    assert torch.equal(torch.rand(3), expected)


def test_fingerprints_tell_numbers_shapes_and_kinds_apart() -> None:
    parts: list[Any] = [torch.arange(6), torch.arange(6).view(2, 3), torch.arange(6.0), torch.arange(6).flip(0)]
    assert len({fingerprint(part) for part in parts}) == 4
    assert fingerprint(parts[0]) == fingerprint(torch.arange(6).numpy())
    assert fingerprint(*parts[:2]) != fingerprint(*parts[1::-1])
    assert fingerprint(torch.arange(6).view(2, 3).t()) == fingerprint(torch.arange(6).view(2, 3).t().contiguous())
