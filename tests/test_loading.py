"""Weights that lie by themselves, taken as a run."""

import json
from pathlib import Path
from shutil import copyfile

import pytest
import torch

import lightssl
from lightssl.errors import CheckpointError
from lightssl.pipeline.loading import as_run
from lightssl.runs import Run


@pytest.fixture
def run(photos: Path, tmp_path: Path, tiny: list[str]) -> Run:
    overrides = [*tiny, "train.keep_every=3 steps"]
    return lightssl.pretrain("mobilenetv2_dino", data=str(photos), overrides=overrides, out=tmp_path / "run")


def sent(weights: Path, folder: Path) -> Path:
    """Copy weights and their description, as somebody sends them."""
    folder.mkdir()
    for suffix in (".safetensors", ".json"):
        copyfile(weights.with_suffix(suffix), folder / f"theirs{suffix}")
    return folder / "theirs.safetensors"


def test_the_weights_of_a_run_are_that_run(run: Run) -> None:
    assert as_run(run.weights_path).folder == run.folder
    assert not run.weights_path.with_suffix("").exists()


def test_a_backbone_that_was_kept_is_measured_by_itself(run: Run) -> None:
    kept = next(iter(run.kept().values()))
    written = lightssl.evaluate(kept, tasks=["knn"], random=False)["knn"]
    made = Run(kept.with_suffix(""))
    assert json.loads(made.evaluation_path("knn").read_text()) == written
    assert written["data"]["train_images"] == 24  # of the images that the run was trained on
    assert not run.evaluation_path("knn").exists()
    compared = lightssl.evaluate(run, tasks=["knn"], checkpoints=True)["knn"]["results"]
    assert compared[0]["top1"] == written["results"][0]["top1"]
    assert len(run.kept()) == len(compared)  # the folder is not taken for one more
    lightssl.evaluate(kept, tasks=["knn"], random=False)  # once more


def test_weights_alone_say_enough_of_themselves(run: Run, photos: Path, tmp_path: Path) -> None:
    weights = sent(run.weights_path, tmp_path / "elsewhere")
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(lightssl.load_backbone(weights)(images), lightssl.load_backbone(run)(images))
    written = lightssl.evaluate(weights, tasks=["knn"], data=str(photos), random=False)
    assert written == lightssl.evaluate(run, tasks=["knn"], random=False)
    made = as_run(weights)
    assert made.recipe()["backbone"] == run.recipe()["backbone"]
    assert made.recipe()["evaluation"]["image_size"] == run.recipe()["evaluation"]["image_size"]
    assert "theirs.safetensors" in lightssl.report(made).read_text(encoding="utf-8")
    lightssl.export(weights)
    assert made.onnx_path.exists()


def test_weights_of_a_recipe_that_is_not_here_do_as_well(run: Run, photos: Path, tmp_path: Path) -> None:
    weights = sent(run.weights_path, tmp_path / "elsewhere")
    described = weights.with_suffix(".json")
    described.write_text(json.dumps({**json.loads(described.read_text()), "recipe": "nobody_knows"}))
    written = lightssl.evaluate(weights, tasks=["knn"], data=str(photos), random=False)
    expected = lightssl.evaluate(run, tasks=["knn"], random=False)
    assert written["knn"]["results"] == expected["knn"]["results"]


def test_other_weights_in_the_place_are_told(run: Run, tmp_path: Path) -> None:
    weights = sent(run.weights_path, tmp_path / "elsewhere")
    as_run(weights)
    copyfile(next(iter(run.kept().values())), weights)
    with pytest.raises(CheckpointError, match="holds a run of other weights"):
        as_run(weights)
    weights.with_suffix(".json").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        as_run(weights)


def test_a_classifier_that_was_sent_stays_one(run: Run, tmp_path: Path) -> None:
    settings = ["finetune.epochs=1", "finetune.batch_size=8"]
    lightssl.evaluate(run, tasks=["finetune"], overrides=settings, random=False)
    weights = sent(run.made_by("finetune").weights_path, tmp_path / "elsewhere")
    assert lightssl.export(weights).output.name == "logits"
