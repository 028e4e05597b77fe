import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from lightssl.deploy.fit_profile import fit_profile
from lightssl.deploy.kernels import count_kernels
from lightssl.deploy.onnx import ExportResult
from lightssl.deploy.prediction import features
from lightssl.deploy.profile import load_profile, write_profile
from lightssl.errors import ConfigError, ExportError, TargetError

TRUE = [2e4, 0.0, 0.0, 0.0, 0.0, 3e4, 400.0]  # costs of 3 x 3 convolutions, of bytes and of kernels


@pytest.fixture(scope="module")
def models(
    tmp_path_factory: pytest.TempPathFactory, build: Callable[..., nn.Module], export: Callable[..., ExportResult]
) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    paths = []
    for width, depth in ((8, 0), (8, 3), (32, 1), (24, 2), (48, 1), (16, 4)):
        layers = [nn.Conv2d(8, width, 3, padding=1), *[nn.Conv2d(width, width, 3, padding=1)] * depth]
        paths.append(folder / f"{width}x{depth}.onnx")
        export(build(*layers), paths[-1])
    return paths


def rows_of(models: list[Path], **changes: Any) -> list[dict[str, Any]]:
    row = {"kind": "measured", "device": "a board", "runtime": "ort", "threads": 1, "precision": "fp32", "batch": 1}
    return [
        {**row, "model": str(path), "latency_ms_p50": float(features(count_kernels(path)) @ TRUE), **changes}
        for path in models
    ]


def save(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
        return path
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_a_profile_is_learnt_from_measurements_and_survives_its_file(
    suffix: str, models: list[Path], tmp_path: Path
) -> None:
    rows = rows_of(models) + rows_of(models, threads=2)
    profile = fit_profile(save(tmp_path / f"measured.{suffix}", rows))
    assert [fit["threads"] for fit in profile.settings["fits"]] == [1, 2]
    costs = profile.settings["fits"][0]["costs"]
    assert costs == pytest.approx({"conv3x3": 2e4, "bytes": 3e4, "kernels": 400.0}, rel=1e-2)
    write_profile(tmp_path / "mine.yaml", profile)
    assert load_profile(tmp_path / "mine.yaml") == profile


def test_what_does_not_make_one_profile_is_refused(models: list[Path], tmp_path: Path) -> None:
    both = save(tmp_path / "both.json", rows_of(models) + rows_of(models, runtime="torch eager"))
    with pytest.raises(ConfigError, match="a board, ort, fp32; a board, torch eager, fp32") as caught:
        fit_profile(both)
    assert "--runtime" in str(caught.value.hint)
    assert fit_profile(both, runtime="ort").settings["runtime"] == "ort"
    with pytest.raises(ConfigError, match="there are: none"):
        fit_profile(both, runtime="other")
    with pytest.raises(ConfigError, match="holds predictions"):
        fit_profile(save(tmp_path / "predicted.json", rows_of(models, kind="predicted")))
    with pytest.raises(TargetError, match="3 networks do not determine"):
        fit_profile(save(tmp_path / "few.json", rows_of(models[:3])))
    with pytest.raises(ExportError, match=r"gone\.onnx"):
        fit_profile(save(tmp_path / "gone.json", rows_of(models[:1], model="gone.onnx")))


@pytest.mark.parametrize("text", [None, "{", "[1]", "3", '[{"model": "a.onnx"}]', '{"rows": []}'])
def test_a_wrong_file_is_named(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=r"measured\.json"):
        fit_profile(path)
