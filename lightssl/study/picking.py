"""Which network of a study to take for a task that was not in it, by measuring a few of them.

N networks, S scenarios of the study. Some networks are measured on the new task: first a few from best to worst, to see
which scenarios it is like; then those that such scenarios rank high. What is taken in the end was measured.
"""

from collections.abc import Mapping

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

_TRUST = 0.25  # weight of a scenario that nothing is known of yet, where 1 is one that ranks networks alike


def spread(accuracy: ArrayLike, count: int) -> list[int]:
    """Return networks from the best to the worst of the study, evenly over their mean rank.

    Args:
        accuracy: [N, S], higher is better.
        count: How many; all if there are fewer.
    """
    order = _mean_ranks(np.asarray(accuracy, dtype=float)).argsort(kind="stable")
    places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [int(network) for network in order[places]]


def similarity(accuracy: ArrayLike, measured: Mapping[int, float]) -> NDArray[np.float64]:
    """Return how alike each scenario and the new task rank the networks that were measured: Spearman, [S].

    0 where fewer than three were measured, or a scenario cannot tell them apart.

    Args:
        accuracy: [N, S].
        measured: Accuracy on the new task by network.
    """
    table = np.asarray(accuracy, dtype=float)
    if len(measured) < 3:
        return np.zeros(table.shape[1])
    ranked = scipy.stats.rankdata(np.column_stack([table[list(measured)], list(measured.values())]), axis=0)
    centred = ranked - ranked.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=0)
    products = centred[:, :-1].T @ centred[:, -1]
    scale = lengths[:-1] * lengths[-1]
    return np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)


def next_to_measure(accuracy: ArrayLike, measured: Mapping[int, float]) -> int | None:
    """Return the network that is expected to be best of those not measured; None if all are.

    Accuracies are standardised in each scenario, and scenarios count by how alike they have ranked so far.

    Args:
        accuracy: [N, S].
        measured: Accuracy on the new task by network.
    """
    table = np.asarray(accuracy, dtype=float)
    left = [network for network in range(len(table)) if network not in measured]
    if not left:
        return None
    std = table.std(axis=0)
    standardised = np.divide(table - table.mean(axis=0), std, out=np.zeros_like(table), where=std > 0)
    weights = np.maximum(similarity(table, measured), 0) + _TRUST
    expected = standardised @ weights
    return max(left, key=lambda network: expected[network])


def _mean_ranks(table: NDArray[np.float64]) -> NDArray[np.float64]:
    ranks: NDArray[np.float64] = scipy.stats.rankdata(-table, axis=0).mean(axis=1)
    return ranks
