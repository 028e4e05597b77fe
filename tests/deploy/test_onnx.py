import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from lightssl.backbones import BACKBONES
from lightssl.backbones.batchnorm import estimate_batch_norm
from lightssl.deploy.onnx import ExportResult, describe_model, read_metadata
from lightssl.errors import ExportError

Build = Callable[..., nn.Module]
Export = Callable[..., ExportResult]


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)


def features_of(path: Path, images: Tensor) -> np.ndarray:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["features"], {"images": images.numpy()})[0]


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param([[1, 16, 1, 1], [6, 24, 2, 2]], id="its first blocks"),
        pytest.param(None, id="whole", marks=pytest.mark.slow),
    ],
)
def test_mobilenet_goes_through_the_file_unchanged(
    blocks: list[list[int]] | None, tmp_path: Path, export: Export
) -> None:
    torch.manual_seed(0)
    features = mobilenet_v2(inverted_residual_setting=blocks).features
    network = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten()).train()
    with torch.no_grad():  # statistics other than 0 and 1, so that folding them into the convolutions counts
        for _ in range(5):
            network(torch.randn(8, 3, 64, 64))
    images = torch.randint(0, 256, (20, 64, 64, 3), dtype=torch.uint8)
    path = tmp_path / "model.onnx"

    result = export(network, path, input_size=64, images=images, metadata={"recipe": "mobilenetv2_dino", "opset": "9"})

    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    content = path.read_bytes()
    assert (result.bytes, result.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (result.opset, result.input_size, result.feature_width) == (18, 64, 1280)
    assert 0 < result.max_error_random < 1e-5 * result.max_feature
    assert result.max_error_images is not None
    assert 0 < result.max_error_images < 1e-5 * result.max_feature
    json.dumps(asdict(result))

    description = describe_model(path)
    assert description.opset == 18
    assert description.input_shape == ("batch", 3, 64, 64)
    assert description.output_shape == ("batch", 1280)
    assert description.normalises
    metadata = read_metadata(path)
    assert metadata["recipe"] == "mobilenetv2_dino"
    assert metadata["input_size"] == "64"
    assert metadata["input_range"] == "0..1"
    assert json.loads(metadata["mean"]) == [0.485, 0.456, 0.406]
    assert json.loads(metadata["std"]) == [0.229, 0.224, 0.225]
    assert metadata["torch_version"] == torch.__version__
    assert metadata["opset"] == "18"  # the caller cannot make the file lie about itself

    for batch in (1, 5):
        pixels = torch.rand(batch, 3, 64, 64)
        normalised = (pixels - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
            [0.229, 0.224, 0.225]
        ).view(3, 1, 1)
        with torch.no_grad():
            expected = network.eval()(normalised)
        torch.testing.assert_close(torch.from_numpy(features_of(path, pixels)), expected, rtol=0, atol=1e-5)


def test_normalisation_inside_equals_normalisation_outside(
    tmp_path: Path, network: nn.Module, model: Path, export: Export
) -> None:
    outside = tmp_path / "outside.onnx"
    images = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    export(network, outside, include_normalisation=False, images=images)
    assert not describe_model(outside).normalises
    assert "mean" in read_metadata(outside)["input_range"]

    pixels = torch.rand(4, 3, 16, 16)
    mean, std = (torch.tensor(json.loads(read_metadata(outside)[name])).view(3, 1, 1) for name in ("mean", "std"))
    np.testing.assert_allclose(features_of(model, pixels), features_of(outside, (pixels - mean) / std), atol=1e-6)


def test_the_network_itself_is_left_alone_and_nothing_is_said(
    tmp_path: Path, build: Build, export: Export, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    network = build(nn.Dropout(0.5)).train().to(memory_format=torch.channels_last)
    network[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}

    export(network, tmp_path / "model.onnx")

    assert all(module.training for module in network.modules())
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert [parameter.requires_grad for parameter in network.parameters()] == [False, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_the_file_says_nothing_of_the_machine_it_was_made_on(model: Path) -> None:
    content = model.read_bytes()
    for trace in (b"site-packages", b".py", str(Path.cwd()).encode()):
        assert trace not in content


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x + torch.randn_like(x), "does not compute what the network does"),
        (lambda x: nn.functional.dropout(x, training=True), "does not compute what the network does"),
        (lambda x: x / 0, "not finite"),
        (lambda x: x if x.sum() > 0 else -x, "cannot be exported"),
    ],
    ids=["noise", "dropout left on", "not finite", "branch on the data"],
)
def test_a_network_that_does_not_survive_export_leaves_no_file(
    function: Callable[[Tensor], Tensor],
    message: str,
    tmp_path: Path,
    build: Build,
    export: Export,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ExportError, match=message):
        export(build(Lambda(function)), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_a_mismatch_on_real_images_alone_fails(tmp_path: Path, export: Export) -> None:
    class Odd(nn.Module):
        """Wrong in the file for black images only: the exported graph has the constant of the traced call."""

        def forward(self, x: Tensor) -> Tensor:
            bias = 0.0 if torch.compiler.is_exporting() else float(x.max() == 0)
            return x.mean((2, 3)) + bias

    path = tmp_path / "model.onnx"
    black = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    settings = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    assert export(Odd(), path, **settings).max_error_images is None
    good = path.read_bytes()
    with pytest.raises(ExportError, match="does not compute"):
        export(Odd(), path, images=black, **settings)
    assert path.read_bytes() == good  # what was there is kept


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.mean((2, 3)).flatten(), r"to \[6\], not to features"),
        (lambda x: (x, x), "to tuple, not to features"),
        (lambda x: x.view(-1, 7, 7), "fails on images of 16 px"),
    ],
)
def test_a_network_of_another_kind_is_named(
    function: Callable[[Tensor], object], message: str, tmp_path: Path, export: Export
) -> None:
    with pytest.raises(ExportError, match=message):
        export(Lambda(function), tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 16, 16, 3),
        torch.zeros(2, 3, 16, 16, dtype=torch.uint8),
        torch.zeros(2, 8, 8, 3, dtype=torch.uint8),
        torch.zeros(0, 16, 16, 3, dtype=torch.uint8),
    ],
)
def test_images_that_do_not_fit_are_named(images: Tensor, tmp_path: Path, network: nn.Module, export: Export) -> None:
    with pytest.raises(ExportError, match=r"uint8 images \[N, 16, 16, 3\]"):
        export(network, tmp_path / "model.onnx", images=images)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "zeros"])
