import dataclasses
from collections.abc import Callable, Sequence
from itertools import product
from statistics import fmean

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightssl.errors import DataError
from lightssl.evaluation.features import Features
from lightssl.evaluation.held_out import fold_numbers
from lightssl.evaluation.linear import linear_accuracy
from lightssl.evaluation.linear_cv import Setting, linear_cv_accuracy, split_by_fold, train_classifiers
from lightssl.evaluation.minibatches import minibatches

SHORT = {"epochs": 5, "batch_sizes": (64, 128)}


def by_autograd(
    x: Tensor, labels: Tensor, classes: int, setting: Setting, batch_size: int, epochs: int, seed: int
) -> nn.Linear:
    """Train one classifier on features [N, D] as torch does, in float64."""
    classifier = nn.Linear(x.shape[1], classes, dtype=torch.float64)
    for parameter in classifier.parameters():
        nn.init.zeros_(parameter)
    groups = [
        {"params": [classifier.weight], "weight_decay": setting.weight_decay},
        {"params": [classifier.bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=setting.learning_rate, momentum=0.9, nesterov=True)
    order = list(minibatches(len(x), batch_size, epochs, torch.Generator().manual_seed(seed)))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(order))
    for rows in order:
        optimizer.zero_grad()
        cross_entropy(classifier(x[rows]), labels[rows]).backward()
        optimizer.step()
        schedule.step()
    return classifier


def wide(features: Features) -> Features:
    """The same features in float64."""
    return dataclasses.replace(features, train=features.train.double(), test=features.test.double())


@pytest.mark.parametrize("batch_size", [16, 20, 500], ids=["a last step of fewer", "whole steps", "all at once"])
def test_trainings_side_by_side_are_those_of_torch_one_by_one(batch_size: int) -> None:
    folds, count, width, classes = 3, 60, 7, 4
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(folds, count, width, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (folds, count), generator=generator)
    settings = [Setting(*pair) for pair in product((0.0, 0.01), (0.5, 2.0))]
    with_ones = torch.cat([x, torch.ones(folds, count, 1, dtype=torch.float64)], dim=2)
    found = train_classifiers(
        with_ones, labels, classes, settings, batch_size=batch_size, epochs=6, momentum=0.9, seed=2
    )
    assert found.shape == (folds, len(settings), classes, width + 1)
    for fold, (place, setting) in product(range(folds), enumerate(settings)):
        expected = by_autograd(x[fold], labels[fold], classes, setting, batch_size, 6, seed=2)
        torch.testing.assert_close(found[fold, place, :, :-1], expected.weight.detach(), rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(found[fold, place, :, -1], expected.bias.detach(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("count", [99, 100, 101], ids=["equal folds", "one larger", "two larger"])
def test_what_is_chosen_is_what_training_one_by_one_would_choose(clusters: Callable[..., Features], count: int) -> None:
    features = wide(clusters(spread=3.0, train=count, width=30))
    weight_decays, batch_sizes, learning_rates, epochs = (0.1, 0.0, 0.02), (64, 16, 32), (10.0, 0.5), 6
    labels, fold = features.train_labels, fold_numbers(features.train_labels, 3, seed=1)

    def prepared(x: Tensor, train: Tensor) -> Tensor:
        return (x - train.mean(dim=0)) / train.std(dim=0, correction=0) / 30**0.5

    def top1(train: Tensor, y: Tensor, test: Tensor, truth: Tensor, setting: Setting, batch_size: int) -> float:
        classifier = by_autograd(prepared(train, train), y, 5, setting, batch_size, epochs, seed=1)
        return 100 * float((classifier(prepared(test, train)).argmax(dim=1) == truth).double().mean())

    def score(setting: Setting, batch_size: int) -> float:
        masks = [fold == number for number in range(3)]
        return fmean(
            top1(features.train[~mask], labels[~mask], features.train[mask], labels[mask], setting, batch_size)
            for mask in masks
        )

    first = {weight_decay: score(Setting(weight_decay, 0.5), 32) for weight_decay in weight_decays}
    weight_decay = max(first, key=first.__getitem__)
    second = {
        (batch_size, rate): score(Setting(weight_decay, rate), batch_size)
        for batch_size, rate in product(batch_sizes, learning_rates)
    }
    batch_size, rate = max(second, key=second.__getitem__)
    chosen = Setting(weight_decay, rate)
    assert linear_cv_accuracy(
        features,
        seed=1,
        weight_decays=weight_decays,
        batch_sizes=batch_sizes,
        learning_rates=learning_rates,
        epochs=epochs,
    ) == {
        "top1": pytest.approx(
            top1(features.train, labels, features.test, features.test_labels, chosen, batch_size), abs=1e-9
        ),
        "weight_decay": weight_decay,
        "batch_size": batch_size,
        "learning_rate": rate,
        "cv_top1": pytest.approx(second[batch_size, rate], abs=1e-9),
        "folds": 3,
        "epochs": epochs,
        "test_images": len(features.test),
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_are_as_large_as_each_other_and_so_are_their_classes(seed: int, folds: int) -> None:
    labels = torch.repeat_interleave(torch.arange(5), torch.tensor([5, 0, 11, 50, 101]))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    numbers = fold_numbers(labels, folds, seed=seed)
    assert set(numbers.tolist()) == set(range(folds))
    for counts in (numbers.bincount(), *(numbers[labels == one].bincount(minlength=folds) for one in labels.unique())):
        assert counts.max() - counts.min() <= 1


def test_the_seed_shuffles_the_folds() -> None:
    labels = torch.repeat_interleave(torch.arange(4), 30)  # sorted, as the images of a folder are
    first, again, other = (fold_numbers(labels, 3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    turns = torch.arange(120) % 3
    assert 0.2 < float((first == turns).double().mean()) < 0.5
    assert 0.2 < float((first[1:] == first[:-1]).double().mean()) < 0.5


def test_every_image_is_held_out_once_and_plays_no_part_in_its_fold() -> None:
    generator = torch.Generator().manual_seed(0)
    count, width = 101, 6
    features = torch.randn(count, width, generator=generator, dtype=torch.float64)
    features[:, 0] = torch.arange(count)  # tells images apart
    labels = torch.arange(count) % 4
    parts = split_by_fold(features, labels, fold_numbers(labels, 3, seed=0))
    assert [part.train.shape[:2] for part in parts] == [(1, 68), (2, 67)]
    seen: list[int] = []
    for part in parts:
        of_training, of_held_out = part.train[..., :-1], part.held_out[0][..., :-1]
        torch.testing.assert_close(of_training.mean(dim=1), torch.zeros(len(of_training), width).double())
        std = of_training.std(dim=1, correction=0)
        torch.testing.assert_close(std, torch.full_like(std, width**-0.5))
        assert (of_held_out.mean(dim=1).abs().amax(dim=1) > 0.05).all()
        for x, y in ((part.train, part.train_labels), part.held_out):
            assert (x[..., -1] == 1).all()
            assert x.shape[:2] == y.shape
        for rows, held_out in zip(of_training[..., 0], of_held_out[..., 0], strict=True):
            ranks = torch.cat([rows, held_out]).argsort().argsort()  # images again, by their place among all
            assert sorted(ranks.tolist()) == list(range(count))
            seen += ranks[len(rows) :].tolist()
        for y, held_out in zip(part.train_labels, part.held_out[1], strict=True):
            assert torch.equal(torch.cat([y, held_out]).bincount(), labels.bincount())
    assert sorted(seen) == list(range(count))


def test_classes_that_lie_apart_are_named_without_error(clusters: Callable[..., Features]) -> None:
    found = linear_cv_accuracy(
        clusters(spread=0.05), **SHORT, weight_decays=(1e-4, 0.0), learning_rates=(20.0, 5.0), folds=4
    )
    assert found["top1"] == found["cv_top1"] == 100
    # All settings are equally good.
    assert (found["weight_decay"], found["batch_size"], found["learning_rate"]) == (1e-4, 64, 20.0)
    assert (found["folds"], found["epochs"]) == (4, 5)


def test_it_comes_near_the_solution(clusters: Callable[..., Features]) -> None:
    features = clusters(spread=2.0, train=1000, test=1000)
    found = linear_cv_accuracy(features, epochs=30)
    assert found["top1"] == pytest.approx(float(linear_accuracy(features)["top1"]), abs=1.5)
    assert found["cv_top1"] == pytest.approx(found["top1"], abs=4)


def test_test_labels_change_neither_the_settings_nor_the_predictions(clusters: Callable[..., Features]) -> None:
    features = clusters(spread=2.0)
    permuted = dataclasses.replace(features, test_labels=features.test_labels.roll(7))
    first, second = (linear_cv_accuracy(each, **SHORT) for each in (features, permuted))
    assert first.pop("top1") != second.pop("top1")
    assert first == second


def test_the_seed_decides_all(clusters: Callable[..., Features]) -> None:
    features = clusters(spread=2.0)
    first, again, other = (linear_cv_accuracy(features, **SHORT, seed=seed) for seed in (4, 4, 5))
    assert first == again
    assert first["cv_top1"] != other["cv_top1"]


def test_shuffled_training_labels_leave_chance(clusters: Callable[..., Features]) -> None:
    features = clusters(spread=0.5, train=2000, test=1000, classes=50)
    assert linear_cv_accuracy(features, **SHORT)["top1"] > 95
    shuffled = features.train_labels[torch.randperm(2000, generator=torch.Generator().manual_seed(0))]
    found = linear_cv_accuracy(dataclasses.replace(features, train_labels=shuffled), **SHORT)
    assert found["top1"] == pytest.approx(2, abs=4)
    assert found["cv_top1"] == pytest.approx(2, abs=2)


def test_dimensions_that_never_change_do_no_harm(clusters: Callable[..., Features]) -> None:
    features = clusters(spread=0.1)
    features = dataclasses.replace(features, train=features.train.clone(), test=features.test.clone())
    features.train[:, 0] = features.test[:, 0] = 0
    assert linear_cv_accuracy(features, **SHORT)["top1"] == 100


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0] * 9, "All training images are of one class"),
        ([0, 0, 0, 0, 0, 1, 1, 2, 2], "A class has 2 training images, and there are 3 folds.*or take 2 folds at most"),
        ([0, 0, 0, 0, 0, 0, 1, 1, 2], r"A class has 1 training image, and there are 3 folds.*Give more images of it\."),
    ],
)
def test_too_few_images_of_a_class_are_an_error(labels: Sequence[int], message: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, 4, generator=generator)
    names = [f"class {label}" for label in sorted(set(labels))]
    features = Features(x, torch.tensor(labels), x, torch.tensor(labels), names, torch.arange(9), torch.arange(9))
    with pytest.raises(DataError, match=f"(?s){message}"):
        linear_cv_accuracy(features)
