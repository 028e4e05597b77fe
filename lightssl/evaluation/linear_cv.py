"""A linear classifier on frozen features, its settings cross-validated, as One Network Doesn't Rule Them All has it.

The protocol of that paper (arXiv 2203.08130) is 31 trainings by SGD. Those with steps of as many images run side by
side: a step gathers the images of each fold once, and is two matrix products for all settings of a fold. The gradient
of a softmax is written out, so that nothing is kept for autograd.
"""

from collections.abc import Sequence
from itertools import product
from math import ceil
from statistics import fmean
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge, MinLen
from torch import Tensor

from lightssl.evaluation.features import Features
from lightssl.evaluation.held_out import fold_numbers
from lightssl.evaluation.minibatches import Standardised, minibatches
from lightssl.schedules import cosine
from lightssl.types import NonNegative, Positive, PositiveInt, Share

_ROWS = 8192  # features that are named at a time


def linear_cv_accuracy(
    features: Features,
    *,
    seed: int = 0,
    folds: Annotated[int, Ge(2)] = 3,
    weight_decays: Annotated[Sequence[NonNegative], MinLen(1)] = (0.0, 1e-5, 1e-4, 1e-3),
    batch_sizes: Annotated[Sequence[PositiveInt], MinLen(1)] = (128, 256, 512),
    learning_rates: Annotated[Sequence[Positive], MinLen(1)] = (5.0, 20.0),
    epochs: PositiveInt = 100,
    momentum: Share = 0.9,
) -> dict[str, Any]:
    """Name each test image by a linear classifier whose settings cross-validation on the training images chose.

    SGD with Nesterov momentum from weights of zero, the learning rate falling to 0 along a cosine, step by step. First
    the weight decay is chosen, then batch size and learning rate together, at that weight decay; with them a classifier
    is trained on all training images. The released code does not shuffle the folds; here the seed draws them.

    Two things are not published, as far as is known, and are settled here. While the weight decay is chosen, steps have
    the middle one of the batch sizes, 256 images, and the lowest learning rate. Features are standardised, and divided
    by the root of their width, so that one learning rate is right for networks of all widths.

    Args:
        features: Of both sets.
        seed: Draws the folds, and the order of images.
        folds: Parts of the training images. Each is named by classifiers that were trained on the others.
        weight_decays: To choose from, of the weights; the bias does not decay. Of equally good settings the first is
            taken.
        batch_sizes: To choose from: images of a step, or all there are.
        learning_rates: To choose from, at the start.
        epochs: Passes over the training images.
        momentum: Of SGD.

    Returns:
        ``top1`` in percent; the chosen ``weight_decay``, ``batch_size`` and ``learning_rate``; ``cv_top1``, the
        percentage with which they were chosen, a mean over folds; ``folds``; ``epochs``; ``test_images``.

    Raises:
        DataError: Fewer than two classes, a class with fewer training images than folds, or a test class that no
            training image shows.
    """
    features.require_known_classes()
    labels, classes = features.train_labels, len(features.classes)
    parts = split_by_fold(features.train, labels, fold_numbers(labels, folds, seed=seed))

    def train(x: Tensor, y: Tensor, settings: Sequence[Setting], batch_size: int) -> Tensor:
        return train_classifiers(
            x, y, classes, settings, batch_size=batch_size, epochs=epochs, momentum=momentum, seed=seed
        )

    def validate(settings: Sequence[Setting], batch_size: int) -> list[float]:
        """Return top-1 of each setting, a mean over folds."""
        of_folds = [
            row
            for part in parts
            for row in _top1(train(part.train, part.train_labels, settings, batch_size), *part.held_out)
        ]
        return [fmean(column) for column in zip(*of_folds, strict=True)]

    scores = validate(
        [Setting(weight_decay, min(learning_rates)) for weight_decay in weight_decays],
        sorted(batch_sizes)[len(batch_sizes) // 2],
    )
    weight_decay = weight_decays[scores.index(max(scores))]
    settings = [Setting(weight_decay, learning_rate) for learning_rate in learning_rates]
    scores = [score for batch_size in batch_sizes for score in validate(settings, batch_size)]
    best = scores.index(max(scores))
    batch_size, setting = list(product(batch_sizes, settings))[best]

    standardised = Standardised.of(features.train)
    classifier = train(_coordinates(features.train, standardised)[None], labels[None], [setting], batch_size)
    ((top1,),) = _top1(classifier, _coordinates(features.test, standardised)[None], features.test_labels[None])
    return {
        "top1": top1,
        "weight_decay": weight_decay,
        "batch_size": batch_size,
        "learning_rate": setting.learning_rate,
        "cv_top1": scores[best],
        "folds": folds,
        "epochs": epochs,
        "test_images": len(features.test),
    }


class Setting(NamedTuple):
    """In what trainings differ that run side by side."""

    weight_decay: float
    learning_rate: float


class Part(NamedTuple):
    """Folds of one size, F of them: what classifiers are trained on, N images each, and M that they are to name."""

    train: Tensor  # [F, N, D + 1]: standardised, divided by the root of the width, and a last coordinate of 1
    train_labels: Tensor  # int64 [F, N]
    held_out: tuple[Tensor, Tensor]  # [F, M, D + 1] as the training images are standardised, and labels, int64 [F, M]


def split_by_fold(features: Tensor, labels: Tensor, fold: Tensor) -> list[Part]:
    """Split features so that each fold is held out once.

    Sizes of folds may differ. Those of one size are trained side by side, in as many steps; other sizes have a schedule
    of their own, so that no image is left out or counted twice.

    Args:
        features: float32 ``[N, D]``.
        labels: int64 ``[N]``.
        fold: The fold of each image, int64 ``[N]``, from 0.

    Returns:
        Folds by their sizes, the smallest first. Held-out images play no part in how features are standardised.
    """
    by_size: dict[int, list[Tensor]] = {}
    for number, size in enumerate(fold.bincount().tolist()):
        by_size.setdefault(size, []).append(fold == number)
    return [_part(features, labels, masks) for _, masks in sorted(by_size.items())]


def _part(features: Tensor, labels: Tensor, masks: Sequence[Tensor]) -> Part:
    standardised = [Standardised.of(features[~mask]) for mask in masks]
    train, held_out = (
        torch.stack([_coordinates(features[rows], one) for rows, one in zip(which, standardised, strict=True)])
        for which in ([~mask for mask in masks], masks)
    )
    return Part(
        train,
        torch.stack([labels[~mask] for mask in masks]),
        (held_out, torch.stack([labels[mask] for mask in masks])),
    )


def _coordinates(features: Tensor, standardised: Standardised) -> Tensor:
    """Return what classifiers take, [N, D + 1]; the last coordinate, of 1, stands for the bias."""
    x = standardised(features) / features.shape[1] ** 0.5
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)