def test_a_damaged_or_foreign_file_is_named(damage: str, tmp_path: Path, model: Path) -> None:
    content = model.read_bytes()
    path = tmp_path / "other.onnx"
    contents = {"cut": content[: len(content) // 2], "empty": b"", "text": b"hello, world\n" * 9, "zeros": bytes(999)}
    path.write_bytes(contents[damage])
    with pytest.raises(ExportError, match=r"other\.onnx is not an ONNX model"):
        describe_model(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"none\.onnx: No such file"):
        read_metadata(tmp_path / "none.onnx")
    with pytest.raises(ExportError, match="directory"):
        read_metadata(tmp_path)


@pytest.mark.parametrize("size", [32, 41])  # whose maps average pooling divides evenly, or not
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet50_v1", {"depths": (1, 1, 1, 1)}),
        ("resnet50_v2", {"depths": (1, 1, 1, 1), "stem": "patches"}),
        ("revnet50", {"depths": (2, 1, 1, 1)}),
        ("vgg19_bn", {"image_size": 64}),
    ],
)
def test_networks_of_any_width_go_through_the_file_unchanged(
    name: str, options: dict[str, Any], size: int, tmp_path: Path, export: Export
) -> None:
    torch.manual_seed(0)
    network = BACKBONES[name](width_factor=1, init="near_linear", **options)
    estimate_batch_norm(network, [torch.randn(16, 3, size, size)])
    result = export(network, tmp_path / "model.onnx", input_size=size)  # compares random images
    assert result.feature_width == 512
    assert result.max_feature > 0.1
    assert result.max_error_random < 1e-4 * result.max_feature
    assert network.training
