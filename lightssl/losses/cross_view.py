"""Cross entropy between what one view is assigned to and what another view predicts: the loss of DINO and of SwAV."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lightssl.losses.balance import balanced_pairs


def cross_view_entropy(
    scores: Tensor, targets: Tensor, *, global_views: int, temperature: float, weights: tuple[float, float]
) -> Tensor:
    """Cross entropy of every view's prediction with the target of every other global view.

    Args:
        scores: [V, B, K], what each view predicts, before the softmax; the global views first.
        targets: [T, B, K], probabilities for the first T global views, without gradient.
        global_views: G >= T, how many of the V views are global.
        temperature: Of the softmax over ``scores``.
        weights: Of the mean global-global and the mean global-local term.

    Returns:
        The scalar loss; ``log K`` when predictions and targets are uniform.
    """
    log_probabilities = F.log_softmax(scores.float() / temperature, dim=-1)
    # [T, V], mean over the batch. A matrix product would be one running sum of B * K numbers, and lose digits.
    terms = -torch.stack([(target * log_probabilities).sum(dim=-1).mean(dim=-1) for target in targets])
    return balanced_pairs(terms, global_views, weights)
