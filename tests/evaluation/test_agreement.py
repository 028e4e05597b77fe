import pytest
from scipy.stats import kendalltau

from lightssl.evaluation.agreement import agreement, by_checkpoint, choice, sentences

WRITTEN = {
    "knn": {"results": [{"step": 10, "top1": 40.0}, {"step": 20, "top1": 44.0}, {"step": 30, "top1": 43.0}]},
    "labelfree": {
        "results": [
            {"step": 10, "rank": 30.0, "alpha": 0.4, "alignment": 0.5, "uniformity": -1.0},
            {"step": 20, "rank": 20.0, "alpha": 0.9, "alignment": 0.4, "uniformity": -3.0},
            {"step": 30, "rank": 10.0, "alpha": 1.3, "alignment": 0.6, "uniformity": -2.0},
        ]
    },
}


def test_measures_are_sorted_by_checkpoint() -> None:
    steps, measures = by_checkpoint(WRITTEN)
    assert steps == [10, 20, 30]
    assert list(measures) == ["knn", "rank", "alpha", "alignment", "uniformity"]
    assert measures["alpha"] == [0.4, 0.9, 1.3]


def test_each_takes_what_it_says_is_best() -> None:
    _, measures = by_checkpoint(WRITTEN)
    taken = {name: choice(name, values) for name, values in measures.items()}
    assert taken == {"knn": 1, "rank": 0, "alpha": 1, "alignment": 1, "uniformity": 1}
    assert choice("knn", [40.0, 41.0, 41.0]) == 2
    assert choice("alpha", [None, 7.0, None]) == 1


def test_agreement_is_signed_by_what_is_better() -> None:
    _, measures = by_checkpoint(WRITTEN)
    taus = agreement(measures, "knn")
    assert taus == pytest.approx({"rank": -1 / 3, "alpha": 1.0, "alignment": 1 / 3, "uniformity": 1.0})
    assert taus["alignment"] == pytest.approx(-kendalltau(measures["alignment"], measures["knn"]).statistic)
    assert agreement({"knn": [1.0, 2.0], "rank": [5.0, 5.0]}, "knn") == {"rank": None}


def test_sentences_say_what_a_choice_costs() -> None:
    said = sentences(*by_checkpoint(WRITTEN))
    assert said[0] == "knn takes the one after 20 steps, with 44.0 %."
    assert said[1] == "rank takes the one after 10 steps, 4.0 points below; Kendall's tau with knn -0.33."
    assert sentences(*by_checkpoint({"labelfree": WRITTEN["labelfree"]}))[0] == "rank takes the one after 10 steps."
