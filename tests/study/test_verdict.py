"""What is said to the claims: no more than a study knows."""

import numpy as np
import pytest

from lightssl.study.analysis import analyse
from lightssl.study.verdict import Finding, findings
from tests.study.planted import correlated, in_widths, row, study, trained

ONE, AGREE, WIDER, RANKINGS, MLP = range(5)


def said(rows, claim: int) -> Finding:
    return findings(analyse(rows))[claim]


# ---------------------------------------------------------------------------------------------------------- one network


def test_a_winner_everywhere_by_far_is_one_network_for_all() -> None:
    table = correlated()
    table[3] = table.max(axis=0) + 10
    found = said(study(table, seeds=3, noise=0.3), ONE)
    assert found.state == "does not hold here"
    assert "n3 has the highest accuracy in all 4 scenarios" in found.text


def test_different_winners_by_far_are_no_one_network() -> None:
    table = np.full((6, 6), 50.0) + 20 * np.eye(6)
    found = said(study(table, seeds=3, noise=0.5), ONE)
    assert found.state == "holds here"
    assert "The best networks of 6 scenarios are 6 different ones" in found.text
    assert "Each of the 6 is behind somewhere by more than seeds explain (95% sure)" in found.text


def test_with_one_seed_different_winners_prove_nothing() -> None:
    found = said(study(np.full((6, 6), 50.0) + 20 * np.eye(6)), ONE)
    assert found.state == "open"
    assert "trained with one seed" in found.text


@pytest.mark.parametrize("random", range(5))
def test_different_winners_by_chance_leave_it_open(random: int) -> None:
    rows = study(np.full((20, 6), 50.0), seeds=3, noise=2.0, random=random)
    found = said(rows, ONE)
    assert found.state == "open"
    assert "could be the best everywhere" in found.text
    assert said(rows, AGREE).state == "open"


def test_luck_that_a_training_carries_to_all_scenarios_is_no_agreement() -> None:
    """All networks are equal; a lucky seed shows everywhere, so accuracies of trained networks go together."""
    rng = np.random.default_rng(2)
    luck = rng.normal(0, 2, (20, 3, 1)) + rng.normal(0, 0.2, (20, 3, 5))
    rows = [
        row(member=f"n{n}", seed=seed, scenario=f"s{column}", top1=50 + luck[n, seed, column])
        for n in range(20)
        for seed in range(3)
        for column in range(5)
    ]
    found = said(rows, AGREE)
    assert found.state == "open"
    assert "no more than seeds explain" in found.text


@pytest.mark.parametrize(("networks", "scenarios"), [(1, 3), (5, 1), (1, 1)])
def test_a_single_network_or_scenario_does_not_ask_for_it(networks: int, scenarios: int) -> None:
    rows = study(correlated(networks, scenarios))
    assert said(rows, ONE).state == "not asked"
    assert "Not asked by this study" in said(rows, ONE).text


# ------------------------------------------------------------------------------------------------------------ agreement


def test_scenarios_that_go_together_agree() -> None:
    found = said(study(correlated(30), seeds=2, noise=0.3), AGREE)
    assert found.state == "holds here"
    assert "all 6 intervals lie above 0" in found.text


def test_scenarios_that_are_opposites_do_not_agree() -> None:
    values = np.arange(20.0)
    found = said(study(np.column_stack([values, -values, values])), AGREE)
    assert found.state == "does not hold here"
    assert "of their intervals, 1 of 3 lies above 0, 2 of 3 lie below 0" in found.text


def test_scenarios_that_have_nothing_to_do_with_each_other_leave_it_open() -> None:
    found = said(study(np.random.default_rng(1).normal(size=(30, 4))), AGREE)
    assert found.state == "open"
    assert "contain 0 and leave it open" in found.text


def test_few_networks_leave_it_open_however_well_they_go_together() -> None:
    values = np.arange(6.0)
    found = said(study(np.column_stack([values, values])), AGREE)
    assert found.state == "open"
    assert "Intervals over 6 architectures are not to be trusted" in found.text
    two = said(study(correlated(2)), AGREE)
    assert two.state == "not asked"
    assert "a correlation needs 3 architectures, and there are 2" in two.text


