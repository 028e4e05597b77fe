import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from lightssl.deploy.emulator import emulated_networks
from lightssl.deploy.mobile import check_accelerators, to_ort
from lightssl.deploy.onnx import read_metadata
from lightssl.deploy.quantise import Architecture, Quantiser
from lightssl.errors import ExportError, TargetError


def chain(*operators: str) -> bytes:
    """One node after the other on images of 8 pixels."""
    nodes = [helper.make_node(name, [f"x{i}"], [f"x{i + 1}"]) for i, name in enumerate(operators)]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, 8, 8]) for name in ("x0", f"x{len(nodes)}")
    ]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def normalised(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(count))


def quantised(model: Path, architecture: Architecture) -> bytes:
    return Quantiser(model.read_bytes(), normalised(16), normalised(8)).quantise(architecture)[0]


def features(model: bytes) -> np.ndarray:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {"images": torch.sigmoid(normalised(5)).numpy()})[0]
    return result


@pytest.mark.parametrize(
    ("operators", "supported", "partitions", "suitable"),
    [
        (["Relu", "Sigmoid", "Abs"], 3, 1, "yes"),
        (["Relu", "Erf", "Abs"], 2, 2, "no"),
        (["Relu", "Sigmoid", "Abs", "Neg", "Erf", "Relu"], 5, 2, "maybe"),
        (["Erf"], 0, 0, "no"),
    ],
)
def test_operators_and_pieces_are_counted(
    operators: list[str], supported: int, partitions: int, suitable: str, capfd: pytest.CaptureFixture[str]
) -> None:
    nnapi, *_ = check_accelerators(chain(*operators))
    assert (nnapi.name, nnapi.nodes) == ("NNAPI", len(operators))
    assert (nnapi.supported_nodes, nnapi.partitions, nnapi.suitable) == (supported, partitions, suitable)
    assert nnapi.unsupported_operators == (("ai.onnx:Erf",) if "Erf" in operators else ())
    assert capfd.readouterr() == ("", "")


def test_a_whole_network_suits_accelerators_with_one_image_at_a_time(model: Path) -> None:
    """Whatever batch the file takes, which is what keeps them from it as it is."""
    nnapi, _, ml_program = check_accelerators(model.read_bytes())
    for accelerator in (nnapi, ml_program):
        assert (accelerator.suitable, accelerator.partitions) == ("yes", 1)
        assert accelerator.supported_nodes == accelerator.nodes > 3


@pytest.mark.parametrize("architecture", ["any", "arm", "x86"])
def test_the_other_format_computes_the_same(architecture: str, model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = model.read_bytes() if architecture == "any" else quantised(model, architecture)  # type: ignore[arg-type]
    converted, operators = to_ort(content, architecture)
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(converted)
    np.testing.assert_allclose(features(converted), features(content), atol=1e-6)
    session = ort.InferenceSession(converted, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["mean"] == read_metadata(model)["mean"]
    listed = {name for line in operators.splitlines() for name in line.split(";")[2].split(",")}
    assert "QLinearConv" in listed if architecture != "any" else listed & {"Conv", "FusedConv"}
    for trace in (b"/tmp", str(Path.cwd()).encode()):
        assert trace not in converted + operators.encode()
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("qemu-aarch64-static") and shutil.which("aarch64-linux-gnu-gcc")),
    reason="needs qemu-user-static and gcc-aarch64-linux-gnu",
)
def test_the_arm_file_computes_the_same_on_arm(model: Path, tmp_path: Path) -> None:
    content = quantised(model, "arm")
    files = {tmp_path / "model.onnx": content, tmp_path / "model.ort": to_ort(content, "arm")[0]}
    for file, written in files.items():
        file.write_bytes(written)
    try:
        with torch.inference_mode(), emulated_networks(dict.fromkeys(files, read_metadata(model))) as networks:
            one, other = (networks[file](normalised(3)) for file in files)
    except TargetError as error:
        if "pip" not in error.message:
            raise
        pytest.skip(f"needs the ARM wheel of onnxruntime: {error.message}")
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_what_is_no_model_is_not_converted() -> None:
    for content in (b"\xff" * 99, b"", chain("Nothing")):
        with pytest.raises(ExportError, match=r"cannot be converted to \.ort"):
            to_ort(content, "any")
        assert check_accelerators(content) == ()
