"""What can be said of features without labels: which checkpoint or setting to take when there are none.

Each measure looks at one thing that good features have. None of them sees what the images show: over networks or
methods that differ much, they mislead. They are meant for the checkpoints and settings of one training.
"""

from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn.functional import normalize

from lightssl.collapse import effective_rank
from lightssl.errors import DataError
from lightssl.types import NonNegativeInt, Positive

_FEWEST_IMAGES = 16
_CHUNK = 1024  # images whose distances to all others are in memory at a time


def label_free_measures(
    features: Tensor,
    views: Tensor,
    *,
    seed: int = 0,
    first: NonNegativeInt = 10,
    last: Annotated[int, Ge(2)] = 100,
    temperature: Positive = 2.0,
) -> dict[str, Any]:
    """Measure features of images, and how they change from one view of an image to another.

    Args:
        features: Of N images as an evaluation shows them, ``[N, D]``.
        views: Of two views each of P images, as a training draws them, ``[2, P, D]``.
        seed: Taken because every evaluation does; nothing is drawn.
        first: Eigenvalues that ``alpha`` leaves out, the largest ones.
        last: The last one that it looks at.
        temperature: Of ``uniformity``.

    Returns:
        ``rank``: :func:`lightssl.collapse.effective_rank`, RankMe; higher is better, up to D.
        ``alpha``: :func:`spectral_decay`, alpha-ReQ; near 1 is better. None where there are too few directions.
        ``alignment``: :func:`alignment`; lower is better. ``uniformity``: :func:`uniformity`; lower is better. Each of
        the two is easily had at the cost of the other.
        ``images``: N.

    Raises:
        DataError: There are too few images, or a feature is not finite.
    """
    if len(features) < _FEWEST_IMAGES or views.shape[1] < 2:
        raise DataError(
            f"There are {len(features)} images.", f"Measures without labels need {_FEWEST_IMAGES} or more to mean much."
        )
    if not bool(torch.isfinite(features).all() and torch.isfinite(views).all()):
        raise DataError(
            "Features are not finite.", "The network has diverged, or its batch-norm statistics are damaged."
        )
    return {
        "rank": effective_rank(features),
        "alpha": spectral_decay(features, first=first, last=last),
        "alignment": alignment(views),
        "uniformity": uniformity(features, temperature=temperature),
        "images": len(features),
    }


def spectral_decay(features: Tensor, *, first: int = 10, last: int = 100) -> float | None:
    """How fast the eigenvalues of the covariance of features fall: alpha-ReQ (Agrawal et al., NeurIPS 2022).

    The ``i``-th largest is taken to be ``c * i ** -alpha``, and alpha is fitted to their logarithms with weights
    ``1 / i``, as Stringer et al. (Nature 2019) fit theirs. A smaller alpha spreads the variance over
    more directions; the paper finds features best near 1.

    Args:
        features: ``[N, D]``.
        first: How many of the largest eigenvalues are left out.
        last: The number of the last one that counts; fewer if there are fewer above 0.

    Returns:
        alpha, or None if fewer than two eigenvalues count.
    """
    centred = features.double() - features.double().mean(dim=0)
    eigenvalues = torch.linalg.eigvalsh(centred.T @ centred / len(features)).flip(0)
    kept = eigenvalues[eigenvalues > eigenvalues[0] * 1e-12][first:last]
    if len(kept) < 2:
        return None
    number = torch.arange(1, 1 + len(kept), dtype=torch.float64) + first
    x, y, weight = number.log(), kept.log(), 1 / number
    x, y = (value - (weight * value).sum() / weight.sum() for value in (x, y))
    return float(-(weight * x * y).sum() / (weight * x * x).sum())


def alignment(views: Tensor) -> float:
    """Mean squared distance of the directions of two views of an image (Wang and Isola, ICML 2020).

    Args:
        views: Features, ``[2, P, D]``.

    Returns:
        0 when views do not matter, 2 when those of an image have nothing in common.
    """
    one, other = normalize(views.double(), dim=2)
    return float((one - other).square().sum(dim=1).mean())


def uniformity(features: Tensor, *, temperature: float = 2.0) -> float:
    """How evenly the directions of features cover the sphere (Wang and Isola, ICML 2020).

    The logarithm of the mean of ``exp(-temperature * squared distance)`` over all pairs of different images.

    Args:
        features: ``[N, D]``.
        temperature: The paper's ``t``.

    Returns:
        0 when all point one way; lower when they spread, ``-2 * temperature`` at the least in many dimensions.
    """
    directions = normalize(features.double(), dim=1)
    count, total = len(directions), torch.zeros((), dtype=torch.float64)
    for rows in directions.split(_CHUNK):
        total += (temperature * (2 * rows @ directions.T - 2)).exp().sum()
    return float(((total - count) / (count * (count - 1))).log())  # without the pairs of an image with itself
