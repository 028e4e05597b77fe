"""Which networks, scenarios and task of a table are compared, and what is said of the rest."""

from dataclasses import replace

import numpy as np
import pytest

from lightssl.errors import LightSSLError
from lightssl.study.measured import failures_of, measured_of
from tests.study.planted import row, study

TABLE = np.arange(12.0).reshape(4, 3)


def without(rows, *cells, reason="not there"):
    """The same, with results of (member, scenario) missing."""
    return [replace(one, top1=None, error=reason) if (one.member, one.scenario) in cells else one for one in rows]


def test_accuracies_are_means_over_seeds() -> None:
    rows = [row(seed=seed, scenario=name, top1=50.0 + seed + 10 * (name == "b")) for seed in (0, 1) for name in "ab"]
    found = measured_of([*rows, row(member="other", scenario="a"), row(member="other", scenario="b")])
    np.testing.assert_allclose(found.accuracy, [[50.5, 60.5], [50, 50]])
    assert [one.seeds for one in found.networks] == [2, 1]
    np.testing.assert_allclose(found.deviations, [[-0.5, -0.5], [0.5, 0.5]])
    assert found.freedom == 1


def test_a_network_that_was_not_measured_everywhere_is_left_out_with_its_reason() -> None:
    found = measured_of(without(study(TABLE), ("n1", "s2"), reason="diverged"))
    assert [one.name for one in found.networks] == ["n0", "n2", "n3"]
    (left_out,) = found.networks_left_out
    assert (left_out.name, left_out.missing, left_out.measured) == ("n1", ("s2",), 2)
    assert left_out.reasons == ("diverged",)
    assert not found.scenarios_left_out


def test_a_network_without_a_row_for_a_scenario_is_left_out_too() -> None:
    rows = [one for one in study(TABLE) if (one.member, one.scenario) != ("n1", "s2")]
    (left_out,) = measured_of(rows).networks_left_out
    assert left_out.reasons == ("it was not measured",)


def test_a_scenario_that_most_networks_lack_is_left_out_instead_of_them() -> None:
    found = measured_of(without(study(TABLE), ("n0", "s1"), ("n1", "s1"), ("n3", "s1"), reason="no such data"))
    assert found.scenarios == ("s0", "s2")
    assert len(found.networks) == 4
    (left_out,) = found.scenarios_left_out
    assert (left_out.name, left_out.missing, left_out.measured) == ("s1", ("n0", "n1", "n3"), 1)
    assert left_out.reasons == ("no such data",)
    assert not found.networks_left_out
    np.testing.assert_array_equal(found.accuracy, TABLE[:, [0, 2]])


def test_trainings_that_failed_do_not_make_scenarios_rare() -> None:
    cells = [(name, scenario) for name in ("n0", "n1", "n2") for scenario in ("s0", "s1", "s2")]
    found = measured_of(without(study(TABLE), *cells, reason="diverged"))
    assert [one.name for one in found.networks] == ["n3"]
    assert len(found.scenarios) == 3
    assert [one.name for one in found.networks_left_out] == ["n0", "n1", "n2"]
    assert {one.measured for one in found.networks_left_out} == {0}


def test_something_is_left_where_all_networks_lack_something_else() -> None:
    found = measured_of(without(study(TABLE[:3]), ("n0", "s0"), ("n1", "s1"), ("n2", "s2")))
    assert len(found.networks) >= 1
    assert len(found.scenarios) >= 1
    apart = measured_of([row(member="a", scenario="x"), row(member="b", scenario="y"), row(member="c", scenario="z")])
    assert (len(apart.networks), len(apart.scenarios)) == (1, 1)
    assert len(apart.networks_left_out) == len(apart.scenarios_left_out) == 2


@pytest.mark.parametrize(
    ("tasks", "chosen"),
    [
        (["knn", "linear", "linear_cv"], "linear_cv"),
        (["knn", "linear"], "linear"),
        (["mlp", "knn"], "mlp"),
    ],
)
def test_the_linear_classifier_is_preferred(tasks: list[str], chosen: str) -> None:
    assert measured_of([row(task=task) for task in tasks]).task == chosen


def test_a_task_that_failed_everywhere_is_none_to_compare_by() -> None:
    assert measured_of([row(task="linear_cv", top1=None, error="no"), row(task="knn")]).task == "knn"


def test_seeds_that_lack_a_scenario_count_where_they_were_measured() -> None:
    rows = study(TABLE[:1], seeds=3)
    rows = [replace(one, top1=None) if one.seed == 2 and one.scenario == "s0" else one for one in rows]
    rows = [replace(one, top1=8.0) if one.seed == 2 and one.scenario == "s1" else one for one in rows]
    found = measured_of(rows)
    np.testing.assert_allclose(found.accuracy, [[0, (1 + 1 + 8) / 3, 2]])
    assert found.networks[0].seeds == 2
    assert found.freedom == 1  # of two seeds that have everything


def test_names_tell_trainings_apart() -> None:
    two = [*study(TABLE), *study(TABLE, recipe="resnet18_rotation", method="rotation")]
    assert [one.name for one in measured_of(two).networks][::4] == ["n0, simclr", "n0, rotation"]
    same = [*study(TABLE), *study(TABLE, recipe="resnet18_simclr_more")]
    assert [one.name for one in measured_of(same).networks][::4] == [
        "n0, resnet18_simclr_cifar",
        "n0, resnet18_simclr_more",
    ]


def test_failures_of_one_reason_are_put_together() -> None:
    rows = without(study(TABLE, seeds=2), ("n1", "s0"), ("n1", "s2"), reason="diverged")
    rows.append(row(member="n1", scenario="s1", task="mlp", top1=None))
    first, second = failures_of(rows)
    assert (first.networks, first.reason) == (("n1",), "diverged")
    assert (first.seeds, first.scenarios, first.tasks) == ((0, 1), ("s0", "s2"), ("linear_cv",))
    assert (second.reason, second.tasks) == ("it was not measured", ("mlp",))


def test_networks_that_lack_the_same_for_the_same_reason_are_put_together() -> None:
    rows = without(study(TABLE), *[(f"n{n}", "s1") for n in range(4)], reason="no such data")
    (found,) = failures_of(rows)
    assert found.networks == ("n0", "n1", "n2", "n3")
    assert found.scenarios == ("s1",)


def test_minutes_are_of_a_training_and_not_of_its_evaluations() -> None:
    rows = [row(seed=seed, scenario=name, minutes=10.0 + seed) for seed in (0, 1) for name in "abc"]
    assert measured_of(rows).networks[0].minutes == 10.5
    assert measured_of([row()]).networks[0].minutes is None


def test_a_study_without_any_accuracy_is_an_error_that_says_why() -> None:
    with pytest.raises(LightSSLError, match="has no results yet"):
        measured_of([])
    rows = without(study(TABLE), *[(f"n{n}", f"s{s}") for n in range(4) for s in range(3)], reason="diverged at step 3")
    with pytest.raises(LightSSLError, match=r"None of the 12 results .* Of 12, the reason is: diverged at step 3"):
        measured_of(rows)
