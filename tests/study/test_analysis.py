"""What is made of a study, on planted tables."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from lightssl.study.analysis import EVERY, analyse
from lightssl.study.results import results_of
from tests.study.planted import correlated, in_widths, row, study, trained

# ----------------------------------------------------------------------------------------------------- ranks and regret


def test_a_winner_everywhere_has_rank_one_and_no_regret() -> None:
    table = correlated()
    table[7] = table.max(axis=0) + 1
    found = results_of(analyse(study(table)))
    best = found["networks"][0]
    assert (best["name"], best["mean_rank"], set(best["rank"].values())) == ("n7", 1, {1})
    assert found["regret"]["best_by_mean_rank"]["lost"] == {f"s{column}": 0 for column in range(4)}
    (winner,) = found["regret"]["winners"]
    assert winner["wins"] == ["s0", "s1", "s2", "s3"]
    assert [one["winner"] for one in found["scenarios"]] == ["n7"] * 4
    ranks = [one["mean_rank"] for one in found["networks"]]
    assert ranks == sorted(ranks)


def test_winners_of_different_scenarios_and_what_each_loses_elsewhere() -> None:
    found = analyse(study([[80.0, 50.0, 10.0], [75.0, 58.0, 30.0], [60.0, 60.0, 31.0]]))
    assert found.choice.network == 2
    np.testing.assert_array_equal(found.choice.lost, [20, 0, 0])
    assert [(one.network, one.wins) for one in found.winners] == [(0, (0,)), (2, (1, 2))]
    np.testing.assert_array_equal(found.winners[0].lost, [0, 10, 21])
    assert found.choice.surely is None  # of one seed


def test_with_several_seeds_it_is_told_who_could_be_the_best() -> None:
    table = np.array([[90.0, 80.0], [90.0, 70.0], [60.0, 80.0], [60.0, 60.0]])
    found = results_of(analyse(study(table, seeds=4, noise=0.2, random=1)))
    first, second = found["scenarios"]
    assert set(first["could_win"]) == {"n0", "n1"}
    assert set(second["could_win"]) == {"n0", "n2"}
    assert found["could_be_best_everywhere"] == ["n0"]
    assert first["seed_spread"] == pytest.approx(0.2, rel=0.5)
    assert first["reliability"] > 0.99
    assert first["told_apart"] is True
    assert found["seed_degrees_of_freedom"] == 12


def test_seeds_that_are_pure_noise_leave_every_network_possible() -> None:
    found = results_of(analyse(study(np.full((15, 4), 50.0), seeds=3, noise=2.0, random=1)))
    assert len(found["could_be_best_everywhere"]) > 10
    assert all(one["reliability"] < 0.7 for one in found["scenarios"])
    assert not any(one["told_apart"] for one in found["scenarios"])


# --------------------------------------------------------------------------------------------------------- correlations


def test_scenarios_that_disagree_have_correlations_of_minus_one() -> None:
    values = np.arange(20.0)
    found = analyse(study(np.column_stack([values, -values])))
    (agreement,) = found.agreements
    assert agreement.group == EVERY
    for kind in ("pearson", "spearman", "kendall"):
        assert agreement.by_kind[kind].values[0, 1] == pytest.approx(-1)


def test_families_and_trainings_are_also_looked_at_alone() -> None:
    """Between families scenarios agree; within each they do the opposite."""
    values = np.arange(8.0)
    small = study(np.column_stack([values, -values]))
    large = study(np.column_stack([values + 50, 50 - values]), family="other", names=[f"m{n}" for n in range(8)])
    everyone, *groups = analyse([*small, *large]).agreements
    assert everyone.by_kind["pearson"].values[0, 1] > 0.9
    assert [(one.group, one.networks) for one in groups] == [("resnet basic", 8), ("other", 8)]
    assert [one.by_kind["pearson"].values[0, 1] for one in groups] == pytest.approx([-1, -1])
    assert len(analyse(small).agreements) == 1


@pytest.mark.parametrize("networks", [1, 2])
def test_too_few_networks_have_no_correlations_and_are_reported_all_the_same(networks: int) -> None:
    found = results_of(analyse(study(correlated(networks))))
    assert found["correlations"] == found["cost_correlations"] == []
    assert len(found["networks"]) == networks


def test_one_scenario_has_costs_and_ranks_but_nothing_to_agree_with() -> None:
    found = results_of(analyse(study(correlated(scenarios=1))))
    assert found["correlations"] == []
    assert len(found["cost_correlations"]) == 2  # of equal depths, no ratio


def test_costs_go_with_accuracy_where_it_grows_with_them() -> None:
    growing = np.arange(12.0)
    found = results_of(analyse(study(np.column_stack([growing, -growing]))))
    (flops,) = [one for one in found["cost_correlations"] if one["cost"] == "flops"]
    assert flops["spearman"]["s0"]["value"] == pytest.approx(1)
    assert flops["spearman"]["s1"]["value"] == pytest.approx(-1)
    marked = {name: [one["name"] for one in found["networks"] if one["pareto"]["flops"][name]] for name in ("s0", "s1")}
    assert len(marked["s0"]) == 12
    assert marked["s1"] == ["n0"]  # it is both the cheapest and the best


def test_the_ratio_of_late_to_early_blocks_counts_where_depths_are_known() -> None:
    depths = [(4, 4, 2, 2), (2, 2, 2, 2), (2, 2, 4, 4), None]
    rows = [row(member=f"n{n}", depths=one, top1=50.0 + n) for n, one in enumerate(depths)]
    (found,) = [one for one in analyse(rows).costs if one.cost == "late_early_ratio"]
    assert found.networks == 3
    assert found.by_kind["spearman"][0].value == pytest.approx(1)


def test_a_family_with_few_such_ratios_is_not_looked_at_alone() -> None:
    depths = [(4, 4, 2, 2), (2, 2, 2, 2), (2, 2, 4, 4)]
    rows = [
        row(member=f"{family}{n}", family=family, depths=one, top1=50.0 + n, flops=10**9 + n)
        for family, known in (("a", depths), ("b", depths * 2))
        for n, one in enumerate([*known, None, None])
    ]
    looked_at = {(one.group, one.cost) for one in analyse(rows).costs}
    assert {(group, "flops") for group in (EVERY, "a", "b")} <= looked_at
    assert {group for group, cost in looked_at if cost == "late_early_ratio"} == {EVERY, "b"}


def test_accuracies_that_are_all_equal_have_no_correlation_and_json_says_null() -> None:
    table = correlated()
    table[:, 1] = 40
    text = json.dumps(results_of(analyse(study(table))), allow_nan=False)
    everyone = json.loads(text)["correlations"][0]
    assert everyone["spearman"]["values"][0][1] is None
    assert everyone["spearman"]["values"][0][2] is not None


# -------------------------------------------------------------------------------------------------------------- factors


def test_architectures_are_ranked_within_each_pre_training() -> None:
    growing = 50 + np.arange(12.0)[:, None] * np.ones((1, 2))
    found = results_of(analyse([*trained("simclr", growing), *trained("rotation", -growing)]))["trainings"]
    assert (found["architectures"], found["trainings"]) == ("member", ["simclr", "rotation"])
    ranks = {one["name"]: one["rank"] for one in found["rows"]}
    assert ranks["n11"] == {"simclr": 1, "rotation": 12}
    assert found["kendall"]["values"][0][1] == pytest.approx(-1)
    assert found["could_be_best_in_all"] is None
    assert results_of(analyse(trained("simclr", growing)))["trainings"] is None


def test_families_are_ranked_where_they_are_one_network_in_the_same_widths() -> None:
    rows = [
        row(
            member=f"{family}-{width}",
            family=family,
            depths=None,
            width=width,
            recipe=f"r_{method}",
            method=method,
            seed=seed,
            top1=50 + width + bonus * (1 if method == "simclr" else -1) + 0.01 * seed,
        )
        for family, bonus in (("vgg", 0), ("resnet", 10), ("revnet", 20))
        for width in (4.0, 8.0, *([12.0] if family == "vgg" else []))  # one that the others lack does not count
        for method in ("simclr", "rotation")
        for seed in (0, 1)
    ]
    found = results_of(analyse(rows))["trainings"]
    assert found["architectures"] == "family"
    assert {one["name"]: one["rank"] for one in found["rows"]} == {
        "vgg": {"simclr": 3, "rotation": 1},
        "resnet": {"simclr": 2, "rotation": 2},
        "revnet": {"simclr": 1, "rotation": 3},
    }
    (vgg,) = [one for one in found["rows"] if one["name"] == "vgg"]
    assert vgg["top1"]["simclr"] == pytest.approx(56.005)
    assert found["could_be_best_in_all"] == []


def test_a_member_that_failed_in_one_pre_training_is_ranked_in_the_other() -> None:
    table = correlated()
    rows = [*trained("simclr", table), *trained("rotation", table)]
    rows = [replace(one, top1=None) if (one.member, one.method) == ("n3", "rotation") else one for one in rows]
    found = results_of(analyse(rows))["trainings"]
    assert len(found["compared"]) == 11
    (failed,) = [one for one in found["rows"] if one["name"] == "n3"]
    assert failed["rank"]["rotation"] is None
    assert failed["rank"]["simclr"] is not None


def test_another_training_of_the_same_members_does_not_pass_for_more_of_them() -> None:
    table = correlated()
    once = analyse(trained("simclr", table))
    twice = analyse([*trained("simclr", table), *trained("rotation", table)])
    for one, other in ((once.agreements[0], twice.agreements[0]), (once.agreements[0], twice.agreements[1])):
        assert (one.networks, one.members, other.members) == (12, 12, 12)
        for kind, found in one.by_kind.items():
            np.testing.assert_allclose(other.by_kind[kind].low, found.low, atol=1e-12)
    assert [one.networks for one in twice.agreements] == [24, 12, 12]
    assert [one.by_kind["kendall"][0].high for one in twice.costs if one.group == EVERY] == pytest.approx(
        [one.by_kind["kendall"][0].high for one in once.costs if one.group == EVERY]
    )
    by_recipe = [in_widths(3.0, recipe=recipe, method=recipe) for recipe in ("simclr", "rotation")]
    widths = analyse([*by_recipe[0], *by_recipe[1]]).widths
    assert widths is not None
    assert (len(widths.series), widths.architectures, widths.steps[0].effect.units) == (12, 6, 6)
    rows = [replace(one, task=task) for one in [*by_recipe[0], *by_recipe[1]] for task in ("linear", "mlp")]
    mlp = analyse(rows).mlp
    assert mlp is not None
    assert (mlp.effect.pairs, mlp.effect.units) == (72, 18)
    few = analyse([*trained("simclr", table[:2]), *trained("rotation", table[:2])])
    assert not few.agreements


def test_width_is_compared_from_each_to_the_next() -> None:
    found = analyse(in_widths(3.0)).widths
    assert found is not None
    assert (found.pairs, found.up, len(found.series)) == (24, 24, 6)
    assert [(step.before, step.after, step.effect.pairs, step.effect.units) for step in found.steps] == [
        (1, 2, 12, 6),
        (2, 4, 12, 6),
    ]
    for step in found.steps:
        assert step.effect.difference.value == pytest.approx(3)


def test_a_network_that_lacks_a_width_has_a_step_of_its_own() -> None:
    rows = [one for one in in_widths(3.0, series=2) if one.member != "f1-2"]
    found = analyse(rows).widths
    assert found is not None
    assert [(step.before, step.after, step.effect.units) for step in found.steps] == [(1, 2, 1), (1, 4, 1), (2, 4, 1)]


def test_networks_that_differ_in_more_than_width_are_no_series() -> None:
    assert analyse(study(correlated())).widths is None  # no width is known
    same = [*in_widths(1.0, series=1), *(replace(one, member=f"{one.member}-k5") for one in in_widths(2.0, series=1))]
    assert analyse(same).widths is None
    deeper = [replace(one, depths=(2, 2, 2, int(one.width or 0))) for one in in_widths(1.0, series=1)]
    assert analyse(deeper).widths is None


def test_an_mlp_is_compared_with_the_linear_classifier_where_both_were_measured() -> None:
    table = correlated()
    linear, mlp = study(table, task="linear"), study(table + 0.5, task="mlp")
    found = results_of(analyse([*linear, *mlp[:-4]]))["mlp"]
    assert (found["before"], found["after"]) == ("linear", "mlp")
    assert found["all"]["value"] == pytest.approx(0.5)
    assert (found["all"]["pairs"], found["all"]["units"]) == (44, 11)
    assert found["scenarios"]["s0"]["spearman"]["value"] == pytest.approx(1)
    assert len(found["scenarios"]["s0"]["networks"]) == 11
    assert results_of(analyse(linear))["mlp"] is None


# ------------------------------------------------------------------------------------------------------------------ all


def test_a_study_of_the_published_size_takes_seconds() -> None:
    rows = study(correlated(116, 11), seeds=2, noise=0.5)
    rows = [replace(one, family=f"family {int(one.member[1:]) // 82}") for one in rows]
    begun = time.perf_counter()
    json.dumps(results_of(analyse(rows)), allow_nan=False)
    assert time.perf_counter() - begun < 60  # about 5 on two cores; the machine may be busy
