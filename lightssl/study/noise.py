"""What of a table of accuracies is no more than chance: how far seeds move it, and who could be the best in truth.

Chance means the seed of a training. It is taken to move all networks alike, so what seeds show of some counts for all;
and the accuracies of one training in several scenarios together, as they are of the same weights. Which images are in
a test set is not varied.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightssl.study.statistics import LEVEL, RESAMPLES, Floats


@dataclass(frozen=True)
class SeedNoise:
    """How one seed moves the accuracies of a network in S scenarios."""

    covariance: Floats  # [S, S]
    freedom: int  # degrees of freedom that it was estimated with

    @property
    def spread(self) -> Floats:
        """Pooled standard deviation of a seed in each scenario: [S], in percent."""
        return np.sqrt(np.diagonal(self.covariance))

    def draws(self, seeds: Sequence[int], *, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
        """Draw what chance adds to the means of networks over their seeds: [R, N, S].

        From a multivariate t distribution: the fewer seeds there are, the less is known of the noise, and the farther
        it may reach.

        Args:
            seeds: Of each network, how many its means are of: N.
            resamples: R.
            seed: Decides the draws.
        """
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.clip(values, 0, None))  # of the covariance: it may be singular
        random = np.random.default_rng(seed)
        normal = random.normal(size=(resamples, len(seeds), len(root))) @ root.T
        scale = np.sqrt(self.freedom / random.chisquare(self.freedom, size=(resamples, 1, 1)))
        return normal * scale / np.sqrt(np.asarray(seeds, dtype=float))[:, None]


def seed_noise(deviations: Floats, freedom: int) -> SeedNoise | None:
    """Estimate the noise of seeds; None where each network has one seed.

    Args:
        deviations: [D, S], as of :class:`lightssl.study.measured.Measured`.
        freedom: D less the number of means they deviate from.
    """
    if freedom < 1:
        return None
    return SeedNoise(deviations.T @ deviations / freedom, freedom)


def beaten(accuracy: ArrayLike, draws: Floats, *, level: float = LEVEL) -> NDArray[np.bool_]:
    """Mark where a network is beaten by more than chance explains: bool [N, K].

    It is where the best of a column is ahead of it by more than it would be if the network were in truth the best of
    all columns: by multiple comparisons with the best (Hsu 1981), over all networks and columns at once. So of networks
    that are marked nowhere, one is the best of all columns at that level, if there is such a network at all.

    Args:
        accuracy: [N, K].
        draws: [R, N, K]: what chance adds to it.
        level: How sure that is to be.
    """
    table = np.asarray(accuracy, dtype=float)
    scale = np.median(np.abs(draws), axis=(0, 1))  # so that noisy columns do not hide the others
    behind = _in_units(table.max(axis=0) - table, scale)
    by_chance = _in_units(draws.max(axis=1, keepdims=True) - draws, scale).max(axis=2)  # [R, N]
    critical = np.quantile(by_chance, level, axis=0)  # [N]
    found: NDArray[np.bool_] = behind > critical[:, None]
    return found


def surely_below_zero(differences: ArrayLike, draws: Floats, *, level: float = LEVEL) -> NDArray[np.bool_]:
    """Mark differences that are below 0 by more than chance explains, were all of them 0 or above in truth: [P, K].

    Args:
        differences: [P, K], such as the gains of P pairs of networks in K scenarios.
        draws: [R, P, K]: what chance adds to them.
        level: How sure that is to be, of all together.
    """
    scale = np.median(np.abs(draws), axis=(0, 1))
    by_chance = _in_units(-draws, scale).max(axis=(1, 2))  # [R]
    found: NDArray[np.bool_] = _in_units(-np.asarray(differences, dtype=float), scale) > np.quantile(by_chance, level)
    return found


def _in_units(gaps: Floats, scale: Floats) -> Floats:
    """Divide by the scale of each column; where chance moves nothing, any gap is more than chance."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gaps > 0, gaps / scale, 0.0)
