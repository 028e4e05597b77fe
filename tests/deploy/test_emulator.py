"""With real qemu and ONNX Runtime's real build for ARM, where what they take is installed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lightssl.deploy import emulator
from lightssl.deploy.emulator import EmulatedNetwork, emulated_networks
from lightssl.deploy.onnx import describe_model
from lightssl.deploy.parity import OnnxNetwork, compare_features
from lightssl.deploy.quantise import Architecture, Quantiser, to_fp16
from lightssl.errors import ExportError, TargetError

TOOLS = ("qemu-aarch64-static", "aarch64-linux-gnu-gcc")
needs_tools = pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS)}")


def blobs(count: int, seed: int) -> torch.Tensor:
    """Normalised images of different colours: float32 [N, 3, 16, 16]."""
    coarse = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=16, mode="bilinear")


@needs_tools
@pytest.mark.slow
@pytest.mark.usefixtures("arm_library")
def test_it_computes_what_each_file_says(
    network: nn.Module, model: Path, build: Callable[..., nn.Module], tmp_path: Path
) -> None:
    """The integer kernels of ARM, unlike those of some x86 processors, are right for the full range of weights."""
    fp32, quantiser = model.read_bytes(), Quantiser(model.read_bytes(), blobs(32, 1), blobs(16, 2))
    contents = {"fp32": fp32, "fp16": to_fp16(fp32)}
    architectures: tuple[Architecture, ...] = ("arm", "x86")
    contents |= {name: quantiser.quantise(name)[0] for name in architectures}
    files = {name: tmp_path / f"{name}.onnx" for name in contents}
    for name, content in contents.items():
        files[name].write_bytes(content)
    metadata = {file: describe_model(file).metadata for file in files.values()}
    images = blobs(9, 3)
    with torch.inference_mode(), emulated_networks(metadata) as networks:
        expected = network.eval()(images)
        parities = {name: compare_features(networks[file](images), expected) for name, file in files.items()}
        for name in architectures:
            as_written = OnnxNetwork(contents[name], metadata[files[name]], in_float=True)(images)
            by_kernels = networks[files[name]](images)
            torch.testing.assert_close(networks[files[name]](images), by_kernels, rtol=0, atol=0)
            # A value on the edge between two levels may fall on either side.
            assert compare_features(by_kernels, as_written).mean_error < 0.002 * float(as_written.abs().max())
    assert parities["fp32"].max_error < 1e-5 * parities["fp32"].max_feature
    assert 1e-6 < parities["fp16"].max_error < 5e-3 * parities["fp16"].max_feature
    for name in architectures:
        assert parities[name].max_error < 0.05 * parities[name].max_feature
        assert parities[name].cosine > 0.999


@needs_tools
@pytest.mark.usefixtures("arm_library")
def test_what_the_runtime_says_against_a_file_is_told_and_nothing_goes_on_running(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\xff" * 100)
    told = r"broken\.onnx fails on images \[3, 16, 16\] on aarch64: .*[Pp]rotobuf"
    with emulated_networks({broken: {}}) as networks, pytest.raises(ExportError, match=told):
        networks[broken](torch.zeros(2, 3, 16, 16))
    assert networks[broken]._process.poll() is not None


def test_an_emulator_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulator, "_SECONDS", 0.2)
    network = EmulatedNetwork(["sh", "-c", "exec sleep 600"], tmp_path, tmp_path / "model.onnx", {})
    try:
        with pytest.raises(ExportError, match=r"model\.onnx fails .* none within 0\.2 s"):
            network(torch.zeros(1, 3, 224, 224))  # more than a pipe holds
        assert network._process.poll() is not None
    finally:
        network.close()


def test_without_an_emulator_it_says_what_to_install(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulator.shutil, "which", lambda name: None)
    with pytest.raises(TargetError, match="needs qemu-aarch64-static") as caught, emulated_networks({model: {}}):
        pass
    assert caught.value.hint == "Install it: apt install qemu-user-static"
