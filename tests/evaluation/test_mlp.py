import dataclasses
from collections.abc import Callable

import pytest
import torch

from lightssl.evaluation.features import Features
from lightssl.evaluation.linear import linear_accuracy
from lightssl.evaluation.mlp import mlp_accuracy


@pytest.fixture
def rings() -> Features:
    """Two classes that differ by the length of their features alone, which no linear classifier can tell."""
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(count) % 2
        directions = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=1)
        return directions * (1 + 2 * labels[:, None]), labels

    (train, train_labels), (test, test_labels) = draw(1000), draw(400)
    return Features(train, train_labels, test, test_labels, ["near", "far"], torch.arange(1000), torch.arange(400))


def test_a_hidden_layer_tells_what_a_linear_probe_cannot(rings: Features) -> None:
    assert linear_accuracy(rings)["top1"] < 65
    assert mlp_accuracy(rings, hidden=64)["top1"] > 95


def test_classes_that_lie_apart_are_named_without_error(clusters: Callable[..., Features]) -> None:
    assert mlp_accuracy(clusters(spread=0.05), hidden=32)["top1"] == 100


def test_the_weight_decay_that_does_better_on_held_out_images_is_taken(clusters: Callable[..., Features]) -> None:
    found = mlp_accuracy(clusters(spread=1.0), hidden=32, weight_decays=[900.0, 0.1])
    assert found["weight_decay"] == 0.1  # the other one shrinks weights to nothing


def test_test_labels_change_neither_the_setting_nor_the_predictions(clusters: Callable[..., Features]) -> None:
    features = clusters(spread=2.0)
    permuted = dataclasses.replace(features, test_labels=features.test_labels.roll(7))
    first, second = (mlp_accuracy(each, hidden=16, least_steps=20, epochs=2) for each in (features, permuted))
    assert first.pop("top1") != second.pop("top1")
    assert first == second


def test_the_seed_decides_all(clusters: Callable[..., Features]) -> None:
    features = clusters(spread=2.0)
    first, again, other = (mlp_accuracy(features, hidden=16, least_steps=20, epochs=2, seed=seed) for seed in (4, 4, 5))
    assert first == again != other


def test_shuffled_training_labels_leave_chance(clusters: Callable[..., Features]) -> None:
    features = clusters(spread=0.5, train=2000, test=1000)
    shuffled = features.train_labels[torch.randperm(2000, generator=torch.Generator().manual_seed(0))]
    found = mlp_accuracy(dataclasses.replace(features, train_labels=shuffled), hidden=32)
    assert found["top1"] == pytest.approx(20, abs=6)