def test_agreement_between_families_alone_is_not_taken_for_agreement() -> None:
    rng = np.random.default_rng(0)
    small = study(rng.normal(40, 1, (15, 3)))
    large = study(rng.normal(70, 1, (15, 3)), family="other", names=[f"m{n}" for n in range(15)])
    found = said([*small, *large], AGREE)
    assert found.state == "open"
    assert "Within groups, resnet basic (15): -" in found.text


# -------------------------------------------------------------------------------------------------------------- factors


def test_width_that_always_helps() -> None:
    found = said(in_widths(3.0), WIDER)
    assert found.state == "holds here"
    assert "the wider one is better in 24" in found.text
    assert "1 to 2: +3.00" in found.text


def test_width_that_never_helps() -> None:
    assert said(in_widths(-3.0), WIDER).state == "does not hold here"
    assert said(in_widths(-3.0, noise=0.3, seeds=3), WIDER).state == "does not hold here"


def test_one_clear_loss_is_enough_against_always() -> None:
    rows = in_widths(3.0, noise=0.2, seeds=3)
    rows += [
        row(member="g", family="g", width=1.0, seed=s, scenario=c, top1=60 + 0.1 * s)
        for s in range(3)
        for c in ("s0", "s1")
    ]
    rows += [
        row(member="h", family="g", width=2.0, seed=s, scenario=c, top1=50 + 0.1 * s)
        for s in range(3)
        for c in ("s0", "s1")
    ]
    found = said(rows, WIDER)
    assert found.state == "does not hold here"
    assert "In 2 of them the wider one is worse by more than seeds explain" in found.text


def test_width_that_changes_nothing_is_open_with_seeds_and_without() -> None:
    assert said(in_widths(0.0, noise=1.0), WIDER).state == "open"
    found = said(in_widths(0.0, noise=1.0, seeds=3), WIDER)
    assert found.state == "open"
    assert "no more than seeds explain" in found.text


def test_one_network_in_several_widths_is_too_few() -> None:
    found = said(in_widths(3.0, series=1), WIDER)
    assert found.state == "open"
    assert "1 architecture in several widths is too few to tell" in found.text
    assert "Mean change: 1 to 2: +3.00 points" in found.text  # without an interval


def test_rankings_that_are_reversed_depend_on_the_training() -> None:
    growing = 50 + np.arange(12.0)[:, None] * np.ones((1, 2))
    reversed_ = [*trained("simclr", growing), *trained("rotation", 100 - growing)]
    assert said(reversed_, RANKINGS).state == "holds here"
    seeds = [
        *trained("simclr", growing, seeds=3, noise=0.1),
        *trained("rotation", 100 - growing, seeds=3, noise=0.1, random=1),
    ]
    found = said(seeds, RANKINGS)
    assert found.state == "holds here"
    assert "n11 in simclr, n0 in rotation" in found.text


def test_the_same_best_network_in_each_training_does_not_depend_on_it() -> None:
    table = correlated()
    table[4] += 40
    rows = [*trained("simclr", table, seeds=3, noise=0.1), *trained("rotation", table, seeds=3, noise=0.1, random=1)]
    found = said(rows, RANKINGS)
    assert found.state == "does not hold here"
    assert "n4 is the best of 12 members under simclr and rotation alike" in found.text


@pytest.mark.parametrize("seeds", [1, 3])
def test_rankings_of_pure_noise_leave_it_open(seeds: int) -> None:
    equal = np.full((15, 3), 50.0)
    rows = [
        *trained("simclr", equal, seeds=seeds, noise=1.0),
        *trained("rotation", equal - 20, seeds=seeds, noise=1.0, random=1),
    ]
    assert said(rows, RANKINGS).state == "open"
    assert said(rows, AGREE).state == "open"  # though the trainings lie far apart in all scenarios


@pytest.mark.parametrize(("gain", "state"), [(0.2, "holds here"), (5.0, "does not hold here"), (1.0, "open")])
def test_what_an_mlp_gains(gain: float, state: str) -> None:
    table = correlated(20)
    more = np.random.default_rng(4).normal(gain, 0.5, table.shape)
    more += gain - more.mean()
    found = said([*study(table), *study(table + more, task="mlp")], MLP)
    assert found.state == state
    assert "mlp is" in found.text


def test_what_a_study_has_no_data_for_was_not_asked() -> None:
    rows = study(correlated())
    for claim in (WIDER, RANKINGS, MLP):
        assert said(rows, claim).state == "not asked"
        assert said(rows, claim).text.startswith("Not asked by this study")
