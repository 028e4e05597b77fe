"""The statistics of a study, against scipy and against planted data whose answer is known."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau, pearsonr, rankdata, spearmanr

from lightssl.errors import LightSSLError
from lightssl.study.grids import basic
from lightssl.study.statistics import (
    Kind,
    correlation_with,
    correlations,
    group_rankings,
    late_early_ratio,
    paired_effect,
    pareto,
    ranks,
    regret_of_one_choice,
    regret_of_winners,
)

SCIPY = {"pearson": pearsonr, "spearman": spearmanr, "kendall": kendalltau}
KINDS: list[Kind] = ["pearson", "spearman", "kendall"]


def accuracies(seed: int = 0, networks: int = 40, scenarios: int = 4) -> np.ndarray:
    """Correlated, and rounded so that there are ties."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(networks, 1))
    return np.round(60 + 3 * shared + rng.normal(0, 2, (networks, scenarios)))


# ---------------------------------------------------------------------------------------------------------- rankings


def test_the_best_is_first_and_equals_share_their_ranks() -> None:
    found = ranks([[90.0, 10.0], [70.0, 30.0], [90.0, 20.0], [50.0, 40.0]])
    np.testing.assert_array_equal(found, [[1.5, 4], [3, 2], [1.5, 3], [4, 1]])


def test_a_network_that_is_best_everywhere_has_no_regret() -> None:
    table = accuracies()
    table[17] = table.max(axis=0) + 1
    chosen = regret_of_one_choice(table)
    assert chosen.network == 17
    np.testing.assert_array_equal(chosen.lost, np.zeros(4))
    for winner in regret_of_winners(table):
        assert winner.network == 17
        np.testing.assert_array_equal(winner.lost, np.zeros(4))


def test_regret_is_what_the_best_has_more() -> None:
    table = [[80.0, 50.0, 10.0], [75.0, 58.0, 30.0], [60.0, 60.0, 31.0]]
    chosen = regret_of_one_choice(table)  # the mean ranks are 7/3, 2 and 5/3
    assert chosen.network == 2
    np.testing.assert_array_equal(chosen.lost, [20, 0, 0])
    found = regret_of_winners(table)
    assert [one.network for one in found] == [0, 2, 2]
    np.testing.assert_array_equal([one.lost for one in found], [[0, 10, 21], [20, 0, 0], [20, 0, 0]])


def test_of_several_winners_the_one_is_taken_that_is_better_elsewhere() -> None:
    first, _ = regret_of_winners([[80.0, 50.0], [80.0, 60.0], [70.0, 65.0]])
    assert first.network == 1
    np.testing.assert_array_equal(first.lost, [0, 5])


# ------------------------------------------------------------------------------------------------------ correlations


