"""The balance of global and local terms against sums written out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightssl.losses.balance import balanced_mean, balanced_pairs
from lightssl.views.plan import ViewPlan


def pair_weights(global_views: int, local_views: int) -> tuple[float, float]:
    """The weights that a plan with ``balance: pairs`` gives a method."""
    plan = {
        "global": {"count": global_views, "size": 32, "scale": (0.3, 1.0)},
        "local": {"count": local_views, "size": 16, "scale": (0.05, 0.3)},
        "balance": "pairs",
    }
    return ViewPlan.model_validate(plan).weights


def random_terms(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 10


@given(st.integers(2, 4), st.integers(0, 10), st.data())
@settings(max_examples=60, deadline=None)
def test_pair_weights_are_the_plain_mean_over_all_pairs(
    global_views: int, local_views: int, data: st.DataObject
) -> None:
    targets = data.draw(st.integers(1, global_views))
    terms = random_terms(data.draw(st.integers(0, 1000)), targets, global_views + local_views)
    pairs = [terms[t, v].item() for t in range(targets) for v in range(global_views + local_views) if t != v]
    balanced = balanced_pairs(terms, global_views, pair_weights(global_views, local_views))
    assert balanced.item() == pytest.approx(np.mean(pairs), rel=1e-6)


@given(st.integers(2, 4), st.integers(0, 10), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_pair_weights_are_the_plain_mean_when_one_view_is_the_only_target(
    global_views: int, local_views: int, seed: int
) -> None:
    terms = random_terms(seed, global_views - 1 + local_views)
    to_global, to_local = terms[: global_views - 1], terms[global_views - 1 :]
    balanced = balanced_mean(to_global, to_local, pair_weights(global_views, local_views))
    assert balanced.item() == pytest.approx(terms.double().mean().item(), rel=1e-6)


@pytest.mark.parametrize(("local_views", "weights"), [(6, (1 / 7, 6 / 7)), (10, (1 / 11, 10 / 11)), (0, (1.0, 0.0))])
def test_pair_weights_of_the_published_plans(local_views: int, weights: tuple[float, float]) -> None:
    assert pair_weights(2, local_views) == pytest.approx(weights)


@pytest.mark.parametrize("weights", [(0.4, 0.6), (1.0, 0.0), (0.0, 1.0), (2.0, 3.0)])
def test_each_kind_of_term_has_its_weight(weights: tuple[float, float]) -> None:
    terms = torch.tensor([[99.0, 2.0, 5.0, 7.0], [4.0, 99.0, 11.0, 13.0]])  # two targets, two local views
    expected = weights[0] * (2 + 4) / 2 + weights[1] * (5 + 7 + 11 + 13) / 4
    assert balanced_pairs(terms, 2, weights).item() == pytest.approx(expected)


def test_a_third_global_view_that_is_no_target_is_compared_all_the_same() -> None:
    terms = torch.tensor([[99.0, 2.0, 3.0, 50.0], [4.0, 99.0, 5.0, 50.0]])
    assert balanced_pairs(terms, 3, (1.0, 0.0)).item() == pytest.approx((2 + 3 + 4 + 5) / 4)


def test_a_kind_without_terms_is_left_out() -> None:
    terms = torch.tensor([[99.0, 2.0], [4.0, 99.0]])
    assert balanced_pairs(terms, 2, (0.4, 0.6)).item() == pytest.approx(0.4 * 3)


def test_the_gradient_is_the_share_of_each_term() -> None:
    terms = torch.rand(2, 5, requires_grad=True)
    balanced_pairs(terms, 2, (0.4, 0.6)).backward()
    expected = torch.tensor([[0, 0.2, 0.1, 0.1, 0.1], [0.2, 0, 0.1, 0.1, 0.1]])
    torch.testing.assert_close(terms.grad, expected)
