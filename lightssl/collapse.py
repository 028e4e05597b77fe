"""Indicators of collapse: whether features still tell images apart.

A self-supervised loss can fall while every image gets the same feature (complete collapse) or while features use only a
few directions (dimensional collapse). Neither shows in the loss, so both indicators are logged beside it.
"""

from math import nan

import torch
from torch import Tensor


@torch.no_grad()
def effective_rank(features: Tensor) -> float:
    """How many directions features spread over: RankMe (Garrido et al., ICML 2023, arXiv 2210.02885).

    The exponential of the entropy of the singular values divided by their sum. The features are not centred, as in the
    paper, so the common part of non-negative features counts as one strong direction. At most ``min(N, D)``: compare
    values of the same number of images only.

    Args:
        features: ``[N, D]``, any floating dtype.

    Returns:
        1 when all features point one way, ``D`` when they spread evenly over all directions; 0 when all are zero, and
        nan when one is not finite.
    """
    if not bool(torch.isfinite(features).all()):
        return nan
    singular_values = torch.linalg.svdvals(features.float())
    if singular_values[0] == 0:
        return 0.0
    share = singular_values / singular_values.sum()
    return float(torch.special.entr(share).sum().exp())


@torch.no_grad()
def feature_std(features: Tensor) -> float:
    """Spread of the directions of features, as SimSiam watches it (Chen and He, CVPR 2021, figure 2).

    The standard deviation over images of each dimension of the L2-normalised features, averaged over dimensions and
    multiplied by ``sqrt(D)``, so that the value does not depend on the width.

    Args:
        features: ``[N, D]``, any floating dtype.

    Returns:
        0 when all features point one way, 1 when they spread over all directions alike. Features behind a ReLU share a
        common part and stay below 1 in a healthy network too.
    """
    directions = torch.nn.functional.normalize(features.float(), dim=1)
    return float(directions.std(dim=0, correction=0).mean() * features.shape[1] ** 0.5)