@pytest.mark.parametrize("kind", KINDS)
def test_correlations_are_those_of_scipy(kind: Kind) -> None:
    table = accuracies()
    found = correlations(table, kind, resamples=10).values
    expected = [[SCIPY[kind](a, b).statistic for b in table.T] for a in table.T]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert abs(found[0, 1]) < 0.95  # there was something to compute


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_are_percentiles_of_what_scipy_finds_in_each_resample(kind: Kind) -> None:
    table, resamples = accuracies(networks=15, scenarios=2), 60
    found = correlations(table, kind, resamples=resamples, level=0.8, seed=3)
    drawn = np.random.default_rng(3).integers(15, size=(resamples, 15))
    resampled = [SCIPY[kind](*table[rows].T).statistic for rows in drawn]
    low, high = np.quantile(resampled, [0.1, 0.9])
    assert found.low[0, 1] == pytest.approx(low, abs=1e-12)
    assert found.high[0, 1] == pytest.approx(high, abs=1e-12)
    assert found.low[0, 0] == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_networks_of_one_unit_are_drawn_together(kind: Kind) -> None:
    table, resamples = accuracies(networks=20, scenarios=2), 60
    units = [f"unit {place % 8}" for place in range(20)]  # three of some, two of others
    found = correlations(table, kind, units=units, resamples=resamples, level=0.8, seed=3)
    drawn = np.random.default_rng(3).integers(8, size=(resamples, 8))
    rows = [[place for unit in row for place in range(20) if place % 8 == unit] for row in drawn]
    low, high = np.quantile([SCIPY[kind](*table[one].T).statistic for one in rows], [0.1, 0.9])
    assert found.low[0, 1] == pytest.approx(low, abs=1e-12)
    assert found.high[0, 1] == pytest.approx(high, abs=1e-12)
    assert found.values[0, 1] == pytest.approx(SCIPY[kind](*table.T).statistic, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_is_there_twice_tells_nothing_new(kind: Kind) -> None:
    table = accuracies(networks=15)
    once = correlations(table, kind)
    twice = correlations(np.concatenate([table, table]), kind, units=[*range(15), *range(15)])
    for name in ("values", "low", "high"):
        np.testing.assert_allclose(getattr(twice, name), getattr(once, name), atol=1e-12)


def test_two_units_of_many_networks_are_too_few() -> None:
    with pytest.raises(LightSSLError, match="over 2 networks says nothing"):
        correlations(accuracies(networks=10), units=[0, 1] * 5)


@pytest.mark.parametrize("kind", KINDS)
def test_planted_factors_are_found(kind: Kind) -> None:
    """Scenarios 0 and 1 follow one hidden factor, 2 and 3 another that has nothing to do with it."""
    rng = np.random.default_rng(1)
    factors = rng.normal(size=(116, 2))
    table = factors[:, [0, 0, 1, 1]] + rng.normal(0, 0.05, (116, 4))
    found = correlations(table, kind)
    for a, b in ((0, 1), (2, 3)):
        assert found.low[a, b] > 0.9
    for a, b in ((0, 2), (0, 3), (1, 2), (1, 3)):
        assert abs(found.values[a, b]) < 0.2
        assert found.low[a, b] < 0 < found.high[a, b]


@pytest.mark.parametrize(
    ("kind", "true"),
    [
        ("pearson", 0.6),
        ("spearman", 6 / np.pi * np.arcsin(0.3)),  # of normal variables whose correlation is .6
        ("kendall", 2 / np.pi * np.arcsin(0.6)),
    ],
)
def test_intervals_cover_the_truth_about_as_often_as_they_say(kind: Kind, true: float) -> None:
    """200 studies of 100 networks, normal with a known correlation."""
    covered = 0
    for seed in range(200):
        normal = np.random.default_rng(seed).multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=100)
        found = correlations(normal, kind, resamples=300, level=0.9, seed=seed)
        covered += found.low[0, 1] <= true <= found.high[0, 1]
    # Three standard errors of a share of 200 around .9 are .064; percentile intervals are known to be a little narrow.
    assert 0.82 <= covered / 200 <= 0.965


def test_the_same_seed_gives_the_same_intervals() -> None:
    table = accuracies()
    first, again, other = (correlations(table, seed=seed, resamples=50) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.low, again.low)
    assert (first.low != other.low).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_column_has_no_correlation_and_leaves_the_others_alone(kind: Kind) -> None:
    table = accuracies(scenarios=2)
    with_constant = np.column_stack([table, np.full(len(table), 0.1)])
    found, alone = correlations(with_constant, kind), correlations(table, kind)
    for matrix, expected in ((found.values, alone.values), (found.low, alone.low), (found.high, alone.high)):
        assert np.isnan(matrix[2]).all()
        np.testing.assert_allclose(matrix[:2, :2], expected)


def test_a_property_is_correlated_with_every_scenario() -> None:
    ratio = np.random.default_rng(0).normal(size=30)
    noise = np.random.default_rng(1).normal(size=30)
    up, down, none = correlation_with(ratio, np.column_stack([2 * ratio, -ratio, noise]), "spearman")
    assert (up.value, up.low) == pytest.approx((1, 1))
    assert (down.value, down.high) == pytest.approx((-1, -1))
    assert none.value == pytest.approx(spearmanr(ratio, noise).statistic)
    assert none.low < none.value < none.high


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_what_is_missing_is_named(broken: float) -> None:
    table = accuracies()
    table[7, 2] = broken
    for function in (ranks, correlations, regret_of_one_choice, regret_of_winners):
        with pytest.raises(LightSSLError, match="network 7"):
            function(table)


