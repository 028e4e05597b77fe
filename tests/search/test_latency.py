"""Which device a limit of latency is of, and how one is measured."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lightssl.deploy.kernels import count_kernels
from lightssl.deploy.prediction import COSTS, features
from lightssl.deploy.profile import Profile, load_profile, write_profile
from lightssl.errors import ConfigError
from lightssl.progress import Silent
from lightssl.search import latency
from lightssl.search.cost import CostTable
from lightssl.search.latency import device_of, measure, open_target, predicts, spread
from lightssl.search.spaces import SPACES, Space

TRUE = np.array([90.0, 120.0, 60.0, 400.0, 80.0, 300.0, 9.0])  # in the order of COSTS


def test_a_device_is_one_fit_of_a_profile_that_predicts() -> None:
    profile = open_target("predict:raspberry-pi-4")
    assert predicts(profile)
    assert [device_of(profile, threads).fit.threads for threads in (None, 1, 4)] == [1, 1, 4]
    device = device_of(profile, 4)
    assert device.place.endswith("(1.8GHz x 4), ncnn, threads: 4")
    assert device.trust == (
        "networks left out of the fit were 12 % off (median), 80 % of them by less than a factor of 1.402"
    )
    assert device.interval(14.02) == pytest.approx((10.0, 14.02 * 1.402))
    with pytest.raises(ConfigError, match=r"Raspberry Pi 4 .* no fit for --threads 3\.\nThere are fits for: 1, 4\."):
        device_of(profile, 3)


def test_targets_that_a_search_cannot_use_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot measure in a browser.*\n.*fit-profile"):
        open_target("web")
    with pytest.raises(ConfigError, match=r"Which host\?\n--target ssh:HOST"):
        open_target("ssh")
    with pytest.raises(ConfigError, match="Did you mean 'predict:pixel1'"):
        open_target("predict:pixel")
    for settings in ({}, {"device": "a", "runtime": "b", "precision": "c", "fits": []}):
        with pytest.raises(ConfigError, match=r"settings of target 'predict' are wrong:\n(.*\n)*.*fits"):
            device_of(Profile(about="", target="predict", settings=settings), None)
    assert not any(predicts(open_target(target)) for target in ("cpu", "ssh:pi@raspberry", "adb"))


@pytest.mark.parametrize("name", SPACES)
def test_networks_to_measure_go_from_the_smallest_to_the_largest(name: str) -> None:
    space = SPACES[name]
    table = CostTable(space)
    networks = spread(table, np.random.default_rng(0), 24)
    assert len(set(networks)) == len(networks) > 16
    assert (networks[0], networks[-1]) == (space.smallest, space.largest)
    flops = np.array([table.cost(network).flops for network in networks])
    steps = flops[1:] / flops[:-1]
    assert steps.min() > 1.0
    assert steps.max() < 2.0  # no gap in between
    assert networks == spread(table, np.random.default_rng(0), 24)


class Bench:
    """Stands in for a device whose times follow the model exactly."""

    def __init__(self) -> None:
        self.settings: list[dict[str, Any]] = []

    def __call__(self, model: Path, profile: Profile, *, settings: dict[str, Any]) -> list[Any]:
        self.settings.append(settings)
        row = SimpleNamespace(
            device="a board",
            runtime="onnxruntime",
            precision="fp32",
            threads=settings["threads"][0],
            latency_ms_p50=float(features(count_kernels(model)) @ TRUE),
        )
        return [row, SimpleNamespace(latency_ms_p50=1e9)]  # another runtime, which does not count


@pytest.mark.slow
def test_what_is_measured_of_some_networks_predicts_the_others(
    small_spaces: dict[str, tuple[Space, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    space, _ = small_spaces["mobilenetv2"]
    monkeypatch.setattr(latency, "NETWORKS", 7)
    monkeypatch.setattr(latency, "bench", bench := Bench())
    profile = measure(
        load_profile("cpu"),
        CostTable(space),
        threads=2,
        build=space.build,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        generator=np.random.default_rng(0),
        narrator=Silent(),
    )
    assert bench.settings == [{"threads": [2], "batch": 1}] * 7
    assert profile.settings["networks"] == "7 networks of the space mobilenetv2, from small to large"
    write_profile(tmp_path / "latency.yaml", profile)  # bench and a search read it
    device = device_of(open_target(tmp_path / "latency.yaml"), None)
    assert device.place == "a board, onnxruntime, threads: 2"
    assert device.fit.held_out_error_percent < 1
    known = [kind in device.fit.costs for kind in COSTS]
    assert [kind for kind, is_known in zip(COSTS, known, strict=True) if not is_known] == ["conv3x3", "matmul"]

    table = CostTable(space, fit=device.fit)
    exact = CostTable(space, fit=device.fit.model_copy(update={"costs": dict(zip(COSTS, TRUE.tolist(), strict=True))}))
    genes = space.sample(np.random.default_rng(1), 100)
    np.testing.assert_allclose(table.prices(genes)[:, 2], exact.prices(genes)[:, 2], rtol=0.02)

    with pytest.raises(ConfigError, match="kernels that this profile was not fitted on: conv3x3"):
        CostTable(small_spaces["resnet_basic"][0], fit=device.fit)
