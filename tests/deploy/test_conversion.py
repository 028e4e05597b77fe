"""Every runtime is held against torch, and started as an app would: from its files alone, in a process of its own."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lightssl.backbones import BACKBONES
from lightssl.backbones.batchnorm import estimate_batch_norm
from lightssl.deploy import conversion
from lightssl.deploy.conversion import convert, converter, write_for
from lightssl.deploy.profile import bench, load_profile
from lightssl.deploy.quantise import Quantiser, to_fp16
from lightssl.deploy.runner import runner_path
from lightssl.deploy.runtimes import RUNTIMES
from lightssl.errors import ConfigError, ExportError, TargetError

SIZE = 32
QUICK: dict[str, Any] = {"threads": [1], "warmup": 0, "min_samples": 1, "min_seconds": 0}
PACKAGES = {
    "openvino": ["openvino"],
    "ncnn": ["ncnn", "pnnx"],
    "executorch": ["executorch"],
    "litert": ["ai_edge_litert", "litert_torch"],
}
NEEDED = {"executorch": {"torch"}}  # by its interface to Python

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mobilenetv2": lambda: BACKBONES["mobilenetv2"](width=0.25),
    "resnet18": lambda: BACKBONES["resnet18"](),
    "vit_tiny": lambda: BACKBONES["vit_tiny"](patch=8, image_size=SIZE),
    # Other numbers of heads, tokens and layers.
    "vit": lambda: VisionTransformer(img_size=SIZE, patch_size=4, embed_dim=40, depth=2, num_heads=5, num_classes=0),
}

Exported = tuple[Path, nn.Module]


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    for package in PACKAGES[name]:
        pytest.importorskip(package, reason=f"pip install 'lightssl[{name}]'")
    return name


@pytest.fixture(scope="module", params=NETWORKS)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, export: Callable[..., object]
) -> Exported:
    torch.manual_seed(0)
    network = NETWORKS[request.param]()
    # As initialised, the features of a network with batch norm are all but nothing.
    estimate_batch_norm(network, [torch.randn(16, 3, SIZE, SIZE)])
    path = tmp_path_factory.mktemp(request.param) / "model.onnx"
    export(network, path, input_size=SIZE)
    return path, network


def test_the_files_compute_what_torch_does(runtime: str, exported: Exported, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(exported[0].read_bytes())
    written = write_for(runtime, model, exported[1])
    assert written.runtime == runtime
    assert written.parity.max_feature > 0.1
    assert written.parity.max_error < 1e-4 * written.parity.max_feature
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path != model}
    assert written.sha256 == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert written.bytes == sum(map(len, files.values()))
    assert all(name.startswith("model.") for name in files)


@pytest.mark.parametrize("inside", [True, False])
def test_runtimes_are_timed_beside_onnx_runtime(
    runtime: str, inside: bool, network: nn.Module, tmp_path: Path, export: Callable[..., object]
) -> None:
    model = tmp_path / "tiny.onnx"
    export(network, model, include_normalisation=inside)
    rows = bench(model, load_profile("cpu"), network=network, settings={**QUICK, "runtimes": [runtime]})
    assert [row.runtime for row in rows] == ["onnxruntime", runtime, "torch eager"]
    row = rows[1]
    assert row.runtime_version[0].isdigit()
    assert (row.kind, row.threads, row.batch, row.samples) == ("measured", 1, 1, 1)
    assert max(row.max_error_vs_torch, row.max_error_vs_host) < 1e-5
    assert row.load_ms
    assert row.memory_before_load_mib <= row.peak_memory_mib
    assert list(tmp_path.iterdir()) == [model]


def test_a_file_that_computes_something_else_is_not_written(
    runtime: str, model: Path, network: nn.Module, tmp_path: Path, export: Callable[..., object], monkeypatch: Any
) -> None:
    """The network given is another one than the one in the file, whichever of them the runtime converts."""
    other = nn.Sequential(network, nn.Softmax(dim=1)).eval()
    path = tmp_path / "other.onnx"
    export(other, path)
    monkeypatch.setattr(conversion, "convert", lambda name, _, __, folder: convert(name, path, other, folder))
    copy = tmp_path / "model.onnx"
    copy.write_bytes(model.read_bytes())
    with pytest.raises(ExportError, match="does not compute what the network does"):
        write_for(runtime, copy, network)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "other.onnx"]


def test_a_runtime_that_is_not_installed_names_its_extra(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {*sys.modules, *PACKAGES[runtime]}:
        if name.split(".")[0] in PACKAGES[runtime]:
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"lightssl.deploy.runtimes.{runtime}", raising=False)
    with pytest.raises(ExportError, match=rf"lightssl\[{runtime}\]"):
        converter(runtime)


def test_a_runtime_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'ncnn'"):
        converter("nccn")


def test_the_child_holds_nothing_but_the_runtime(runtime: str, model: Path, network: nn.Module, tmp_path: Path) -> None:
    file = convert(runtime, model, network, tmp_path)
    command = [sys.executable, "-X", "importtime", str(runner_path(runtime)), str(file), "--warmup=0"]
    process = subprocess.run(
        [*command, "--min-samples=1", "--min-seconds=0"], capture_output=True, text=True, timeout=60, check=True
    )
    imported = {line.split("|")[-1].strip().split(".")[0] for line in process.stderr.splitlines() if "|" in line}
    assert "numpy" in imported
    assert not imported & ({"lightssl", "torch", "onnx", "onnxruntime"} - NEEDED.get(runtime, set()))


@pytest.mark.parametrize("convert_too", [True, False])
def test_openvino_never_loads_its_telemetry(convert_too: bool, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="pip install 'lightssl[openvino]'")
    spy = tmp_path / "spy" / "openvino_telemetry"
    spy.mkdir(parents=True)
    (spy / "__init__.py").write_text(f"open({str(tmp_path / 'loaded')!r}, 'w').close()")
    if convert_too:
        code = (
            "import sys; from pathlib import Path; from lightssl.deploy.conversion import convert; "
            "convert('openvino', Path(sys.argv[1]), None, Path(sys.argv[2]))"
        )
        command = ["-c", code, str(model), str(tmp_path / "out")]
    else:
        command = [str(runner_path("openvino")), str(model), "--warmup=0", "--min-samples=1", "--min-seconds=0"]
    paths = os.pathsep.join([str(spy.parent), *filter(None, sys.path)])
    subprocess.run([sys.executable, *command], env=os.environ | {"PYTHONPATH": paths}, check=True, capture_output=True)
    assert not (tmp_path / "loaded").exists()


def test_several_images_in_one_run(runtime: str, model: Path, network: nn.Module) -> None:
    def run() -> list[Any]:
        return bench(model, load_profile("cpu"), network=network, settings={**QUICK, "batch": 2, "runtimes": [runtime]})

    if runtime == "openvino":
        assert run()[1].max_error_vs_torch < 1e-5
    else:
        with pytest.raises(TargetError, match="one image at a time"):
            run()


def test_some_runtimes_need_the_torch_network(runtime: str, model: Path, tmp_path: Path) -> None:
    if runtime in ("executorch", "litert"):
        with pytest.raises(ExportError, match="made from the torch network"):
            convert(runtime, model, None, tmp_path)
    else:
        assert convert(runtime, model, None, tmp_path).exists()


class Layer(nn.Module):
    """A network of one operator."""

    def __init__(self, compute: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, images: Tensor) -> Tensor:
        return self.compute(images).mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda x: torch.where(x > 0, x, -x), r"ncnn cannot compute this network: it has no torch\.gt, torch\.where"),
        (lambda x: x.sort(dim=1).values, "pnnx cannot convert .*layer.onnx for ncnn"),
    ],
)
def test_a_network_that_ncnn_cannot_compute(
    compute: Callable[[Tensor], Tensor], message: str, tmp_path: Path, export: Callable[..., object]
) -> None:
    pytest.importorskip("pnnx", reason="pip install 'lightssl[ncnn]'")
    export(Layer(compute), tmp_path / "layer.onnx")
    with pytest.raises(ExportError, match=message):
        convert("ncnn", tmp_path / "layer.onnx", None, tmp_path / "out")


def test_ncnn_is_made_from_fp32_only(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("pnnx", reason="pip install 'lightssl[ncnn]'")
    half = tmp_path / "half.onnx"
    half.write_bytes(to_fp16(model.read_bytes()))
    with pytest.raises(ExportError, match=r"half\.onnx is fp16"):
        convert("ncnn", half, None, tmp_path / "out")


@pytest.mark.parametrize("precision", ["fp16", "int8.x86"])
def test_openvino_takes_every_precision(precision: str, model: Path, network: nn.Module, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="pip install 'lightssl[openvino]'")
    fp32, path = model.read_bytes(), tmp_path / "model.onnx"
    if precision == "fp16":
        path.write_bytes(to_fp16(fp32))
    else:
        images = torch.randn(16, 3, 16, 16)
        path.write_bytes(Quantiser(fp32, images, images[:4]).quantise("x86")[0])
    rows = bench(path, load_profile("cpu"), network=network, settings={**QUICK, "runtimes": ["openvino"]})
    assert rows[1].precision == precision[:4]
    assert rows[1].max_error_vs_torch < 0.02
