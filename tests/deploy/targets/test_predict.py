from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from lightssl.deploy.kernels import count_kernels
from lightssl.deploy.latency import Prediction
from lightssl.deploy.onnx import ExportResult
from lightssl.deploy.prediction import COVERAGE, Fit, features
from lightssl.deploy.profile import bench, load_profile, profile_names
from lightssl.errors import TargetError

PREDICTING = [name for name in profile_names() if name.startswith("predict:")]

# What the profiles call MobileNetV2 1.0 at 224 pixels.
MOBILENETV2 = {"mobilenet_v2", "mobilenet_v2 1.0 at 224"}


@pytest.fixture(scope="module")
def mobilenetv2(tmp_path_factory: pytest.TempPathFactory, export: Callable[..., ExportResult]) -> Path:
    path = tmp_path_factory.mktemp("mobilenetv2") / "mobilenetv2.onnx"
    export(torchvision.models.mobilenet_v2().eval(), path, input_size=224, include_normalisation=False)
    return path


def fits_of(name: str) -> Iterator[Fit]:
    yield from (Fit.model_validate(fit) for fit in load_profile(name).settings["fits"])


def test_the_profiles_that_lightssl_promises_are_there() -> None:
    phones = {"pixel1", "note10", "snapdragon-821", "snapdragon-855-plus", "snapdragon-8-gen-2", "dimensity-9300"}
    boards = {"raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-5", "jetson-agx-orin"}
    assert {f"predict:{name}" for name in phones | boards} <= set(PREDICTING)


@pytest.mark.parametrize("name", PREDICTING)
def test_every_shipped_profile_predicts_mobilenetv2_within_its_interval(name: str, mobilenetv2: Path) -> None:
    profile = load_profile(name)
    assert "https://" in profile.settings["source"]
    rows = bench(mobilenetv2, profile)
    for row, fit in zip(rows, fits_of(name), strict=True):
        assert isinstance(row, Prediction)
        assert row.kind == "predicted"
        assert 0 < row.latency_ms_low <= row.latency_ms_p50 <= row.latency_ms_high
        for measured in fit.measured:
            if measured.network in MOBILENETV2:
                assert row.latency_ms_low <= measured.latency_ms <= row.latency_ms_high


@pytest.mark.parametrize("name", PREDICTING)
def test_every_shipped_profile_states_the_errors_of_its_measurements(name: str) -> None:
    for fit in fits_of(name):
        held_out = torch.tensor([measured.held_out_ms for measured in fit.measured], dtype=torch.float64)
        latency = torch.tensor([measured.latency_ms for measured in fit.measured], dtype=torch.float64)
        errors = 100 * (held_out / latency - 1).abs()
        assert torch.quantile(errors, 0.5).item() == pytest.approx(fit.held_out_error_percent, abs=0.06)
        inside = torch.maximum(held_out / latency, latency / held_out) <= fit.interval_factor + 1e-3
        assert inside.double().mean() >= COVERAGE
        assert fit.held_out_error_percent < fit.flops_error_percent


def settings(**changes: Any) -> dict[str, Any]:
    fit = {
        "threads": 1,
        "costs": {"conv3x3": 10, "bytes": 100, "kernels": 1000},
        "kinds": ["conv3x3", "pooling"],
        "left_out": "one network",
        "held_out_error_percent": 5,
        "flops_error_percent": 20,
        "interval_factor": 1.25,
        "measured": [],
    }
    return {
        "device": "a board",
        "runtime": "r",
        "precision": "fp32",
        "source": "me",
        "networks": "two",
        "fits": [fit | changes],
    }


def test_a_prediction_is_the_sum_of_its_costs_and_says_that_it_is_one(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"about: a board\ntarget: predict\nsettings: {settings()}")
    (row,) = bench(model, load_profile(f"predict:{path}"))
    assert isinstance(row, Prediction)
    convolution, pooling = count_kernels(model)
    expected = convolution.macs / 1e8 + (convolution.bytes + pooling.bytes) / 1e7 + 2
    assert row.latency_ms_p50 == pytest.approx(expected)
    assert (row.latency_ms_low, row.latency_ms_high) == pytest.approx((expected / 1.25, expected * 1.25))
    assert (row.kind, row.device, row.threads, row.source) == ("predicted", "a board", 1, "me")
    assert not {"samples", "latency_ms_p99", "load_ms"} & asdict(row).keys()
    assert features([convolution, pooling]).shape == (7,)


def test_kernels_that_were_not_fitted_are_refused(
    build: Callable[..., nn.Module], export: Callable[..., ExportResult], tmp_path: Path
) -> None:
    path = tmp_path / "strided.onnx"
    export(build(nn.Conv2d(8, 8, 3, stride=2)), path)
    profile = load_profile("predict:pixel1").model_copy(update={"settings": settings()})
    with pytest.raises(TargetError, match="a board was not fitted on: conv") as caught:
        bench(path, profile)
    assert "conv3x3, pooling" in str(caught.value.hint)


def test_fixed_batches_and_missing_files_are_refused(model: Path, tmp_path: Path) -> None:
    import onnx

    fixed = onnx.load(model)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(fixed, tmp_path / "four.onnx")
    with pytest.raises(TargetError, match="batches of 4"):
        bench(tmp_path / "four.onnx", load_profile("predict:pixel1"))
    with pytest.raises(TargetError, match=r"none\.onnx"):
        bench(tmp_path / "none.onnx", load_profile("predict:pixel1"))