def train_classifiers(
    x: Tensor,
    labels: Tensor,
    classes: int,
    settings: Sequence[Setting],
    *,
    batch_size: int,
    epochs: int,
    momentum: float,
    seed: int,
) -> Tensor:
    """Train a linear classifier for each fold and setting, side by side, as ``torch.optim.SGD`` would one by one.

    Args:
        x: Features of F folds, ``[F, N, D + 1]``; the last coordinate is 1, and its weight, the bias, does not decay.
        labels: int64 ``[F, N]``, below ``classes``.
        classes: C.
        settings: S of them.
        batch_size: Images of a step, or all there are; the last step of an epoch may have fewer.
        epochs: Passes over the images.
        momentum: Nesterov's.
        seed: Draws the order of images, the same positions in every fold.

    Returns:
        Weights ``[F, S, C, D + 1]``.
    """
    folds, count, width = x.shape
    # The classes of all settings are rows of one matrix: a single product of it and a batch is that of all trainings of
    # a fold. Images come last, because a softmax over rows that short takes longer than the product.
    decay, rate = (x.new_tensor(column).repeat_interleave(classes)[:, None] for column in zip(*settings, strict=True))
    decay, rate = decay.repeat(1, width), rate.repeat(1, width)
    decay[:, -1] = 0
    weight = x.new_zeros(folds, len(settings) * classes, width)
    velocity = torch.zeros_like(weight)
    steps = epochs * ceil(count / batch_size)
    for step, rows in enumerate(minibatches(count, batch_size, epochs, torch.Generator().manual_seed(seed))):
        here = rows.to(x.device)
        batch, truth = x.index_select(1, here), labels.index_select(1, here)
        residual = torch.bmm(weight, batch.mT).unflatten(1, (-1, classes)).softmax(dim=2)
        true_class = truth[:, None, None].expand(-1, len(settings), -1, -1)
        residual.scatter_add_(2, true_class, residual.new_tensor(-1.0).expand_as(true_class))
        gradient = torch.bmm(residual.flatten(1, 2), batch).div_(len(rows)).addcmul_(weight, decay)
        velocity.mul_(momentum).add_(gradient)
        gradient.add_(velocity, alpha=momentum)
        weight.addcmul_(gradient, rate, value=-cosine(1.0, 0.0, step / steps))
    return weight.unflatten(1, (-1, classes))


def _top1(weight: Tensor, x: Tensor, labels: Tensor) -> list[list[float]]:
    """Return the percentage of images [F, M, D + 1] that weights [F, S, C, D + 1] name right: F lists of S."""
    settings, classes = weight.shape[1:3]
    right = torch.zeros(len(x), settings, dtype=torch.int64, device=x.device)
    for rows, truth in zip(x.split(_ROWS, dim=1), labels.split(_ROWS, dim=1), strict=True):
        named = torch.bmm(weight.flatten(1, 2), rows.mT).unflatten(1, (settings, classes)).argmax(dim=2)
        right += (named == truth[:, None]).sum(dim=2)
    return [[100 * count / labels.shape[1] for count in row] for row in right.tolist()]
