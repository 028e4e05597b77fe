from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch.nn.functional import cross_entropy

from lightssl.evaluation.features import Features
from lightssl.evaluation.logistic import logistic_accuracy
from lightssl.evaluation.logistic_regression import fit_classifiers


def test_a_long_schedule_comes_to_the_solution(clusters: Callable[..., Features]) -> None:
    features = clusters(spread=2.0, train=1000, test=1000)
    # SGD sees features divided by the root of their width, 4: its weights are 4 times as large.
    (solved,) = fit_classifiers(features.train, features.train_labels, 5, [16e-3])
    found = logistic_accuracy(features, weight_decay=1e-3)
    predictions = solved.predict(features.test)
    expected = 100 * float((predictions == features.test_labels).double().mean())
    assert found["top1"] == pytest.approx(expected, abs=0.5)
    logits = features.train @ solved.weight.T + solved.bias
    assert found["curve"][-1]["loss"] == pytest.approx(float(cross_entropy(logits, features.train_labels)), abs=2e-3)


def test_the_curve_shows_the_way_there(clusters: Callable[..., Features]) -> None:
    found = logistic_accuracy(clusters(spread=2.0), epochs=120)
    curve = found["curve"]
    assert (curve[0]["epoch"], curve[-1]["epoch"], len(curve)) == (0, 120, 51)
    assert all(first["epoch"] < second["epoch"] for first, second in pairwise(curve))
    assert curve[-1]["loss"] < curve[10]["loss"] < curve[0]["loss"] == pytest.approx(torch.tensor(5.0).log().item())
    assert found["top1"] == curve[-1]["top1"]


def test_the_seed_decides_the_order_alone(clusters: Callable[..., Features]) -> None:
    features = clusters(spread=2.0)
    first, again, other = (
        logistic_accuracy(features, epochs=3, batch_size=64, seed=seed)["curve"] for seed in (1, 1, 2)
    )
    assert first == again
    assert other[0] == first[0]
    assert other[-1] != first[-1]


def test_fewer_epochs_than_points_of_the_curve_are_shown_each(clusters: Callable[..., Features]) -> None:
    curve = logistic_accuracy(clusters(spread=1.0), epochs=2)["curve"]
    assert [point["epoch"] for point in curve] == [0, 1, 2]
