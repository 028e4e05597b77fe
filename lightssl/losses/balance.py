"""The balance of global and local terms, which every multi-crop method shares."""

import torch
from torch import Tensor


def balanced_mean(global_terms: Tensor, local_terms: Tensor, weights: tuple[float, float]) -> Tensor:
    """Weigh the mean of the global-global terms against the mean of the global-local terms.

    SSLight: ``w_global * mean(global-global) + w_local * mean(global-local)``. With the weights of ``balance: pairs``
    this is the plain mean over all terms.

    Args:
        global_terms: One loss term for each compared pair of global views, of any shape.
        local_terms: One for each compared pair of a global and a local view, of any shape.
        weights: ``(w_global, w_local)``; a kind without terms is left out.
    """
    loss = global_terms.new_zeros(())
    for weight, terms in zip(weights, (global_terms, local_terms), strict=True):
        if terms.numel():
            loss = loss + weight * terms.mean()
    return loss


def balanced_pairs(terms: Tensor, global_views: int, weights: tuple[float, float]) -> Tensor:
    """Balance the terms of every global view with every other view.

    Args:
        terms: [T, V], entry (t, v) compares global view t, as target, with view v; the diagonal is left out.
        global_views: G, how many of the V views are global. They come first, and the targets are the first T of them.
        weights: ``(w_global, w_local)``.
    """
    # Slices, not masks: how many entries a mask chooses, the host would have to wait for.
    others = [part for t, row in enumerate(terms[:, :global_views]) for part in (row[:t], row[t + 1 :])]
    return balanced_mean(torch.cat(others), terms[:, global_views:], weights)
