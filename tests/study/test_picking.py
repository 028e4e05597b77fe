"""Networks for a task that was not studied: found by the scenarios that it is like."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from lightssl.study.picking import next_to_measure, similarity, spread


@pytest.fixture
def accuracy() -> np.ndarray:
    """Forty networks in three scenarios that have nothing to do with each other."""
    return np.random.default_rng(0).normal(60, 5, (40, 3))


def test_the_first_are_from_the_best_to_the_worst(accuracy: np.ndarray) -> None:
    mean_rank = (-accuracy).argsort(axis=0).argsort(axis=0).mean(axis=1)
    chosen = spread(accuracy, 4)
    assert len(set(chosen)) == 4
    assert (mean_rank[chosen[0]], mean_rank[chosen[-1]]) == (mean_rank.min(), mean_rank.max())
    assert sorted(mean_rank[chosen]) == list(mean_rank[chosen])
    assert sorted(spread(accuracy, 100)) == list(range(40))
    assert spread(accuracy, 1) == [int(mean_rank.argmin())]


def test_similarity_is_spearmans_over_those_that_were_measured(accuracy: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    measured = {network: float(rng.normal()) for network in (3, 7, 8, 20, 31)}
    measured[20] = measured[31]  # equals share their rank
    expected = [spearmanr(accuracy[list(measured), one], list(measured.values())).statistic for one in range(3)]
    assert similarity(accuracy, measured) == pytest.approx(expected)
    assert similarity(accuracy, {0: 1.0, 1: 2.0}).tolist() == [0, 0, 0]
    accuracy[:, 1] = 50  # tells no networks apart
    assert similarity(accuracy, measured)[1] == 0


@pytest.mark.parametrize("like", [0, 1, 2])
def test_a_task_that_is_like_a_scenario_has_the_winner_of_it(accuracy: np.ndarray, like: int) -> None:
    task = 0.5 * accuracy[:, like] + 3  # on another scale
    measured = {network: task[network] for network in spread(accuracy, 5)}
    while len(measured) < 10:
        following = next_to_measure(accuracy, measured)
        assert following is not None
        assert following not in measured
        measured[following] = task[following]
    assert max(measured, key=lambda network: measured[network]) == accuracy[:, like].argmax()


def test_what_is_unlike_a_scenario_is_not_chosen_against_it(accuracy: np.ndarray) -> None:
    # Of opposite scenarios nothing is concluded but that they do not count.
    task = -accuracy[:, 0]
    measured = {network: task[network] for network in spread(accuracy, 8)}
    following = next_to_measure(accuracy, measured)
    standardised = (accuracy - accuracy.mean(axis=0)) / accuracy.std(axis=0)
    weights = np.maximum(similarity(accuracy, measured), 0) + 0.25
    assert weights[0] == 0.25
    left = [network for network in range(40) if network not in measured]
    assert following == max(left, key=lambda network: standardised[network] @ weights)


def test_all_are_measured_in_the_end(accuracy: np.ndarray) -> None:
    measured: dict[int, float] = {}
    while (following := next_to_measure(accuracy, measured)) is not None:
        measured[following] = 1.0
    assert len(measured) == 40
