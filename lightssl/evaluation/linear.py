"""A linear probe on frozen features: multinomial logistic regression, its weight decay chosen on training images."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from lightssl.errors import DataError
from lightssl.evaluation.features import Features

# Of the mean cross entropy plus `weight_decay / 2 * |W|^2`. From strong to weak: each fit starts where the last ended.
WEIGHT_DECAYS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
HELD_OUT = 0.2  # share of the training images of each class that chooses the weight decay
PATIENCE = 2  # weaker decays tried in vain after the best; they are the slowest to fit


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
    predictions = probe.predict(features.test.numpy())
    top1 = 100 * float(np.mean(predictions == features.test_labels.numpy()))
    return {"top1": top1, **chosen, "test_images": len(features.test)}


def fit_probe(
    train: Tensor, labels: Tensor, *, seed: int = 0, weight_decays: Sequence[float] = WEIGHT_DECAYS
) -> tuple[Pipeline, dict[str, float]]:
    """Choose a weight decay on a held-out fifth of the training images, then fit to all of them.

    Features are standardised first, each dimension to mean 0 and standard deviation 1 over the images fitted to.

    Args:
        train: Features, float32 ``[N, D]``.
        labels: int64 ``[N]``.
        seed: Draws the held-out images, the same share of every class.
        weight_decays: To choose from, strong to weak. Of equally good ones the first is taken, and the search ends
            when two after the best were no better.

    Returns:
        The classifier, with ``predict(features [M, D])``, and ``{"weight_decay", "held_out_top1"}``.

    Raises:
        DataError: Fewer than two classes, or a class with a single image.
    """
    held_out = _stratified_mask(labels, seed=seed).numpy()
    x, y = train.numpy(), labels.numpy()
    scores = []
    probe = _probe()
    for weight_decay in weight_decays:
        _fit(probe, x[~held_out], y[~held_out], weight_decay)
        scores.append(100 * float(probe.score(x[held_out], y[held_out])))
        best = int(np.argmax(scores))
        if len(scores) > best + PATIENCE:
            break
    chosen = _fit(_probe(), x, y, weight_decays[best])
    return chosen, {"weight_decay": weight_decays[best], "held_out_top1": scores[best]}


def _probe() -> Pipeline:
    # A tenth of scikit-learn's precision takes a fifth of the time; on the sample it moved top-1 by .1 points.
    classifier = LogisticRegression(max_iter=1000, tol=1e-3, warm_start=True)
    return Pipeline([("standardise", StandardScaler()), ("classify", classifier)])


def _fit(probe: Pipeline, x: np.ndarray, y: np.ndarray, weight_decay: float) -> Pipeline:
    # scikit-learn sums the cross entropy over images instead of taking its mean.
    return probe.set_params(classify__C=1 / (weight_decay * len(y))).fit(x, y)


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
