"""The balance of global and local terms, which every multi-crop method shares."""

import torch
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


def balanced_pairs(terms: Tensor, global_views: int, weights: tuple[float, float]) -> Tensor:
    """Balance the terms of every global view with every other view.

    Args:
        terms: [T, V], entry (t, v) compares global view t, as target, with view v; the diagonal is left out.
        global_views: G, how many of the V views are global. They come first, and the targets are the first T of them.
        weights: ``(w_global, w_local)``.
    """
    targets, views = terms.shape
    target = torch.arange(targets, device=terms.device)[:, None]
    view = torch.arange(views, device=terms.device)[None, :]
    compared = target != view
    is_global = (view < global_views).expand_as(terms)
    return balanced_mean(terms[compared], is_global[compared], weights)
