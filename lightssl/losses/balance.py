"""The balance of global and local terms, which every multi-crop method shares."""

from torch import Tensor


def balanced_mean(terms: Tensor, is_global: Tensor, weights: tuple[float, float]) -> Tensor:
    """Weigh the mean of the global-global terms against the mean of the global-local terms.

    SSLight: ``w_global * mean(global-global) + w_local * mean(global-local)``. With the weights of ``balance: pairs``
    this is the plain mean over all terms.

    Args:
        terms: [P], one loss term for each compared pair of views.
        is_global: bool [P], whether both views of the pair are global.
        weights: ``(w_global, w_local)``; a kind without terms is left out.
    """
    loss = terms.new_zeros(())
    for weight, chosen in zip(weights, (is_global, ~is_global), strict=True):
        if chosen.any():
            loss = loss + weight * terms[chosen].mean()
    return loss
