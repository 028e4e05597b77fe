"""Weighted k-nearest-neighbour classification on frozen features."""

import torch
from torch import Tensor

from lightssl.errors import DataError
from lightssl.evaluation.features import Features


def knn_accuracy(
    features: Features, *, seed: int = 0, k: int = 20, temperature: float = 0.07, chunk: int = 256
) -> dict[str, float | int | str]:
    """Name each test image by a vote of its nearest training images.

    Similarity is the cosine; a neighbour of similarity ``s`` votes for its class with weight ``exp(s / temperature)``
    (Wu et al., CVPR 2018, as DINO evaluates). Exact, and the same for every ``chunk``.

    Args:
        features: Of both sets.
        seed: Taken because every evaluation does; nothing is drawn.
        k: Neighbours that vote.
        temperature: How much nearer neighbours count for more.
        chunk: Test images compared at a time; bounds the memory to ``chunk * N`` similarities.

    Returns:
        ``top1`` in percent, ``k``, ``temperature`` and ``test_images``.

    Raises:
        DataError: Fewer than ``k`` training images, or a test class that no training image shows.
    """
    features.require_known_classes()
    _check_k(k, features)
    correct = 0
    for rows in torch.split(torch.arange(len(features.test)), chunk):
        neighbours, similarity = nearest(features, rows, k)
        # Divided by the largest vote of the row, which leaves the order as it is and cannot overflow.
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = weights.new_zeros(len(rows), len(features.classes))
        votes.scatter_add_(1, features.train_labels[neighbours], weights)
        correct += int((votes.argmax(dim=1) == features.test_labels[rows]).sum())
    total = len(features.test)
    return {"top1": 100 * correct / total, "k": k, "temperature": temperature, "test_images": total}


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
