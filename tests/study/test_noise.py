"""The noise of seeds: how large it is, and what it lets one say."""

import numpy as np
import pytest

from lightssl.study.noise import SeedNoise, beaten, seed_noise, surely_below_zero


def noise_of(table: np.ndarray) -> SeedNoise:
    """From accuracies [N, seeds, S]."""
    networks, seeds, scenarios = table.shape
    deviations = (table - table.mean(axis=1, keepdims=True)).reshape(-1, scenarios)
    found = seed_noise(deviations, networks * (seeds - 1))
    assert found is not None
    return found


def test_the_spread_is_pooled_over_networks() -> None:
    rng = np.random.default_rng(0)
    table = 60 + rng.normal(0, 5, (400, 1, 2)) + rng.normal(0, [0.5, 2.0], (400, 3, 2))
    found = noise_of(table)
    np.testing.assert_allclose(found.spread, [0.5, 2.0], rtol=0.1)
    assert found.freedom == 800
    two = noise_of(np.array([[[50.0], [52.0]], [[70.0], [70.0]]]))
    assert two.spread[0] == pytest.approx(1)  # variances of 2 and 0, one degree of freedom each


def test_one_seed_tells_nothing() -> None:
    assert seed_noise(np.empty((0, 3)), 0) is None


def test_draws_have_the_covariance_of_means_over_seeds() -> None:
    covariance = np.array([[1.0, 0.9], [0.9, 4.0]])
    draws = SeedNoise(covariance, 10_000).draws([1, 4], resamples=20_000)
    assert draws.shape == (20_000, 2, 2)
    np.testing.assert_allclose(np.cov(draws[:, 0].T), covariance, atol=0.15)
    np.testing.assert_allclose(np.cov(draws[:, 1].T), covariance / 4, atol=0.05)
    assert abs(np.corrcoef(draws[:, 0, 0], draws[:, 1, 0])[0, 1]) < 0.03  # networks are independent
    few = SeedNoise(covariance, 2).draws([1, 4], resamples=20_000)
    assert np.quantile(few[:, 0, 0], 0.975) > 1.5 * np.quantile(draws[:, 0, 0], 0.975)


def test_noise_of_one_direction_is_drawn() -> None:
    draws = SeedNoise(np.ones((3, 3)), 100).draws([1])  # singular: all scenarios move together
    np.testing.assert_allclose(draws[..., 0], draws[..., 2], atol=1e-6)
    assert draws.std() > 0.5


def test_the_best_everywhere_is_not_beaten_and_clear_losers_are() -> None:
    draws = SeedNoise(np.eye(2) * 0.01, 50).draws([3, 3, 3])
    found = beaten([[90.0, 80.0], [89.99, 70.0], [60.0, 79.99]], draws)
    np.testing.assert_array_equal(found, [[False, False], [False, True], [True, False]])


def test_a_network_that_is_best_in_truth_is_seldom_called_beaten() -> None:
    """All are equal in truth, so each is among the best: at most one of 20 studies may say otherwise of the first."""
    rng = np.random.default_rng(3)
    networks, seeds, scenarios, trials, wrong = 12, 3, 4, 200, 0
    for trial in range(trials):
        table = rng.normal(0, [1.0, 2.0, 0.5, 1.0], (networks, seeds, scenarios))
        draws = noise_of(table).draws([seeds] * networks, resamples=400, seed=trial)
        wrong += beaten(table.mean(axis=1), draws)[0].any()
    assert wrong / trials < 0.09


def test_without_any_noise_every_difference_counts() -> None:
    draws = SeedNoise(np.zeros((2, 2)), 4).draws([2, 2])
    np.testing.assert_array_equal(beaten([[1.0, 2.0], [1.0, 1.9]], draws), [[False, False], [False, True]])
    assert surely_below_zero([[-0.1]], draws[:, :1, :1]).all()


def test_differences_are_below_zero_only_beyond_what_chance_does_to_any_of_them() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(1000, 50, 4))
    found = surely_below_zero(np.where(np.eye(50, 4) > 0, -6.0, -1.5), draws)
    np.testing.assert_array_equal(found, np.eye(50, 4) > 0)
