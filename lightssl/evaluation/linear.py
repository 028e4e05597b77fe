"""A linear probe on frozen features: multinomial logistic regression, its weight decay chosen on training images."""

from collections.abc import Sequence
from typing import Annotated

from annotated_types import MinLen
from torch import Tensor

from lightssl.evaluation.features import Features
from lightssl.evaluation.held_out import accuracy, held_out_mask
from lightssl.evaluation.logistic_regression import LinearClassifier, fit_classifiers
from lightssl.types import Positive

WEIGHT_DECAYS = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)


def linear_accuracy(
    features: Features, *, seed: int = 0, weight_decays: Annotated[Sequence[Positive], MinLen(1)] = WEIGHT_DECAYS
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
    top1 = accuracy(probe.predict(features.test), features.test_labels)
    return {"top1": top1, **chosen, "test_images": len(features.test)}


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
    held_out = held_out_mask(labels, seed=seed)
    classes = int(labels.max()) + 1
    tried = fit_classifiers(train[~held_out], labels[~held_out], classes, weight_decays)
    scores = [accuracy(probe.predict(train[held_out]), labels[held_out]) for probe in tried]
    best = scores.index(max(scores))
    (chosen,) = fit_classifiers(train, labels, classes, [weight_decays[best]])
    return chosen, {"weight_decay": weight_decays[best], "held_out_top1": scores[best]}
