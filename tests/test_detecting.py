"""``evaluate`` of tasks that find objects, and the detector that they leave."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copyfile, rmtree
from subprocess import CompletedProcess

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import lightssl
from lightssl.deploy.detector import Findings, compare_findings
from lightssl.deploy.onnx import read_metadata
from lightssl.errors import ConfigError, DataError
from lightssl.evaluation.detector import Detector
from lightssl.pipeline.loading import load_network
from lightssl.runs import Run
from tests.processes import kill_when, start

SMALL = {
    **{"iterations": 8, "batch_size": 4, "warmup": 2, "short_sides": [48, 48], "long_side": 64, "smallest_anchor": 8},
    **{"width": 16, "hidden": 32, "regions": 16},
}


def short(task: str) -> list[str]:
    return [f"{task}.{key}={json.dumps(value)}" for key, value in SMALL.items()]


@pytest.fixture
def run(photos: Path, tmp_path: Path, tiny: list[str]) -> Run:
    return lightssl.pretrain("mobilenetv2_dino", data=str(photos), overrides=tiny, out=tmp_path / "run")


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_a_detector_from_training_to_a_timed_onnx_file(run: Run, coco: Path, task: str) -> None:
    written = lightssl.evaluate(run, tasks=[task], data=str(coco), overrides=short(task))[task]
    assert [row["network"] for row in written["results"]] == ["pre-trained", "random"]
    assert all(0 <= row["ap"] <= 100 for row in written["results"])
    assert all(("box_ap" in row) == (task == "segment") for row in written["results"])
    assert written["data"]["test_images"] == 6
    assert json.loads(run.evaluation_path(task).read_text()) == written
    with Image.open(run.picture_path(task)) as picture:
        assert picture.width > 1000

    made = run.made_by(task)
    detector = load_network(made)
    assert isinstance(detector, Detector)
    assert lightssl.load_backbone(made).feature_width == lightssl.load_backbone(run).feature_width
    manifest = lightssl.export(made)
    assert manifest.classes == ["red", "blue"]
    assert manifest.input_shape == (1, 3, 48, 64)
    assert json.loads((made.onnx_path.parent / "manifest.json").read_text()) == json.loads(manifest.model_dump_json())
    assert json.loads(read_metadata(made.onnx_path)["classes"]) == ["red", "blue"]

    # Whoever has nothing but the file finds what the network finds, also in images that were not compared.
    session = onnxruntime.InferenceSession(made.onnx_path)
    names = [output.name for output in session.get_outputs()]
    assert names == list(manifest.outputs)
    image = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    found = session.run(None, {"images": image.numpy()})
    with torch.inference_mode():
        expected = detector(image[0])
    assert found[0].shape == expected.boxes.shape
    assert found[1].dtype == np.int64
    np.testing.assert_allclose(found[2], expected.scores, atol=1e-3)
    if expected.masks is not None:
        assert found[3].shape == expected.masks.shape
    assert lightssl.export(made).sha256 == manifest.sha256  # once more, over the first

    assert lightssl.bench([made.onnx_path], settings={"threads": [1], "min_samples": 3, "min_seconds": 0})[0]["threads"]
    page = lightssl.report(run).read_text(encoding="utf-8")
    assert {"detect": "Object detection", "segment": "Instance segmentation"}[task] in page
    assert "data:image/png" in page
    assert "A detector, trained from run on 20 photographs" in lightssl.report(made).read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="fp32 alone"):
        lightssl.export(made, int8=True)
    with pytest.raises(ConfigError, match="holds a detector"):
        lightssl.verify(run=made)


def test_the_same_seed_gives_the_same_detector(run: Run, coco: Path) -> None:
    once, again = (
        lightssl.evaluate(run, tasks=["detect"], data=str(coco), overrides=short("detect"), random=False)["detect"]
        for _ in range(2)
    )
    assert once == again


def test_a_killed_evaluation_goes_on_and_ends_as_one_that_was_not(
    run: Run, coco: Path, tmp_path: Path, program: Callable[..., CompletedProcess[str]]
) -> None:
    settings = [word for text in short("detect") for word in ("--set", text)]
    arguments = ["evaluate", str(run), "--task", "detect", "--data", str(coco), *settings]
    whole = lightssl.evaluate(run, tasks=["detect"], data=str(coco), overrides=short("detect"))["detect"]
    run.evaluation_path("detect").unlink()
    states = run.under_way_path("detect")
    assert not states.exists()
    process = start(arguments, tmp_path)
    kill_when(process, lambda: len(list(states.glob("*.pt"))) == 1)  # the first network is trained
    assert not run.evaluation_path("detect").exists()
    again = program(*arguments)
    assert again.returncode == 0, again.stderr
    assert "Learning to find objects, detect, pre-trained: going on after step 8 of 8." in again.stderr
    assert json.loads(run.evaluation_path("detect").read_text()) == whole
    assert not states.exists()


def test_one_class_is_enough(run: Run, coco: Path) -> None:
    for split in ("train", "val"):
        file = coco / "annotations" / f"instances_{split}.json"
        content = json.loads(file.read_text())
        content["categories"] = content["categories"][:1]
        content["annotations"] = [one for one in content["annotations"] if one["category_id"] == 3]
        file.write_text(json.dumps(content))
    written = lightssl.evaluate(run, tasks=["detect"], data=str(coco), overrides=short("detect"), random=False)
    assert list(written["detect"]["results"][0]["by_class"]) == ["red"]


def test_a_detector_that_was_sent_is_exported_without_its_images(run: Run, coco: Path, tmp_path: Path) -> None:
    lightssl.evaluate(run, tasks=["detect"], data=str(coco), overrides=short("detect"), random=False)
    sent = tmp_path / "sent"
    sent.mkdir()
    for suffix in (".safetensors", ".json"):
        copyfile(run.made_by("detect").detector_path.with_suffix(suffix), sent / f"theirs{suffix}")
    rmtree(coco)
    manifest = lightssl.export(sent / "theirs.safetensors")
    assert manifest.classes == ["red", "blue"]
    with pytest.raises(DataError, match="There is no COCO file or folder"):
        lightssl.export(run.made_by("detect"))


def test_what_cannot_be_trained_is_told(run: Run, coco: Path) -> None:
    def detect(*more: str) -> None:
        lightssl.evaluate(run, tasks=["detect"], data=str(coco), overrides=[*short("detect"), *more], random=False)

    with pytest.raises(ConfigError, match="a short side of 64 to 48 pixels"):
        detect("detect.short_sides=[64, 48]")
    with pytest.raises(ConfigError, match="a long one of at most 40"):
        detect("detect.long_side=40")
    with pytest.raises(ConfigError, match=r"detect\.steps: unknown key"):
        detect("detect.steps=3")
    file = coco / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"] = content["annotations"][:1]
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="a single image to learn from"):
        detect()
    assert not run.made_by("detect").folder.exists()
    file.write_text(file.read_text()[:500])
    with pytest.raises(DataError, match="not in the format of COCO"):
        detect()


def test_nothing_is_written_for_data_that_cannot_be_used(run: Run, coco: Path) -> None:
    (coco / "val" / "2.png").unlink()
    with pytest.raises(DataError, match=r"2\.png"):
        lightssl.evaluate(run, tasks=["detect"], data=str(coco), overrides=short("detect"))
    with pytest.raises(DataError, match="There is no COCO file or folder"):
        lightssl.evaluate(run, tasks=["detect"], data="sample")
    with pytest.raises(ConfigError, match="other tasks and stages take other data"):
        lightssl.evaluate(run, tasks=["knn", "detect"], data=str(coco))
    with pytest.raises(ConfigError, match="Checkpoints are compared as they are"):
        lightssl.evaluate(run, tasks=["detect"], data=str(coco), checkpoints=True)
    with pytest.raises(ConfigError, match="detect has no accuracy"):
        lightssl.evaluate_suite("mine", run, data=[str(coco)], tasks=["detect"])
    assert not run.results.exists()
    assert not run.made_by("detect").folder.exists()


def test_the_program_prints_precisions(run: Run, coco: Path, program: Callable[..., CompletedProcess[str]]) -> None:
    settings = [word for text in short("detect") for word in ("--set", text)]
    printed = program("evaluate", str(run), "--task", "detect", "--data", str(coco), *settings, "--no-random").stdout
    assert "Average precision of boxes on the test images" in printed
    assert "AP50" in printed
    exported = program("export", str(run.made_by("detect")), "--onnx").stdout
    assert "a detector of 2 classes" in exported


def test_detections_are_compared_box_by_box() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40], [5, 5, 6, 6]])
    one = Findings(boxes, torch.tensor([0, 1, 1]), torch.tensor([0.9, 0.8, 0.05]))
    assert compare_findings([(one, one)]) == (2, 1.0, 0.0)  # the third is too unsure to count
    assert compare_findings([(one, Findings(*(part.flip(0) for part in one)))]).agreement == 1.0
    for other in (
        one._replace(labels=torch.tensor([1, 1, 1])),
        one._replace(scores=torch.tensor([0.5, 0.8, 0.05])),
        one._replace(boxes=boxes + torch.tensor([[3.0], [0.0], [0.0]])),
    ):
        assert compare_findings([(one, other)]).agreement == 0.5
    nothing = Findings(torch.empty(0, 4), torch.empty(0, dtype=torch.int64), torch.empty(0))
    assert compare_findings([(one, nothing)]).agreement == 0.0
    assert compare_findings([(nothing, one)]) == (0, 1.0, 0.0)
