"""Weighted k-nearest-neighbour classification on frozen features."""

from itertools import product
from typing import Annotated, Any

import torch
from annotated_types import MinLen
from torch import Tensor

from lightssl.errors import DataError
from lightssl.evaluation.features import Features
from lightssl.types import Positive, PositiveInt


def knn_accuracy(
    features: Features,
    *,
    seed: int = 0,
    k: PositiveInt | Annotated[list[PositiveInt], MinLen(1)] = 20,
    temperature: Positive | Annotated[list[Positive], MinLen(1)] = 0.07,
    chunk: PositiveInt = 256,
) -> dict[str, Any]:
    """Name each test image by a vote of its nearest training images.

    Similarity is the cosine; a neighbour of similarity ``s`` votes for its class with weight ``exp(s / temperature)``
    (Wu et al., CVPR 2018, as DINO evaluates). Exact, and the same for every ``chunk``.

    Args:
        features: Of both sets.
        seed: Taken because every evaluation does; nothing is drawn.
        k: Neighbours that vote, or several such numbers.
        temperature: How much nearer neighbours count for more, or several such values.
        chunk: Test images compared at a time; bounds the memory to ``chunk * N`` similarities.

    Returns:
        ``top1`` in percent, ``k``, ``temperature`` and ``test_images``. Of several settings it is the first, so that no
        test image chooses among them; ``others`` holds what the rest have, by their names.

    Raises:
        DataError: Fewer than ``k`` training images, or a test class that no training image shows.
    """
    features.require_known_classes()
    ks = k if isinstance(k, list) else [k]
    temperatures = temperature if isinstance(temperature, list) else [temperature]
    most = max(ks)
    _check_k(most, features)
    correct = dict.fromkeys(product(ks, temperatures), 0)
    for rows in torch.split(torch.arange(len(features.test)), chunk):
        neighbours, similarity = nearest(features, rows, most)
        labels = features.train_labels[neighbours]
        for one, warmth in correct:
            # Divided by the largest vote of the row, which leaves the order as it is and cannot overflow.
            weights = ((similarity[:, :one] - similarity[:, :1]) / warmth).exp()
            votes = weights.new_zeros(len(rows), len(features.classes))
            votes.scatter_add_(1, labels[:, :one], weights)
            correct[one, warmth] += int((votes.argmax(dim=1) == features.test_labels[rows]).sum())
    total = len(features.test)
    first, *others = ((setting, 100 * count / total) for setting, count in correct.items())
    found: dict[str, Any] = {"top1": first[1], "k": first[0][0], "temperature": first[0][1], "test_images": total}
    if others:
        found["others"] = {f"k {one}, temperature {warmth:g}": top1 for (one, warmth), top1 in others}
    return found


def nearest(features: Features, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the training images nearest to some test images, by cosine similarity.

    Args:
        features: Of both sets.
        rows: Which rows of ``features.test`` to look up, int64 ``[Q]``.
        k: Neighbours of each.

    Returns:
        Rows of ``features.train``, int64 ``[Q, k]``, the nearest first, and their similarities, float32 ``[Q, k]``.

    Raises:
        DataError: Fewer than ``k`` training images.
    """
    _check_k(k, features)
    similarity, neighbours = (features.test_directions[rows] @ features.train_directions.T).topk(k, dim=1)
    return neighbours, similarity


def _check_k(k: int, features: Features) -> None:
    if not 1 <= k <= len(features.train):
        raise DataError(
            f"{k} neighbours of {len(features.train)} training images were asked for.",
            "Give more training images, or a k between 1 and their number.",
        )
