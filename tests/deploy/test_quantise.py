from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from lightssl.backbones.vit import ViTTiny
from lightssl.deploy import quantise
from lightssl.deploy.onnx import ExportResult, describe_model
from lightssl.deploy.parity import OnnxNetwork, Parity, compare_features
from lightssl.deploy.quantise import ARCHITECTURES, Architecture, Quantisation, Quantiser, agreement, to_fp16
from lightssl.errors import ExportError

Export = Callable[..., ExportResult]
SIZE = 16
IDENTITY = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def make_images(count: int, size: int = SIZE) -> Tensor:
    """Blobs of different colours, so that features tell them apart: float32 [N, 3, S, S]."""
    random = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, 3, 4, 4, generator=random)
    return nn.functional.interpolate(coarse, size=size, mode="bilinear")


def block(width_in: int, width: int, kernel: int, groups: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(width_in, width, kernel, padding=kernel // 2, groups=groups, bias=False), nn.ReLU6()]


def depthwise_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *block(3, 16, 3),
        *block(16, 16, 3, groups=16),
        *block(16, 64, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    return depthwise_network().eval()


@pytest.fixture(scope="module")
def fp32(network: nn.Module, export: Export, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return exported(network, export, tmp_path_factory.mktemp("fp32"))


def exported(network: nn.Module, export: Export, folder: Path, **changes: object) -> bytes:
    export(network, folder / "model.onnx", metadata={"recipe": "mine"}, **{**IDENTITY, **changes})
    return (folder / "model.onnx").read_bytes()


def metadata(model: bytes) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load_from_string(model).metadata_props}


def quantised(model: bytes, architecture: Architecture, size: int = SIZE) -> tuple[bytes, Quantisation]:
    return Quantiser(model, make_images(48, size), make_images(24, size)).quantise(architecture)


def beside(model: bytes, network: nn.Module, *, in_float: bool = False, size: int = SIZE) -> Parity:
    images = make_images(31, size)
    with torch.no_grad():
        return compare_features(OnnxNetwork(model, metadata(model), in_float=in_float)(images), network(images))


def integers(model: bytes) -> dict[str, np.ndarray]:
    """The 8-bit weights of each convolution, by the name of its node."""
    graph = onnx.load_from_string(model).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made_by = {node.output[0]: node for node in graph.node}
    found = {}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in made_by:
            found[node.name] = values[made_by[node.input[1]].input[0]]
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_8_bits_stay_close_to_float(architecture: Architecture, network: nn.Module, fp32: bytes) -> None:
    model, how = quantised(fp32, architecture)
    parity = beside(model, network, in_float=True)
    assert parity.cosine > 0.999
    assert parity.max_error < 0.05 * parity.max_feature
    assert (how.calibration_images, how.held_out_images) == (48, 24)
    assert how.agreement == max(how.agreement_per_tensor, how.agreement_per_channel) > 0.99
    assert how.float_layers == ()

    weights = integers(model)
    assert len(weights) == 3
    assert {array.dtype for array in weights.values()} == {np.dtype(np.int8)}
    largest = max(int(np.abs(array.astype(int)).max()) for array in weights.values())
    assert largest == 127 if architecture == "arm" else largest <= 64
    graph = onnx.load_from_string(model).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    zeros = [values[node.input[2]].dtype for node in graph.node if node.op_type == "QuantizeLinear"]
    assert zeros
    assert set(zeros) == {np.dtype(np.uint8)}


def test_the_x86_file_is_right_on_any_x86(network: nn.Module, fp32: bytes) -> None:
    """And on ARM: 7 bits overflow nowhere, so integer kernels compute what the nodes say."""
    model, _ = quantised(fp32, "x86")
    images = make_images(31)
    by_kernels, as_written = (
        OnnxNetwork(model, metadata(model), in_float=in_float)(images) for in_float in (False, True)
    )
    # A value on the edge between two levels may fall on either side.
    assert compare_features(by_kernels, as_written).mean_error < 0.002 * float(as_written.abs().max())
    assert beside(model, network).cosine > 0.999


@pytest.mark.parametrize("precision", ["fp16", *ARCHITECTURES])
def test_the_file_is_valid_and_says_what_it_is(precision: str, fp32: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(to_fp16(fp32) if precision == "fp16" else quantised(fp32, precision)[0])  # type: ignore[arg-type]
    onnx.checker.check_model(path, full_check=True)
    description = describe_model(path)
    assert (description.precision, description.architecture) == (
        ("fp16", "any") if precision == "fp16" else ("int8", precision)
    )
    assert description.metadata == metadata(fp32) | {
        "precision": description.precision,
        "architecture": description.architecture,
    }
    assert description.metadata["recipe"] == "mine"
    assert description.opset == 18
    assert description.input_shape == ("batch", 3, SIZE, SIZE)
    assert description.output_shape == ("batch", 64)
    for trace in (b"site-packages", b".py", str(Path.cwd()).encode(), str(tmp_path).encode()):
        assert trace not in path.read_bytes()
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        (features,) = session.run(None, {"images": make_images(batch).numpy()})
        assert features.shape == (batch, 64)
        assert features.dtype == np.float32


def test_fp16_halves_the_weights_and_keeps_the_features(network: nn.Module, fp32: bytes) -> None:
    model = to_fp16(fp32)
    parity = beside(model, network)
    assert 1e-6 < parity.max_error < 2e-3 * parity.max_feature
    assert parity.cosine > 0.99999
    initializers = onnx.load_from_string(model).graph.initializer
    weights = [tensor.data_type for tensor in initializers if len(tensor.dims) == 4 and max(tensor.dims) > 3]
    assert weights == [onnx.TensorProto.FLOAT16] * 3


def test_the_same_file_comes_out_again(fp32: bytes) -> None:
    assert quantised(fp32, "arm") == quantised(fp32, "arm")


def test_weights_of_very_different_channels_get_a_scale_each(export: Export, tmp_path: Path) -> None:
    network = depthwise_network()
    with torch.no_grad():
        network[2].weight[0] *= 500  # ReLU6 keeps the output small
    _, how = quantised(exported(network, export, tmp_path), "arm")
    assert how.agreement_per_tensor < 0.9 < 0.99 < how.agreement_per_channel
    assert how.per_channel


@pytest.mark.parametrize("allowed", [0.0, 0.5])
def test_the_dearest_layers_are_left_in_float(
    allowed: float, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One channel between two layers is a thousand times as large as the others: 8 bits leave nothing of these."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *block(3, 16, 3),
        nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
        nn.Conv2d(16, 64, 1, bias=False),
        nn.ReLU6(),
        *block(64, 64, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    with torch.no_grad():
        network[2].weight[0] *= 1000
        network[3].weight[:, 0] /= 1000
    monkeypatch.setattr(quantise, "MAX_FLOAT_WEIGHTS", allowed)
    model, how = quantised(exported(network, export, tmp_path), "arm")
    assert max(how.agreement_per_tensor, how.agreement_per_channel) < 0.99
    if allowed:
        assert how.agreement >= 0.99
        assert 1 <= len(how.float_layers) <= 2
        assert len(integers(model)) == 4 - len(how.float_layers)
        assert beside(model, network, in_float=True).cosine > 0.99
    else:
        assert how.float_layers == ()
        assert len(integers(model)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_transformer_keeps_its_features_too(
    architecture: Architecture, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it adds to its stream in float: with sums in 8 bits little of them is left."""
    monkeypatch.setattr(quantise, "MIN_AGREEMENT", -1)
    torch.manual_seed(0)
    network = ViTTiny(patch=4, image_size=32).eval()
    fp32 = exported(network, export, tmp_path, input_size=32)
    model, how = quantised(fp32, architecture, size=32)
    assert how.agreement > 0.9  # these images differ little for a network that learned nothing
    assert beside(model, network, size=32).cosine > 0.99
    assert len(model) < 0.3 * len(fp32)
    assert beside(to_fp16(fp32), network, size=32).cosine > 0.9999


def test_agreement_does_not_see_what_all_images_share() -> None:
    torch.manual_seed(0)
    expected, noise = torch.randn(50, 20), torch.randn(50, 20)
    assert agreement(expected, expected) == pytest.approx(1)
    for shared in (0.0, 100.0):
        assert agreement(expected + noise + shared, expected + shared) == pytest.approx(0.5**0.5, abs=0.05)


def test_a_network_without_layers_is_refused(export: Export, tmp_path: Path) -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ExportError, match="no layer that could be quantised"):
        quantised(exported(network, export, tmp_path), "arm")
