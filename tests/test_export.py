"""``lightssl export`` and ``lightssl verify``, from a run to files that are checked against it."""

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image

import lightssl
from lightssl.deploy import quantise
from lightssl.deploy.manifest import Manifest
from lightssl.errors import DataError, ExportError, LightSSLError
from lightssl.pipeline import verifying
from lightssl.runs import Run

pytestmark = pytest.mark.slow

FILES = ["model.onnx", "model.fp16.onnx", "model.int8.arm.onnx", "model.int8.x86.onnx"]
ORT_FILES = ["model.ort", None, "model.int8.arm.ort", "model.int8.x86.ort"]
COSINES = {"fp32": 0.999999, "fp16": 0.9999, "int8": 0.95}  # that a network which learned nothing reaches at least
SETTINGS = [
    "backbone.width=0.25",
    "method.hidden=16",
    "method.bottleneck=8",
    "method.prototypes=16",
    "views.global_size=32",
    "views.local.count=2",
    "evaluation.image_size=32",
    "train.batch_size=8",
    "train.duration=2 steps",
    "data.workers=0",
]


def write_photos(folder: Path, count: int) -> Path:
    """Two colours in random blocks."""
    rng = np.random.default_rng(count)
    for name, colour in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.array(colour) + rng.normal(0, 60, (5, 6, 3))
            blocks = np.clip(pixels, 0, 255).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
            Image.fromarray(blocks).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Manifest]:
    """A tiny run in all precisions, calibrated on other images than it was trained on."""
    folder = tmp_path_factory.mktemp("exported")
    run = lightssl.pretrain(data=str(write_photos(folder / "photos", 15)), overrides=SETTINGS, out=folder / "run")
    unlabelled = write_photos(folder / "others", 9) / "red"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantise, "MIN_AGREEMENT", -1)  # a network that learned nothing: no layer is worth sparing
        return run, lightssl.export(run, fp16=True, int8=True, ort=True, calibrate=str(unlabelled))