def test_two_networks_are_not_correlated() -> None:
    with pytest.raises(LightSSLError, match="over 2 networks"):
        correlations(accuracies(networks=2))


# ------------------------------------------------------------------------------------------------- costs and shapes


def test_what_no_network_beats_is_in_the_pareto_set() -> None:
    flops = [1.0, 2.0, 2.0, 3.0, 4.0, 4.0]
    accuracy = [50.0, 60.0, 55.0, 60.0, 70.0, 70.0]
    np.testing.assert_array_equal(pareto(flops, accuracy), [True, True, False, False, True, True])


def test_the_pareto_set_is_what_comparing_all_pairs_gives() -> None:
    rng = np.random.default_rng(0)
    costs, accuracy = rng.integers(0, 12, (60, 2)), rng.integers(0, 12, 60)

    def beaten(i: int) -> bool:
        return any(
            (costs[j] <= costs[i]).all()
            and accuracy[j] >= accuracy[i]
            and ((costs[j] < costs[i]).any() or accuracy[j] > accuracy[i])
            for j in range(60)
        )

    found = pareto(costs, accuracy)
    np.testing.assert_array_equal(found, [not beaten(i) for i in range(60)])
    assert 0 < found.sum() < 60
    # With one cost, a Pareto set climbs: who costs more is better.
    chosen = pareto(costs[:, 0], accuracy)
    order = np.argsort(costs[chosen, 0], kind="stable")
    assert (np.diff(accuracy[chosen][order]) >= 0).all()


def test_the_ratio_of_late_to_early_blocks() -> None:
    assert late_early_ratio((2, 2, 2, 2)) == 1
    assert late_early_ratio((3, 4, 6, 3)) == pytest.approx(9 / 7)
    assert late_early_ratio((1, 2, 3, 4, 3, 3, 1)) == pytest.approx(4 / 3)
    with pytest.raises(LightSSLError, match="3 stages"):
        late_early_ratio((2, 2, 2))


def test_a_scenario_that_likes_late_blocks_is_told_from_one_that_does_not() -> None:
    """On the depths of a grid: in the first scenario, accuracy is planted to follow the ratio."""
    depths = [member.depths or () for member in basic()]
    ratios = [late_early_ratio(stages) for stages in depths]
    noise = np.random.default_rng(0).normal(0, 0.01, len(ratios))
    liking, indifferent = correlation_with(ratios, np.column_stack([np.array(ratios) + noise, noise]), "kendall")
    assert liking.low > 0.9
    assert indifferent.low < 0 < indifferent.high


# ------------------------------------------------------------------------------------------------------------ factors


def results(**planted: float) -> list[dict[str, Any]]:
    """Accuracies of three networks, two tasks, two widths and two ways to evaluate; what each adds is planted."""
    base = {("v1", "rotation"): 50, ("v2", "rotation"): 55, ("rev", "rotation"): 60}
    base |= {("v1", "jigsaw"): 45, ("v2", "jigsaw"): 40, ("rev", "jigsaw"): 30}
    return [
        {
            "architecture": architecture,
            "task": task,
            "width": width,
            "head": head,
            "accuracy": value + planted.get("width", 0) * (width == 8) + planted.get("mlp", 0) * (head == "mlp"),
        }
        for (architecture, task), value in base.items()
        for width in (4, 8)
        for head in ("linear", "mlp")
    ]


def test_architectures_are_ranked_in_each_task() -> None:
    found = group_rankings(results(width=6), "architecture", "task")
    assert (found.items, found.groups) == (["v1", "v2", "rev"], ["rotation", "jigsaw"])
    np.testing.assert_allclose(found.means, [[53, 48], [58, 43], [63, 33]])
    np.testing.assert_array_equal(found.ranks, [[3, 1], [2, 2], [1, 3]])


