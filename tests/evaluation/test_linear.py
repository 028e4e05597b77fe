import dataclasses

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from lightssl.evaluation.linear import WEIGHT_DECAYS, fit_probe, linear_accuracy


def test_accuracy_equals_a_direct_fit_with_the_chosen_weight_decay(clusters):
    features = clusters(spread=2.0, train=1000, test=1000)
    result = linear_accuracy(features, seed=1)
    mean, std = features.train.double().mean(0), features.train.double().std(0, correction=0)
    c = 1 / (result["weight_decay"] * len(features.train))
    direct = LogisticRegression(C=c, tol=1e-8, max_iter=5000)
    direct.fit(((features.train - mean) / std).numpy(), features.train_labels.numpy())
    expected = 100 * direct.score(((features.test - mean) / std).numpy(), features.test_labels.numpy())
    assert 50 < expected < 95  # hard enough to tell
    assert result["top1"] == pytest.approx(expected, abs=0.3)
    assert result["test_images"] == 1000


def test_a_weight_decay_that_helps_is_found():
    # As many dimensions as images, one of which tells the classes apart: a weak decay fits the noise.
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 2
    train = torch.randn(200, 200, generator=generator)
    train[:, 0] += 3.0 * labels
    _, chosen = fit_probe(train, labels)
    assert chosen["weight_decay"] > 10 * min(WEIGHT_DECAYS)


def test_test_labels_change_neither_the_setting_nor_the_predictions(clusters):
    features = clusters(spread=2.0)
    permuted = dataclasses.replace(features, test_labels=features.test_labels.roll(7))
    first, second = linear_accuracy(features), linear_accuracy(permuted)
    assert first["top1"] != second["top1"]
    assert {**first, "top1": 0} == {**second, "top1": 0}
    predictions = fit_probe(features.train, features.train_labels)[0].predict(features.test)
    assert second["top1"] == pytest.approx(100 * float((predictions == permuted.test_labels).double().mean()))


def test_the_seed_decides_all(clusters):
    features = clusters(spread=2.0)
    assert linear_accuracy(features, seed=4) == linear_accuracy(features, seed=4)
    held_out = {linear_accuracy(features, seed=seed, weight_decays=[0.1])["held_out_top1"] for seed in range(4)}
    assert len(held_out) > 1


def test_dimensions_that_never_change_do_no_harm(clusters):
    features = clusters(spread=0.1)
    features = dataclasses.replace(features, train=features.train.clone(), test=features.test.clone())
    features.train[:, 0] = features.test[:, 0] = 0
    assert linear_accuracy(features)["top1"] == 100


def test_two_images_of_each_class_are_enough():
    train = torch.eye(4).repeat(2, 1)
    probe, _ = fit_probe(train, torch.arange(4).repeat(2))
    assert probe.predict(train).tolist() == [0, 1, 2, 3] * 2
