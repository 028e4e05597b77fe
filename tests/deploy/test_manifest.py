from pathlib import Path

import pytest

from lightssl.deploy.manifest import (
    ExportedFile,
    Manifest,
    ModelInput,
    ModelOutput,
    OrtFile,
    manifest_path,
    read_manifest,
    write_manifest,
)
from lightssl.deploy.mobile import Accelerator
from lightssl.deploy.parity import Parity
from lightssl.deploy.quantise import Quantisation
from lightssl.errors import ExportError


@pytest.fixture
def manifest() -> Manifest:
    quantisation = Quantisation(
        activations="uint8",
        weights="int8",
        per_channel=True,
        float_layers=("first", "last"),
        calibration_images=128,
        held_out_images=64,
        agreement=0.995,
        agreement_per_tensor=0.9,
        agreement_per_channel=0.98,
    )
    accelerator = Accelerator(
        name="NNAPI", suitable="maybe", nodes=9, supported_nodes=8, partitions=2, unsupported_operators=("ai.onnx:Erf",)
    )
    file = ExportedFile(
        file="model.int8.arm.onnx",
        precision="int8",
        architecture="arm",
        bytes=1,
        sha256="0f",
        opset=18,
        parity=Parity(images=32, max_error=0.1, mean_error=0.01, max_feature=3.0, cosine=0.999),
        computed_in="float",
        quantisation=quantisation,
        accelerators=(accelerator,),
        ort=OrtFile(file="model.int8.arm.ort", operators="operators.config", bytes=1, sha256="1e", max_error=0.0),
    )
    return Manifest(
        recipe="mobilenetv2_dino",
        scale="quick",
        backbone="mobilenetv2",
        input=ModelInput(
            name="images", size=32, range="0..1", normalisation="inside", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)
        ),
        output=ModelOutput(name="features", width=1280),
        classes=["cat", "dog"],
        calibration="photos",
        versions={"onnx": "1.20", "timm": None},
        files=[file],
    )


def test_it_is_read_as_it_was_written(manifest: Manifest, tmp_path: Path) -> None:
    path = manifest_path(tmp_path / "model.onnx")
    write_manifest(path, manifest)
    assert path == tmp_path / "manifest.json"
    assert read_manifest(path) == manifest


def test_none_is_no_error(tmp_path: Path) -> None:
    assert read_manifest(tmp_path / "manifest.json") is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"name": "a web page", "icons": []}', "\x00\xff"])
def test_a_damaged_or_foreign_one_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(content)
    with pytest.raises(ExportError, match=r"manifest\.json is not a manifest of lightssl's"):
        read_manifest(path)
