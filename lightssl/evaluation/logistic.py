"""Logistic regression on frozen features by a long schedule of SGD, as Revisiting trains it, and how it converges.

Kolesnikov et al. (2019, arXiv 1901.09005) found that accuracy goes on rising for hundreds of epochs, and that short
schedules understate features. ``linear`` solves the same problem to its end; here one sees the way there.
"""

from math import ceil
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lightssl.evaluation.features import Features
from lightssl.evaluation.held_out import accuracy
from lightssl.evaluation.minibatches import Standardised, minibatches
from lightssl.types import NonNegative, Positive, PositiveInt, Share

CURVE_POINTS = 50


def logistic_accuracy(
    features: Features,
    *,
    seed: int = 0,
    epochs: PositiveInt = 500,
    batch_size: PositiveInt = 256,
    learning_rate: Positive = 3.0,
    momentum: Share = 0.9,
    weight_decay: NonNegative = 1e-6,
    decay_at: tuple[Share, Share] = (0.9, 0.95),
) -> dict[str, Any]:
    """Name each test image by a linear classifier that SGD trained on the training features.

    Nothing is chosen: the accuracy is that of the last epoch. Features are standardised, and divided by the root of
    their width, so that one learning rate is right for networks of all widths.

    Args:
        features: Of both sets.
        seed: Draws the order of images.
        epochs: Passes over the training images.
        batch_size: Images of a step.
        learning_rate: At the start.
        momentum: Of SGD.
        weight_decay: Of the weights; the bias does not decay.
        decay_at: Shares of the schedule at which the learning rate is divided by 10.

    Returns:
        ``top1`` in percent; ``curve``, rows of ``epoch``, ``top1`` and ``loss``, the mean cross entropy of the training
        images; ``epochs``; ``weight_decay``; ``test_images``.

    Raises:
        DataError: A test class that no training image shows.
    """
    features.require_known_classes()
    standardised = Standardised.of(features.train)
    train, test = (standardised(x) / x.shape[1] ** 0.5 for x in (features.train, features.test))
    labels, classes = features.train_labels, len(features.classes)
    classifier = nn.Linear(train.shape[1], classes)
    for parameter in classifier.parameters():
        nn.init.zeros_(parameter)
    groups = [
        {"params": [classifier.weight], "weight_decay": weight_decay},
        {"params": [classifier.bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=learning_rate, momentum=momentum)
    steps_per_epoch = ceil(len(train) / batch_size)
    milestones = [round(share * epochs) * steps_per_epoch for share in decay_at]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)
    looked_at = {round(point * epochs / CURVE_POINTS) for point in range(CURVE_POINTS + 1)}

    def look(epoch: int) -> dict[str, float]:
        with torch.inference_mode():
            loss = float(cross_entropy(classifier(train), labels))
            return {
                "epoch": epoch,
                "top1": accuracy(classifier(test).argmax(dim=1), features.test_labels),
                "loss": loss,
            }

    curve = [look(0)]
    order = minibatches(len(train), batch_size, epochs, torch.Generator().manual_seed(seed))
    for step, rows in enumerate(order, 1):
        optimizer.zero_grad()
        cross_entropy(classifier(train[rows]), labels[rows]).backward()
        optimizer.step()
        schedule.step()
        epoch, rest = divmod(step, steps_per_epoch)
        if rest == 0 and epoch in looked_at:
            curve.append(look(epoch))
    return {
        "top1": curve[-1]["top1"],
        "curve": curve,
        "epochs": epochs,
        "weight_decay": weight_decay,
        "test_images": len(test),
    }