def test_only_what_all_were_measured_at_is_compared() -> None:
    rows = [row for row in results(width=20) if (row["architecture"], row["width"]) != ("rev", 8)]
    found = group_rankings(rows, "architecture", "task")
    np.testing.assert_allclose(found.means[:, 0], [50, 55, 60])
    np.testing.assert_array_equal(found.ranks[:, 0], [3, 2, 1])
    alone = [
        row for row in rows if row["architecture"] != "v2" and (row["architecture"] == "rev") == (row["width"] == 4)
    ]
    with pytest.raises(LightSSLError, match="No setting was measured for every architecture of task rotation"):
        group_rankings(alone, "architecture", "task")


def test_an_item_that_a_group_lacks_has_no_rank_there() -> None:
    rows = [row for row in results() if (row["architecture"], row["task"]) != ("v2", "jigsaw")]
    found = group_rankings(rows, "architecture", "task")
    np.testing.assert_array_equal(found.ranks, [[3, 1], [2, np.nan], [1, 2]])


def test_the_effect_of_a_factor_is_the_planted_one() -> None:
    found = paired_effect(results(width=2.5, mlp=0.5), "width", 4, 8)
    assert (found.pairs, found.units) == (12, 12)
    assert (found.difference.value, found.difference.low, found.difference.high) == pytest.approx((2.5, 2.5, 2.5))
    assert paired_effect(results(mlp=0.5), "head", "mlp", "linear").difference.value == pytest.approx(-0.5)


def test_an_effect_without_a_partner_is_left_out() -> None:
    rows = results(width=2)[1:]  # the first row at width 4 has lost its result
    assert paired_effect(rows, "width", 4, 8).pairs == 11
    with pytest.raises(LightSSLError, match="No two results differ in width alone"):
        paired_effect(rows, "width", 4, 12)


def noisy(seed: int, *, networks: int, per_network: int) -> list[dict[str, Any]]:
    """Networks whose response to a factor varies around 1 from one to the other, in several scenarios alike."""
    rng = np.random.default_rng(seed)
    response = 1 + rng.normal(size=networks)
    return [
        {"network": n, "scenario": s, "width": width, "accuracy": 50 + rng.normal(0, 0.1) + (width == 8) * response[n]}
        for n in range(networks)
        for s in range(per_network)
        for width in (4, 8)
    ]


def test_intervals_over_networks_cover_the_truth_and_those_over_pairs_do_not() -> None:
    covered = {"network": 0, "pairs": 0}
    for seed in range(150):
        rows = noisy(seed, networks=40, per_network=5)
        for name, unit in (("network", ["network"]), ("pairs", [])):
            found = paired_effect(rows, "width", 4, 8, unit=unit, resamples=300, level=0.9, seed=seed).difference
            covered[name] += found.low <= 1 <= found.high
    assert 0.82 <= covered["network"] / 150 <= 0.97
    assert covered["pairs"] / 150 < 0.7


def test_units_are_weighed_by_their_pairs() -> None:
    rows = [row for row in noisy(0, networks=8, per_network=3) if (row["network"], row["scenario"]) != (0, 0)]
    by_key = {(row["network"], row["scenario"], row["width"]): row["accuracy"] for row in rows}
    differences = [value - by_key[n, s, 4] for (n, s, width), value in by_key.items() if width == 8]
    found = paired_effect(rows, "width", 4, 8, unit=["network"])
    assert (found.pairs, found.units) == (23, 8)
    assert found.difference.value == pytest.approx(np.mean(differences))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"task": "rotation", "accuracy": 1.0}, "Result 2 has no architecture"),
        ({"architecture": "v1", "task": "rotation", "accuracy": float("nan")}, "Result 2 has the accuracy nan"),
        ({"architecture": "v1", "task": "jigsaw", "accuracy": 2.0}, "Result 2 is there twice"),
    ],
)
def test_results_that_cannot_be_used_are_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(LightSSLError, match=message):
        group_rankings([{"architecture": "v1", "task": "jigsaw", "accuracy": 1.0}, row], "architecture", "task")


def test_ranks_are_those_of_scipy() -> None:
    table = accuracies()
    np.testing.assert_array_equal(ranks(table)[:, 0], rankdata(-table[:, 0]))
