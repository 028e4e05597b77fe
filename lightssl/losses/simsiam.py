"""SimSiam's loss (Chen and He 2020, arXiv 2011.10566)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lightssl.losses.balance import balanced_pairs


def negative_cosine(predictions: Tensor, projections: Tensor, *, weights: tuple[float, float]) -> Tensor:
    """Negative cosine between every view's prediction and every other global view's projection.

    Args:
        predictions: [V, B, D], the global views first.
        projections: [G, B, D], of the G global views; no gradient reaches them.
        weights: Of the mean global-global and the mean global-local term.

    Returns:
        The scalar loss, from -1 (all views agree) to 1.
    """
    predicted = F.normalize(predictions.float(), dim=-1)
    projected = F.normalize(projections.detach().float(), dim=-1)
    terms = -torch.stack([(target * predicted).sum(dim=-1).mean(dim=-1) for target in projected])  # [G, V]
    return balanced_pairs(terms, len(projections), weights)
