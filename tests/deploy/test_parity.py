import platform
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from lightssl.deploy.onnx import describe_model
from lightssl.deploy.parity import OnnxNetwork, check_fits, compare_features, is_of_this_machine
from lightssl.errors import ExportError
from lightssl.images import normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_features_are_compared_as_the_formulas_say() -> None:
    rng = np.random.default_rng(0)
    for images, width in ((1, 3), (7, 5)):
        a, b = rng.normal(size=(2, images, width))
        parity = compare_features(torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32))
        cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert parity.images == images
        assert parity.max_error == pytest.approx(np.abs(a - b).max(), rel=1e-5)
        assert parity.mean_error == pytest.approx(np.abs(a - b).mean(), rel=1e-5)
        assert parity.max_feature == pytest.approx(np.abs(b).max(), rel=1e-5)
        assert parity.cosine == pytest.approx(cosines.mean(), abs=1e-5)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(2, 4), r"shape \[2, 4\], torch's \[2, 3\]"),
        (torch.tensor([[0.0, 1.0, 2.0], [0.0, torch.inf, 1.0]]), "not finite"),
        (torch.full((2, 3), torch.nan), "not finite"),
    ],
)
def test_features_that_cannot_be_compared_are_named(features: torch.Tensor, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        compare_features(features, torch.ones(2, 3))


def test_a_file_takes_the_place_of_its_network(model: Path, network: nn.Module) -> None:
    """The file normalises its input itself; both are given normalised images."""
    images = normalise(torch.randint(0, 256, (5, 16, 16, 3), dtype=torch.uint8), MEAN, STD)
    onnx_network = OnnxNetwork(model.read_bytes(), describe_model(model).metadata)
    with torch.no_grad():
        torch.testing.assert_close(onnx_network(images), network.eval()(images), rtol=0, atol=1e-5)


def test_other_images_than_the_model_takes_are_an_error(model: Path) -> None:
    with pytest.raises(ExportError, match=r"fails on images \[2, 3, 8, 8\]"):
        OnnxNetwork(model.read_bytes(), describe_model(model).metadata)(torch.zeros(2, 3, 8, 8))


def test_a_model_for_other_images_is_refused(model: Path, tmp_path: Path) -> None:
    check_fits(model, describe_model(model), 16)
    with pytest.raises(ExportError, match=r"images \[batch, 3, 32, 32\]"):
        check_fits(model, describe_model(model), 32)
    fixed = onnx.load(model)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(fixed, tmp_path / "fixed.onnx")
    with pytest.raises(ExportError, match=r"\[1, 3, 16, 16\]"):
        check_fits(tmp_path / "fixed.onnx", describe_model(tmp_path / "fixed.onnx"), 16)


@pytest.mark.parametrize(
    ("machine", "native"),
    [("x86_64", {"any", "x86"}), ("AMD64", {"any", "x86"}), ("aarch64", {"any", "arm"}), ("arm64", {"any", "arm"}),
     ("armv7l", {"any", "arm"}), ("riscv64", {"any"})],
)  # fmt: skip
def test_a_file_is_run_by_the_kernels_of_its_own_architecture(
    machine: str, native: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert {name for name in ("any", "arm", "x86") if is_of_this_machine(name)} == native
