import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightssl.deploy.kernels import Kernel
from lightssl.deploy.prediction import COSTS, Fit, Sample, features, learn
from lightssl.errors import TargetError

TRUE = {"conv3x3": 20.0, "conv": 60.0, "pointwise": 40.0, "depthwise": 150.0, "bytes": 90.0, "kernels": 30.0}


def random_networks(seed: int, count: int, noise: float = 0.0) -> list[Sample]:
    """Networks whose time is exactly the sum of ``TRUE``, up to relative noise."""
    random = np.random.default_rng(seed)
    samples = []
    for index in range(count):
        kernels = [
            Kernel(kind, int(random.integers(1e5, 1e8)) * (kind != "pooling"), int(random.integers(1e4, 1e7)))
            for kind in random.choice(["conv3x3", "conv", "pointwise", "depthwise", "pooling"], random.integers(5, 60))
        ]
        exact = features(kernels) @ [TRUE.get(name, 0.0) for name in COSTS]
        samples.append(Sample(f"n{index}", f"n{index}", kernels, float(exact * np.exp(noise * random.normal()))))
    return samples


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_costs_are_recovered_exactly_from_networks_that_follow_the_model(seed: int) -> None:
    fit = learn(random_networks(seed, 30), threads=1, left_out="one")
    assert fit.costs == pytest.approx(TRUE, rel=2e-3)
    assert fit.held_out_error_percent == 0
    assert fit.interval_factor == pytest.approx(1, abs=2e-3)
    assert fit.kinds == ["conv3x3", "conv", "pointwise", "depthwise", "pooling"]


def test_the_interval_holds_what_it_says_of_networks_that_it_has_not_seen() -> None:
    inside = []
    for seed in range(40):
        *seen, unseen = random_networks(seed, 25, noise=0.01)
        fit = learn(seen, threads=1, left_out="one")
        ratio = float(fit.predict(features(unseen.kernels))) / unseen.latency_ms
        inside.append(1 / fit.interval_factor <= ratio <= fit.interval_factor)
    assert 0.65 <= np.mean(inside) <= 0.95


def test_held_out_figures_do_not_see_what_is_left_out() -> None:
    samples = random_networks(0, 20)
    changed = [
        sample._replace(latency_ms=sample.latency_ms * 3) if i == 4 else sample for i, sample in enumerate(samples)
    ]
    before, after = (learn(rows, threads=1, left_out="one").measured[4] for rows in (samples, changed))
    assert before.held_out_ms == after.held_out_ms
    # Left out together, neither helps to predict the other.
    together = [sample._replace(left_out_with="pair") if i in (3, 4) else sample for i, sample in enumerate(changed)]
    assert learn(together, threads=1, left_out="two").measured[3].held_out_ms == pytest.approx(
        samples[3].latency_ms, rel=1e-3
    )


def test_features_of_parts_add_up_and_many_candidates_are_predicted_at_once() -> None:
    samples = random_networks(1, 20)
    fit = learn(samples, threads=1, left_out="one")
    first, second = samples[0].kernels, samples[1].kernels
    np.testing.assert_allclose(features([*first, *second]), features(first) + features(second))
    rows = np.stack([features(sample.kernels) for sample in samples])
    np.testing.assert_allclose(fit.predict(rows), [sample.latency_ms for sample in samples], rtol=1e-3)


def test_a_kind_in_few_networks_is_not_fitted() -> None:
    samples = random_networks(2, 20)
    rare = [*samples[0].kernels, Kernel("matmul", 10**6, 10**5)]
    fit = learn([samples[0]._replace(kernels=rare), *samples[1:]], threads=1, left_out="one")
    assert fit.unknown(rare) == ["matmul"]
    assert fit.unknown(samples[1].kernels) == []


def test_a_fit_no_better_than_flops_alone_is_refused() -> None:
    random = np.random.default_rng(0)
    samples = [
        sample._replace(latency_ms=float(features(sample.kernels)[:5].sum() * np.exp(0.3 * random.normal())))
        for sample in random_networks(3, 10)
    ]
    with pytest.raises(TargetError, match="no better"):
        learn(samples, threads=1, left_out="one")


@pytest.mark.parametrize("count", [0, 1, 6])
def test_too_few_networks_are_refused(count: int) -> None:
    with pytest.raises(TargetError, match=f"^{count} networks do not determine"):
        learn(random_networks(0, count), threads=1, left_out="one")


def test_a_fit_survives_its_file() -> None:
    fit = learn(random_networks(5, 12, noise=0.1), threads=2, left_out="one")
    assert Fit.model_validate(fit.model_dump()) == fit
