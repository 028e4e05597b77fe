from statistics import quantiles

import numpy as np
import pytest

from lightssl.deploy.latency import slowest, summarise
from lightssl.errors import TargetError


def test_percentiles_are_those_of_the_samples() -> None:
    samples = np.random.default_rng(0).lognormal(size=257).tolist()
    latency = summarise(samples)
    cuts = quantiles(samples, n=100, method="inclusive")
    assert latency.latency_ms_p50 == pytest.approx(cuts[49])
    assert latency.latency_ms_p90 == pytest.approx(cuts[89])
    assert latency.latency_ms_p99 == pytest.approx(cuts[98])
    assert latency.latency_ms_min == min(samples)
    assert latency.latency_ms_mean == pytest.approx(sum(samples) / len(samples))
    assert latency.samples == 257


def test_one_sample_is_its_own_percentiles() -> None:
    latency = summarise([3.5])
    assert latency.latency_ms_min == latency.latency_ms_p50 == latency.latency_ms_p99 == 3.5


@pytest.mark.parametrize("samples", [[], [1.0, float("nan")], [1.0, 0.0], [-1.0]])
def test_times_that_cannot_be_are_refused(samples: list[float]) -> None:
    with pytest.raises(TargetError, match="no usable times"):
        summarise(samples)


def test_times_of_operators_are_summed_and_sorted() -> None:
    entries = [("a", "Conv", 1.0), ("b", "Relu", 2.0), ("c", "Conv", 4.0)]
    times = [{"node": node, "operator": operator, "ms": ms} for node, operator, ms in entries]
    assert slowest(times, "operator") == [("Conv", 5.0), ("Relu", 2.0)]
    assert slowest(times, "node") == [("c", 4.0), ("b", 2.0), ("a", 1.0)]
