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
    counts = labels.bincount()
    if int((counts > 0).sum()) < 2:
        raise DataError("All training images are of one class.", "A classifier needs two classes at least.")
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


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Return the percentage of images that are named right; both int64 ``[N]``."""
    return 100 * int((predictions == labels).sum()) / len(labels)