def test_the_manifest_says_what_lies_beside_it(exported: tuple[Run, Manifest]) -> None:
    run, manifest = exported
    folder = run.onnx_path.parent
    ort_files = {name for file in manifest.files if file.ort for name in (file.ort.file, file.ort.operators)}
    assert {path.name for path in folder.glob("*")} - {"verify.json"} == {*FILES, *ort_files, "manifest.json"}
    assert [file.file for file in manifest.files] == FILES
    assert [(file.precision, file.architecture) for file in manifest.files] == [
        ("fp32", "any"),
        ("fp16", "any"),
        ("int8", "arm"),
        ("int8", "x86"),
    ]
    written = json.loads((folder / "manifest.json").read_text())
    assert written == json.loads(manifest.model_dump_json())
    assert (written["recipe"], written["backbone"], written["scale"]) == ("mobilenetv2_dino", "mobilenetv2", "quick")
    assert written["classes"] == ["blue", "red"]
    assert written["input"]["size"] == 32
    assert written["input"]["normalisation"] == "inside"
    assert written["output"]["width"] == lightssl.load_backbone(run).feature_width
    assert Path(written["calibration"]).parts[-2:] == ("others", "red")
    assert written["versions"]["onnxruntime"] == ort.__version__
    for file in manifest.files:
        content = (folder / file.file).read_bytes()
        assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        onnx.checker.check_model(folder / file.file, full_check=True)
        session = ort.InferenceSession(folder / file.file, providers=["CPUExecutionProvider"])
        assert [(node.name, node.type) for node in session.get_inputs()] == [("images", "tensor(float)")]
        assert file.parity.images == 30
        assert file.parity.cosine > COSINES[file.precision]
        assert file.opset == 18
        assert file.accelerators[0].name == "NNAPI"
    assert [file.ort and file.ort.file for file in manifest.files] == ORT_FILES
    for ort_file in (file.ort for file in manifest.files if file.ort):
        content = (folder / ort_file.file).read_bytes()
        assert (ort_file.bytes, ort_file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert "Conv" in (folder / ort_file.operators).read_text()
    fp32, fp16, arm, x86 = manifest.files
    assert fp32.parity.max_error < 1e-4 * fp32.parity.max_feature
    assert fp32.parity.max_error < fp16.parity.max_error < arm.parity.max_error
    assert fp32.quantisation is None
    assert arm.quantisation is not None
    assert x86.quantisation is not None
    assert arm.quantisation.calibration_images + arm.quantisation.held_out_images == 9
    assert (arm.quantisation.weights, x86.quantisation.weights) == ("int8", "int8, 7 bits of it")
    assert fp16.bytes < 0.6 * fp32.bytes


def test_each_file_is_verified_against_torch(exported: tuple[Run, Manifest]) -> None:
    run, manifest = exported
    result = lightssl.verify(run=run)
    assert json.loads(run.verification_path.read_text()) == result
    torch_row, *rows = result["rows"]
    expected = lightssl.evaluate(run, tasks=["knn"])["knn"]["results"][0]["top1"]
    assert torch_row["top1"] == pytest.approx(expected)
    assert [row["sha256"] for row in rows] == [file.sha256 for file in manifest.files]
    assert rows[0]["top1"] == pytest.approx(expected)
    for row in rows:
        assert row["images"] == 6  # a fifth of the photos
        assert row["cosine"] > COSINES[row["precision"]]
        assert 0 <= row["top1"] <= 100


@pytest.mark.skipif(
    not (shutil.which("qemu-aarch64-static") and shutil.which("aarch64-linux-gnu-gcc")),
    reason="needs qemu-user-static and gcc-aarch64-linux-gnu",
)
def test_files_are_verified_as_another_processor_computes_them(
    exported: tuple[Run, Manifest],
    program: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Run(shutil.copytree(exported[0].folder, tmp_path / "run"))
    here = lightssl.verify(run=run)
    path = run.verification_path
    before = path.read_bytes()
    done = program("verify", "--run", "run", "--arch", "aarch64", "--json", check=False)
    if "with pip" in done.stderr:
        pytest.skip(f"needs the ARM wheel of onnxruntime: {done.stderr}")
    there = json.loads(done.stdout)
    assert there == json.loads(path.with_name("verify_aarch64.json").read_text())
    assert path.read_bytes() == before
    assert here["rows"][0] == there["rows"][0]  # so small a network is compared on all images
    for one, other in zip(here["rows"][1:], there["rows"][1:], strict=True):
        assert one["computed_in"] == ("float" if one["architecture"] == "arm" else one["precision"])
        assert (other["computed_in"], other["computed_on"]) == (one["precision"], "aarch64 under qemu")
        assert (other["sha256"], other["images"]) == (one["sha256"], one["images"])
        assert other["cosine"] == pytest.approx(one["cosine"], abs=0.01)
        assert not [key for key in other if "ms" in key.split("_")]  # times there mean nothing
    assert here["rows"][1]["max_error"] != there["rows"][1]["max_error"]  # fp32 is rounded differently

    monkeypatch.setattr(verifying, "_EMULATED_FLOPS", 0)
    reference, row = lightssl.verify([run.onnx_path], arch="aarch64")["rows"]
    assert (reference["top1"], row["top1"], row["images"]) == (None, None, 6)
    assert row["cosine"] > COSINES["fp32"]


def test_without_labels_features_alone_are_compared(
    exported: tuple[Run, Manifest], tmp_path: Path, program: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    run, _ = exported
    shutil.copytree(run.folder, tmp_path / "run")
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    environment["data"] = str(write_photos(tmp_path / "photos", 12) / "red")
    (tmp_path / "run" / "environment.json").write_text(json.dumps(environment))

    done = program("verify", "run/export/model.onnx", "--json")
    assert "No accuracy: " in done.stderr
    torch_row, row = json.loads(done.stdout)["rows"]
    assert torch_row["top1"] is None
    assert row["top1"] is None
    assert row["images"] == 12
    shown = program("verify", "run/export/model.onnx", "--data", "photos").stdout
    assert re.search(r"model\.onnx .* fp32 .*\.\d %", shown)
    with pytest.raises(DataError, match="no labels"):
        lightssl.verify(run=tmp_path / "run", data=environment["data"])
    assert lightssl.export(tmp_path / "run", out=tmp_path / "model.onnx").classes is None


def test_a_file_that_is_not_the_exported_one_is_refused(exported: tuple[Run, Manifest], tmp_path: Path) -> None:
    run = Run(shutil.copytree(exported[0].folder, tmp_path / "run"))
    model = run.onnx_path
    whole = model.read_bytes()

    model.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ExportError, match=r"model\.onnx is not an ONNX model"):
        lightssl.verify(run=run)

    changed = onnx.load_from_string(whole)
    changed.graph.initializer[0].raw_data = bytes(len(changed.graph.initializer[0].raw_data))
    model.write_bytes(changed.SerializeToString())
    with pytest.raises(ExportError, match="has changed since it was exported"):
        lightssl.verify(run=run)

    model.with_name("manifest.json").unlink()
    changed.graph.node[0].op_type = "Nothing"
    model.write_bytes(changed.SerializeToString())
    with pytest.raises(ExportError, match="not valid ONNX"):
        lightssl.verify([model])

    changed = onnx.load_from_string(whole)
    changed.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    del changed.graph.value_info[:]
    model.write_bytes(changed.SerializeToString())
    with pytest.raises(ExportError, match=r"\[batch, 3, 32, 32\]|not valid ONNX"):
        lightssl.verify([model])

    (tmp_path / "lone.onnx").write_bytes(whole)
    with pytest.raises(LightSSLError, match=r"does not lie in a run"):
        lightssl.verify([tmp_path / "lone.onnx"])
    assert lightssl.verify([tmp_path / "lone.onnx"], run=run)["rows"][1]["cosine"] > 0.9999


def test_what_cannot_be_exported_leaves_everything_as_it_was(exported: tuple[Run, Manifest], tmp_path: Path) -> None:
    run, _ = exported
    before = {path: path.read_bytes() for path in run.onnx_path.parent.glob("*.*") if path.name != "verify.json"}
    few = write_photos(tmp_path / "few", 3)
    with pytest.raises(DataError, match="6 images that can be used: too few to calibrate on"):
        lightssl.export(run, int8=True, calibrate=str(few))
    with pytest.raises(DataError, match="no folder or file"):
        lightssl.export(run, int8=True, calibrate=str(tmp_path / "none"))
    assert before == {path: path.read_bytes() for path in before}

    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(ExportError, match="not a manifest of lightssl's"):
        lightssl.export(run, out=tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
