"""Scores of a trained supernet, and of untrained networks, against formulas written out."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightssl.methods import METHODS
from lightssl.search.scores import SupernetScorer, linear_cka
from lightssl.search.spaces import Space
from lightssl.search.supernet import Supernet
from lightssl.search.zero_cost import ZeroCostScorer, naswot, synflow
from lightssl.types import Clock
from tests.search.test_supernet import METHOD_OPTIONS

CLOCK = Clock(9, 10, 2, 4)


def draw(images: int, size: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(images, 3, size, size, generator=torch.Generator().manual_seed(seed))


class Lab:
    """Images of noise."""

    device = torch.device("cpu")

    def __init__(self, space: Space, options: dict[str, Any]) -> None:
        self.space, self.options = space, options

    def build(self, candidate: Any) -> nn.Module:
        torch.manual_seed(0)
        return self.space.build(candidate, **self.options)

    def images(self, count: int, *, held_out: bool, size: int | None = None) -> Iterable[Tensor]:
        return list(draw(count, size or 32, seed=int(held_out)).split(8))

    def labels(self, count: int, *, held_out: bool) -> Tensor:
        return torch.arange(count) % 2

    def views(self, count: int) -> Iterable[list[Tensor]]:
        return [[torch.stack([views, views.flip(-1)]), views[None, ..., :24, :24]] for views in draw(count).split(4)]


def train(space: Space, options: dict[str, Any], method: str = "simsiam") -> Any:
    torch.manual_seed(0)
    return METHODS[method](Supernet(space, **options), (0.4, 0.6), **METHOD_OPTIONS[method]).train()


@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_every_method_scores_every_kind_of_network(small: tuple[Space, dict[str, Any]], method: str) -> None:
    space, options = small
    trained = train(space, options, method)
    scorer = SupernetScorer(trained, CLOCK, Lab(space, options), images=16, score="agreement")
    largest, smallest = scorer(space.largest), scorer(space.smallest)
    assert largest["score"] == largest["agreement"] == pytest.approx(1.0)
    assert 0.0 <= smallest["score"] < 1.0
    assert all(np.isfinite(value) for value in smallest.values())
    assert 1.0 <= smallest["rank"] <= 16
    assert "knn" not in smallest
    assert scorer(space.smallest) == pytest.approx(smallest)  # nothing that is scored leaves a trace in the next
    assert trained.training


def test_the_score_is_the_one_asked_for(small: tuple[Space, dict[str, Any]]) -> None:
    space, options = small
    method = train(space, options)
    for score, sign in (("loss", -1), ("rank", 1), ("knn", 1)):
        scores = SupernetScorer(method, CLOCK, Lab(space, options), images=16, score=score)(space.smallest)
        assert scores["score"] == sign * scores[score]
    assert 0 <= scores["knn"] <= 100


def test_cka_is_that_of_the_paper() -> None:
    """By the centred kernels of Kornblith et al., equation 4, instead of by features."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(20, 5)), rng.normal(size=(20, 7))
    centre = np.eye(20) - 1 / 20
    k, l = centre @ first @ first.T @ centre, centre @ second @ second.T @ centre
    exact = np.sum(k * l) / np.sqrt(np.sum(k * k) * np.sum(l * l))
    assert linear_cka(torch.tensor(first), torch.tensor(second)) == pytest.approx(exact)
    turned = 3 * first @ np.linalg.qr(rng.normal(size=(5, 5)))[0] + 1
    assert linear_cka(torch.tensor(first), torch.tensor(turned)) == pytest.approx(1.0)
    assert linear_cka(torch.ones(4, 2), torch.randn(4, 3)) == 0.0


def test_naswot_counts_units_that_agree() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 6), nn.GELU())
    images = torch.randn(5, 3, 2, 2)
    first = network[1](images.flatten(1))
    patterns = torch.cat([first > 0, network[3](first.relu()) > 0], dim=1).numpy()
    kernel = np.array([[(a == b).sum() for b in patterns] for a in patterns], dtype=float)
    score, features = naswot(network, images)
    assert score == pytest.approx(np.linalg.slogdet(kernel)[1])
    assert torch.equal(features, network(images))


def test_synflow_is_the_sum_over_paths() -> None:
    """Of two linear layers, each weight's product with its gradient sums to the flow, so both layers have it once."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4, bias=False), nn.ReLU6(), nn.Linear(4, 3, bias=False))
    flow = network[3].weight.abs() @ network[1].weight.abs() @ torch.ones(12)
    assert synflow(network, 2) == pytest.approx(float((2 * flow.sum()).log()), rel=1e-6)


@pytest.mark.parametrize("score", ["naswot", "synflow", "rank"])
def test_untrained_networks_of_every_space_are_scored(small: tuple[Space, dict[str, Any]], score: Any) -> None:
    space, options = small
    scorer = ZeroCostScorer(Lab(space, options), images=8, score=score)
    small_scores, large_scores = scorer(space.smallest), scorer(space.largest)
    assert all(np.isfinite(value) for value in (*small_scores.values(), *large_scores.values()))
    assert small_scores["score"] == small_scores[score]
    assert large_scores["synflow"] > small_scores["synflow"]
    assert scorer(space.smallest) == small_scores
