from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lightssl.deploy.native import build_native_runner
from lightssl.deploy.onnx import ExportResult, export_onnx
from lightssl.errors import TargetError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_network(*extra: nn.Module) -> nn.Module:
    """Maps [B, 3, 16, 16] to [B, 8]."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), *extra, nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


@pytest.fixture(scope="session")
def network() -> nn.Module:
    return make_network()


@pytest.fixture(scope="session")
def build() -> Callable[..., nn.Module]:
    return make_network


@pytest.fixture(scope="session")
def export() -> Callable[..., ExportResult]:
    def run(network: nn.Module, path: Path, **changes: object) -> ExportResult:
        settings = {
            "input_size": 16,
            "mean": MEAN,
            "std": STD,
            "include_normalisation": True,
            "metadata": {},
            "images": None,
        }
        return export_onnx(network, path, **(settings | changes))  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, network: nn.Module, export: Callable[..., ExportResult]) -> Path:
    """A tiny model that normalises its input itself."""
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    export(network, path)
    return path


@pytest.fixture(scope="session")
def arm_library(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Has ONNX Runtime for ARM fetched, for the cache to hold it."""
    try:
        build_native_runner("aarch64", tmp_path_factory.mktemp("arm"))
    except TargetError as error:
        if "pip" not in error.message:
            raise
        pytest.skip(f"needs the ARM wheel of onnxruntime: {error.message}")
