"""Training images that choose between settings, so that no test image has to."""

import torch
from torch import Tensor

from lightssl.errors import DataError

HELD_OUT = 0.2  # share of the training images of each class


def held_out_mask(labels: Tensor, *, seed: int) -> Tensor:
    """Mark the held-out images: bool ``[N]``, at least one and never all of a class.

    Raises:
        DataError: Fewer than two classes, or a class with a single image.
    """
    counts = _counts(labels)
    if bool((counts == 1).any()):
        raise DataError(
            "A class has a single training image.",
            "A classifier needs two images of each class: one to fit to, one to choose its settings with.",
        )
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for label in counts.nonzero().flatten():
        members = (labels == label).nonzero().flatten()
        drawn = torch.randperm(len(members), generator=generator)[: max(1, round(HELD_OUT * len(members)))]
        mask[members[drawn]] = True
    return mask


def fold_numbers(labels: Tensor, folds: int, *, seed: int) -> Tensor:
    """Deal the images to folds: int64 ``[N]``, from 0. Sizes differ by one at most, and so do the parts of each class.

    Raises:
        DataError: Fewer than two classes, or a class with fewer images than folds.
    """
    counts = _counts(labels)
    least = int(counts[counts > 0].min())
    if least < folds:
        raise DataError(
            f"A class has {least} training image{'s' if least > 1 else ''}, and there are {folds} folds.",
            "Each fold needs an image of every class. Give more images of it"
            + (f", or take {least} folds at most." if least > 1 else "."),
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator).to(labels.device)
    # Class by class, one image to each fold in turn; where one class ends, the next goes on.
    order = shuffled[labels[shuffled].argsort(stable=True)]
    numbers = torch.empty_like(labels)
    numbers[order] = torch.arange(len(labels), device=labels.device) % folds
    return numbers


def _counts(labels: Tensor) -> Tensor:
    """Count the images of each class, int64 ``[C]``; raise DataError when all are of one class."""
    counts = labels.bincount()
    if int((counts > 0).sum()) < 2:
        raise DataError("All training images are of one class.", "A classifier needs two classes at least.")
    return counts


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Return the percentage of images that are named right; both int64 ``[N]``."""
    return 100 * int((predictions == labels).sum()) / len(labels)
