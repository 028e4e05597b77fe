"""A linear probe on frozen features: multinomial logistic regression, its weight decay chosen on training images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightssl.errors import DataError
from lightssl.evaluation.features import Features
from lightssl.evaluation.logistic_regression import LinearClassifier, fit_classifiers

WEIGHT_DECAYS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
HELD_OUT = 0.2  # share of the training images of each class that chooses the weight decay


def linear_accuracy(
    features: Features, *, seed: int = 0, weight_decays: Sequence[float] = WEIGHT_DECAYS
) -> dict[str, float | int | str]:
    """Name each test image by a linear classifier that was fitted to the training features.

    Args:
        features: Of both sets.
        seed: Draws which training images choose the weight decay.
        weight_decays: To choose from, strong to weak.

    Returns:
        ``top1`` in percent; the chosen ``weight_decay``; ``held_out_top1``, the percentage with which it was chosen;
        ``test_images``.

    Raises:
        DataError: Fewer than two classes, a class with a single training image, or a test class that no training image
            shows.
    """
    features.require_known_classes()
    probe, chosen = fit_probe(features.train, features.train_labels, seed=seed, weight_decays=weight_decays)
    return {
        "top1": _accuracy(probe, features.test, features.test_labels),
        **chosen,
        "test_images": len(features.test),
    }


def fit_probe(
    train: Tensor, labels: Tensor, *, seed: int = 0, weight_decays: Sequence[float] = WEIGHT_DECAYS
) -> tuple[LinearClassifier, dict[str, float]]:
    """Choose a weight decay on a held-out fifth of the training images, then fit to all of them.

    Args:
        train: Features, float32 ``[N, D]``.
        labels: int64 ``[N]``.
        seed: Draws the held-out images, the same share of every class.
        weight_decays: To choose from, strong to weak; the first of equally good ones is taken.

    Returns:
        The classifier, and ``{"weight_decay", "held_out_top1"}``.

    Raises:
        DataError: Fewer than two classes, or a class with a single image.
    """
    held_out = _stratified_mask(labels, seed=seed)
    classes = int(labels.max()) + 1
    tried = fit_classifiers(train[~held_out], labels[~held_out], classes, weight_decays)
    scores = [_accuracy(probe, train[held_out], labels[held_out]) for probe in tried]
    best = scores.index(max(scores))
    chosen = fit_classifiers(train, labels, classes, [weight_decays[best]])[0]
    return chosen, {"weight_decay": weight_decays[best], "held_out_top1": scores[best]}


def _accuracy(probe: LinearClassifier, features: Tensor, labels: Tensor) -> float:
    return 100 * int((probe.predict(features) == labels).sum()) / len(labels)


def _stratified_mask(labels: Tensor, *, seed: int) -> Tensor:
    """Mark the held-out images: bool ``[N]``, at least one and never all of a class."""
    counts = labels.bincount()
    if int((counts > 0).sum()) < 2:
        raise DataError("All training images are of one class.", "A linear probe needs two classes at least.")
    if bool((counts == 1).any()):
        raise DataError(
            "A class has a single training image.",
            "A linear probe needs two images of each class: one to fit to, one to choose the weight decay with.",
        )
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for label in counts.nonzero().flatten():
        members = (labels == label).nonzero().flatten()
        drawn = torch.randperm(len(members), generator=generator)[: max(1, round(HELD_OUT * len(members)))]
        mask[members[drawn]] = True
    return mask
