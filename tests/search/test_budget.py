"""What is drawn within a budget never exceeds it, and impossible budgets are refused at once."""

from dataclasses import replace

import numpy as np
import pytest

from lightssl.deploy.prediction import Fit
from lightssl.deploy.profile import load_profile
from lightssl.errors import ConfigError
from lightssl.search.budget import Limits, bring_within, budget_shares, sample_within
from lightssl.search.cost import CostTable
from lightssl.search.spaces import SPACES


def predicting(name: str) -> CostTable:
    fit = Fit.model_validate(load_profile("predict:raspberry-pi-4").settings["fits"][0])
    return CostTable(replace(SPACES[name], image_sizes=(224,)), fit=fit)


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("mobilenetv2", {"flops": 300e6}),
        ("mobilenetv2", {"flops": 300e6, "parameters": 2e6}),
        ("mobilenetv2", {"parameters": 1e6}),
        ("resnet_basic", {"flops": 1.8e9}),
        ("resnet_bottleneck", {"flops": 900e6, "parameters": 30e6}),
        ("vit", {"flops": 1.3e9, "parameters": 5.7e6}),
    ],
)
def test_candidates_use_up_95_to_100_percent(name: str, limits: Limits) -> None:
    table = CostTable(SPACES[name])
    genes = sample_within(table, limits, np.random.default_rng(0), 100)
    prices = table.prices(genes)
    for column, cost in enumerate(table.names):
        if cost in limits:
            assert (prices[:, column] <= limits[cost]).all()
    shares = budget_shares(table, limits, genes)
    assert shares.min() >= 0.95
    assert shares.max() <= 1.0
    assert len(np.unique(genes, axis=0)) > 50  # ResNets have few choices
    np.testing.assert_array_equal(genes, sample_within(table, limits, np.random.default_rng(0), 100))


def test_candidates_within_the_budget_stay_and_others_are_brought_there() -> None:
    space = SPACES["mobilenetv2"]
    table, limits = CostTable(space), {"flops": 300e6}
    within = sample_within(table, limits, np.random.default_rng(0), 10)
    children = space.mutate(np.random.default_rng(1), within, rate=0.1)
    genes = bring_within(table, limits, np.random.default_rng(2), np.concatenate([within, children]))
    np.testing.assert_array_equal(genes[:10], within)
    shares = budget_shares(table, limits, genes)
    assert ((shares >= 0.95) & (shares <= 1.0)).all()
    # They are nearer to where they came from than to candidates drawn anew.
    moved = (genes[10:] != children).mean()
    assert moved < 0.5 * (genes[10:] != sample_within(table, limits, np.random.default_rng(3), 10)).mean()


@pytest.mark.parametrize("name", SPACES)
def test_budgets_at_both_ends_of_a_space_are_met(name: str) -> None:
    space = SPACES[name]
    table = CostTable(space)
    for candidate in (space.smallest, space.largest):
        flops = table.cost(candidate).flops
        (genes,) = sample_within(table, {"flops": flops}, np.random.default_rng(0), 1, lowest=0.999)
        assert table.cost(space.decode(genes)).flops in range(int(0.999 * flops), flops + 1)


def test_a_budget_below_the_smallest_network_says_what_that_costs() -> None:
    space = replace(SPACES["mobilenetv2"], image_sizes=(224,))
    with pytest.raises(ConfigError) as caught:
        sample_within(CostTable(space), {"flops": 10e6, "parameters": 1e9}, np.random.default_rng(0), 1)
    (problem,) = caught.value.problems
    cost = CostTable(space).cost(space.smallest)
    assert problem == f"flops: the limit is 10,000,000, {space.smallest} has {cost.flops:,}"


def test_a_budget_above_the_largest_network_says_what_that_costs() -> None:
    table = CostTable(SPACES["vit"])
    with pytest.raises(ConfigError, match=r"parameters: the limit is 90,000,000, vit@224 256x14-h4m4 has 11,304,704"):
        sample_within(table, {"parameters": 90e6}, np.random.default_rng(0), 1)
    # One limit that is out of reach is no hindrance if another one is not.
    genes = sample_within(table, {"parameters": 90e6, "flops": 1e9}, np.random.default_rng(0), 3)
    assert (table.prices(genes)[:, 0] <= 1e9).all()


@pytest.mark.parametrize(
    "limits",
    [{"latency_ms": 50.0}, {"latency_ms": 50.0, "flops": 300e6}, {"latency_ms": 90.0, "parameters": 2e6}],
    ids=str,
)
def test_latency_is_a_limit_like_others(limits: Limits) -> None:
    table = predicting("mobilenetv2")
    genes = sample_within(table, limits, np.random.default_rng(0), 50)
    prices = table.prices(genes)
    for name, limit in limits.items():
        assert (prices[:, table.names.index(name)] <= limit).all()
    assert budget_shares(table, limits, genes).min() >= 0.95


def test_a_latency_that_no_network_has_is_told_beside_those_that_there_are() -> None:
    table = predicting("mobilenetv2")
    least, most = (table.named(c)["latency_ms"] for c in (table.space.smallest, table.space.largest))
    # However many FLOPs are allowed: no network is both.
    with pytest.raises(ConfigError, match="is that small") as caught:
        sample_within(table, {"flops": 300e6, "latency_ms": 0.5}, np.random.default_rng(0), 1)
    assert caught.value.problems == [f"latency_ms: the limit is 0.5 ms, {table.space.smallest} has {least:.4g} ms"]
    with pytest.raises(ConfigError, match="is that large") as caught:
        sample_within(table, {"latency_ms": 5e3}, np.random.default_rng(0), 1)
    assert caught.value.problems == [f"latency_ms: the limit is 5,000 ms, {table.space.largest} has {most:.4g} ms"]


def test_a_share_that_no_network_has_ends_in_an_error() -> None:
    space = replace(
        SPACES["resnet_basic"], stages=tuple(s._replace(depths=(1, 2)) for s in SPACES["resnet_basic"].stages)
    )
    limits = {"flops": CostTable(space).cost(space.smallest).flops * 1.001}
    with pytest.raises(ConfigError, match="Found no network"):
        sample_within(CostTable(space), limits, np.random.default_rng(0), 1, lowest=0.9999)
