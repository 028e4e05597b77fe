"""A perceptron with one hidden layer on frozen features, its weight decay chosen on training images.

What it gains over a linear probe is what the features hold, but not in the open. Kolesnikov et al. (2019, arXiv
1901.09005) report the same pair, with 1000 hidden units.
"""

from collections.abc import Sequence
from math import ceil
from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW

from lightssl.evaluation.features import Features
from lightssl.evaluation.held_out import accuracy, held_out_mask
from lightssl.evaluation.minibatches import Standardised, minibatches
from lightssl.types import Positive, PositiveInt


def mlp_accuracy(
    features: Features,
    *,
    seed: int = 0,
    hidden: PositiveInt = 1000,
    weight_decays: Annotated[Sequence[Positive], MinLen(1)] = (0.3, 0.03),
    learning_rate: Positive = 1e-3,
    epochs: PositiveInt = 10,
    least_steps: PositiveInt = 1000,
    batch_size: PositiveInt = 256,
) -> dict[str, float | int | str]:
    """Name each test image by a perceptron that was trained on the training features.

    AdamW, the learning rate falling to 0 along a cosine; features are standardised first. The weight decay is chosen on
    a held-out fifth of the training images, then all of them are trained on.

    Args:
        features: Of both sets.
        seed: Draws the held-out images, the start of the perceptron and the order of images.
        hidden: Units of the hidden layer, with ReLU.
        weight_decays: To choose from, of AdamW: a step shrinks weights by ``learning_rate * weight_decay``.
        learning_rate: At the start.
        epochs: Passes over the training images.
        least_steps: More passes where those would be fewer steps, as of few images.
        batch_size: Images of a step.

    Returns:
        ``top1`` in percent; the chosen ``weight_decay``; ``held_out_top1``, the percentage with which it was chosen;
        ``hidden``; ``test_images``.

    Raises:
        DataError: As :func:`lightssl.evaluation.linear.linear_accuracy`.
    """
    features.require_known_classes()
    standardised, labels = Standardised.of(features.train), features.train_labels
    train, test = standardised(features.train), standardised(features.test)
    held_out = held_out_mask(labels, seed=seed)

    def fit(x: Tensor, y: Tensor, weight_decay: float) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        network = _perceptron(x.shape[1], hidden, len(features.classes), generator)
        optimizer = AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
        steps_per_epoch = ceil(len(x) / batch_size)
        passes = max(epochs, ceil(least_steps / steps_per_epoch))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, passes * steps_per_epoch)
        for rows in minibatches(len(x), batch_size, passes, generator):
            optimizer.zero_grad()
            cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
        return network

    scores = [
        _score(fit(train[~held_out], labels[~held_out], weight_decay), train[held_out], labels[held_out])
        for weight_decay in weight_decays
    ]
    best = scores.index(max(scores))
    top1 = _score(fit(train, labels, weight_decays[best]), test, features.test_labels)
    chosen = {"weight_decay": weight_decays[best], "held_out_top1": scores[best]}
    return {"top1": top1, **chosen, "hidden": hidden, "test_images": len(test)}


def _perceptron(width: int, hidden: int, classes: int, generator: torch.Generator) -> nn.Sequential:
    first, last = nn.Linear(width, hidden), nn.Linear(hidden, classes)
    for layer in (first, last):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, nn.ReLU(), last)


@torch.inference_mode()
def _score(network: nn.Module, x: Tensor, y: Tensor) -> float:
    return accuracy(network(x).argmax(dim=1), y)
