import dataclasses

import numpy as np
import pytest
import torch

from lightssl.errors import DataError
from lightssl.evaluation import DETECTIONS, EVALUATIONS, FINE_TUNINGS, LABEL_FREE
from lightssl.evaluation.knn import knn_accuracy, nearest


def brute_force(features, *, k, temperature):
    """The definition, in float64, one image at a time."""
    train, test = features.train.double().numpy(), features.test.double().numpy()
    correct = 0
    for image, label in zip(test, features.test_labels.tolist(), strict=True):
        similarity = train @ image / np.linalg.norm(train, axis=1) / np.linalg.norm(image)
        votes = np.zeros(len(features.classes))
        for neighbour in np.argsort(-similarity)[:k]:
            votes[features.train_labels[neighbour]] += np.exp(similarity[neighbour] / temperature)
        correct += votes.argmax() == label
    return 100 * correct / len(test)


@pytest.mark.parametrize("chunk", [1, 7, 300, 1000])
@pytest.mark.parametrize(("k", "temperature"), [(20, 0.07), (1, 0.07), (50, 1.0)])
def test_accuracy_equals_a_brute_force_reference(clusters, k, temperature, chunk):
    features = clusters(spread=2.5)
    expected = brute_force(features, k=k, temperature=temperature)
    assert 30 < expected < 95  # hard enough to tell
    assert knn_accuracy(features, k=k, temperature=temperature, chunk=chunk)["top1"] == pytest.approx(expected)


def test_several_settings_are_measured_as_each_alone(clusters):
    features = clusters(spread=2.5)
    together = knn_accuracy(features, k=[20, 1, 50], temperature=[0.07, 1.0])
    assert together.pop("others") == {
        f"k {k}, temperature {temperature:g}": knn_accuracy(features, k=k, temperature=temperature)["top1"]
        for k, temperature in [(20, 1.0), (1, 0.07), (1, 1.0), (50, 0.07), (50, 1.0)]
    }
    assert together == knn_accuracy(features, k=20)


def test_classes_that_lie_apart_are_named_without_error(clusters):
    result = EVALUATIONS["knn"](clusters(spread=0.05), seed=0)
    assert result == {"top1": 100.0, "k": 20, "temperature": 0.07, "test_images": 300}


def test_shuffled_training_labels_leave_chance(clusters):
    features = clusters(spread=0.5, train=2000, test=1000)
    shuffled = features.train_labels[torch.randperm(2000, generator=torch.Generator().manual_seed(0))]
    assert knn_accuracy(dataclasses.replace(features, train_labels=shuffled))["top1"] == pytest.approx(20, abs=6)


def test_a_small_temperature_does_not_overflow(clusters):
    features = clusters(spread=2.5)
    assert knn_accuracy(features, temperature=1e-4)["top1"] == knn_accuracy(features, k=1)["top1"]


def test_nearest_finds_an_image_itself_first(clusters):
    features = clusters(spread=1.0)
    features = dataclasses.replace(features, test=features.train[100:400])
    rows = torch.tensor([5, 0, 299])
    neighbours, similarity = nearest(features, rows, 4)
    assert neighbours[:, 0].tolist() == [105, 100, 399]
    torch.testing.assert_close(similarity[:, 0], torch.ones(3))
    assert (similarity.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("k", [0, 601])
def test_a_k_that_the_training_set_cannot_give_is_an_error(clusters, k):
    with pytest.raises(DataError, match=f"{k} neighbours of 600 training images"):
        knn_accuracy(clusters(spread=1), k=k)


@pytest.mark.parametrize(
    "task", [task for task in EVALUATIONS if task not in (*LABEL_FREE, *FINE_TUNINGS, *DETECTIONS)]
)
def test_a_test_class_without_training_images_is_an_error(clusters, task):
    features = clusters(spread=1)
    labels = features.train_labels.clone()
    labels[labels == 3] = 2
    with pytest.raises(DataError, match="No training image shows 'class 3'"):
        EVALUATIONS[task](dataclasses.replace(features, train_labels=labels), seed=0)
