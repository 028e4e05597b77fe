"""``evaluate`` of tasks that train the network on, and the classifier that it leaves."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import lightssl
from lightssl.checkpoint import load_checkpoint
from lightssl.config.load import validate
from lightssl.data.sources import open_splits
from lightssl.deploy.onnx import read_metadata
from lightssl.errors import ConfigError
from lightssl.evaluation import fine_tuning
from lightssl.evaluation.training import Training, UnderWay, train
from lightssl.pipeline.building import build_method, evaluation_batches
from lightssl.pipeline.fine_tuning import pretrained_start, random_start
from lightssl.pipeline.loading import load_network
from lightssl.progress import Narrator
from lightssl.runs import Run
from tests.conftest import write_photos

SHORT = ["finetune.epochs=2", "finetune.batch_size=8", "finetune.learning_rate=0.01"]


@pytest.fixture
def run(photos: Path, tmp_path: Path, tiny: list[str]) -> Run:
    return lightssl.pretrain("mobilenetv2_dino", data=str(photos), overrides=tiny, out=tmp_path / "run")


def test_a_classifier_from_fine_tuning_to_a_timed_onnx_file(run: Run, photos: Path) -> None:
    results = lightssl.evaluate(run, tasks=["finetune"], overrides=SHORT)["finetune"]["results"]
    assert [row["network"] for row in results] == ["pre-trained", "random"]
    assert results[0]["epochs"] == 2

    manifest = lightssl.export(run.made_by("finetune"), fp16=True)
    onnx = run.made_by("finetune").onnx_path
    assert (manifest.output.name, manifest.output.width, manifest.classes) == ("logits", 2, ["blue", "red"])
    assert json.loads(read_metadata(onnx)["classes"]) == ["blue", "red"]

    # Whoever has nothing but the file names as many images right as the evaluation says.
    recipe = validate(run.recipe(), origin="the run")
    _, test, _ = open_splits(str(photos), seed=recipe.train.seed)
    session = onnxruntime.InferenceSession(onnx)
    shown = list(evaluation_batches(test, recipe))
    pixels = np.concatenate([images.numpy() for images, _ in shown]).transpose(0, 3, 1, 2).astype(np.float32) / 255
    positions = torch.cat([positions for _, positions in shown]).numpy()
    (logits,) = session.run(["logits"], {"images": pixels})
    right = np.mean(logits.argmax(axis=1) == np.asarray(test.labels)[positions])
    assert 100 * right == pytest.approx(results[0]["top1"])

    verified = lightssl.verify([run.made_by("finetune").folder])
    assert verified["accuracy"] == "top-1"
    assert [row["top1"] for row in verified["rows"]][:2] == [results[0]["top1"]] * 2
    settings = {"threads": [1], "min_samples": 3, "min_seconds": 0}
    timed = lightssl.bench([run.made_by("finetune").folder], settings=settings)
    assert {row["model"] for row in timed} == {str(onnx)}

    page = lightssl.report(run.made_by("finetune")).read_text(encoding="utf-8")
    assert "A classifier, fine-tuned from run on 24 labelled images" in page
    assert "Fine-tuning" in lightssl.report(run).read_text(encoding="utf-8")


def test_the_classifier_is_tested_on_what_it_was_not_trained_on(run: Run, photos: Path, tmp_path: Path) -> None:
    elsewhere = write_photos(tmp_path / "elsewhere")
    options = {"overrides": SHORT, "random": False}
    lightssl.evaluate(run, tasks=["finetune"], data=str(photos), test_data=str(elsewhere), **options)
    again = lightssl.evaluate(run.made_by("finetune"), tasks=["knn"], overrides=["knn.k=3"], random=False)["knn"]
    assert (again["data"]["train_images"], again["data"]["test"]) == (30, str(elsewhere))


def test_another_classifier_does_not_inherit_what_was_made_of_the_one_before(run: Run) -> None:
    made, before = run.made_by("finetune"), run.folder / "finetune-1"
    lightssl.evaluate(run, tasks=["finetune"], overrides=SHORT, random=False)
    lightssl.export(made)
    exported = made.onnx_path.read_bytes()
    lightssl.evaluate(run, tasks=["finetune"], overrides=SHORT, random=False)  # the same once more
    assert made.onnx_path.exists()
    assert not before.exists()
    lightssl.evaluate(run, tasks=["finetune"], overrides=[*SHORT, "finetune.seed=1"], random=False)
    assert not made.onnx_path.exists()
    assert Run(before).onnx_path.read_bytes() == exported


def test_each_training_goes_on_where_an_evaluation_was_stopped(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [*SHORT, "semi.batch_size=8", "semi.labels=[0.5]", "semi.epochs=[2]"]
    whole = lightssl.evaluate(run, tasks=["semi", "finetune"], overrides=options)
    steps: list[str] = []

    def counted(training: Training, title: str, narrator: Narrator, kept: UnderWay | None = None) -> None:
        def loss(batch: Any) -> torch.Tensor:
            steps.append(title)
            if len(steps) == 9:
                raise KeyboardInterrupt
            return training.loss(batch)

        train(replace(training, loss=loss), title, narrator, kept)

    monkeypatch.setattr(fine_tuning, "train", counted)
    for expected in (9, 17):
        with pytest.raises(KeyboardInterrupt) if expected == 9 else nullcontext():
            assert lightssl.evaluate(run, tasks=["semi", "finetune"], overrides=options) == whole
        assert len(steps) == expected, steps
    assert not run.under_way_path("semi").exists()
    assert not run.under_way_path("finetune").exists()


def test_what_lies_below_the_classifier_is_a_backbone(run: Run) -> None:
    lightssl.evaluate(run, tasks=["finetune"], overrides=SHORT)
    tuned, before = lightssl.load_backbone(run.made_by("finetune")), lightssl.load_backbone(run)
    images = torch.randn(2, 3, 32, 32)
    classifier = load_network(run.made_by("finetune"))
    assert torch.equal(classifier.head(tuned(images)), classifier(images))
    assert not torch.equal(tuned(images), before(images))


@pytest.mark.parametrize(
    "recipe", ["mobilenetv2_dino", "mobilenetv2_swav", "mobilenetv2_mocov2", "resnet18_simsiam_cifar"]
)
def test_it_begins_with_the_projection_head_of_the_checkpoint(
    recipe: str, photos: Path, tmp_path: Path, make_tiny: Callable[[str], list[str]]
) -> None:
    settings = [*make_tiny(recipe), "train.probe=true"]
    run = lightssl.pretrain(recipe, data=str(photos), overrides=settings, out=tmp_path / "run")
    resolved = validate(run.recipe(), origin="the run")
    start, random = pretrained_start(run, resolved), random_start(run, resolved)
    assert start.head is not None
    assert random.head is not None
    saved = load_checkpoint(run.checkpoint_path)["state"]["method"]
    method = build_method(resolved)
    head = next(name for name, module in method.named_modules() if module is method.branch.head)
    trained = [value for key, value in saved.items() if key.startswith(f"{head}.")]
    hidden = list(start.head.state_dict().values())
    assert len(hidden) > 1
    assert all(any(torch.equal(one, other) for other in trained) for one in hidden)
    assert len(list(start.head.modules())) == len(list(random.head.modules()))
    pairs = zip(start.head.parameters(), random.head.parameters(), strict=True)
    assert not any(torch.equal(one, other) for one, other in pairs if one.ndim > 1)


def test_without_a_checkpoint_a_linear_layer_follows(run: Run) -> None:
    run.checkpoint_path.unlink()
    recipe = validate(run.recipe(), origin="the run")
    assert pretrained_start(run, recipe).head is None
    assert random_start(run, recipe).head is None


def test_the_labels_of_semi_are_written_and_can_be_given_again(run: Run) -> None:
    options = ["semi.batch_size=8", "semi.labels=[0.5]", "semi.epochs=[2]"]
    written = lightssl.evaluate(run, tasks=["semi"], overrides=options)["semi"]["results"]
    listed = run.labels_path("semi", "50")
    names = listed.read_text(encoding="utf-8").splitlines()
    assert len(names) == 12
    assert sum(name.startswith("red/") for name in names) == 6
    given = [*options, f"semi.images_from={listed}"]
    again = lightssl.evaluate(run, tasks=["semi"], overrides=given)["semi"]["results"]
    assert again == written


def test_frozen_features_and_fine_tuning_in_one_go(run: Run) -> None:
    results = lightssl.evaluate(run, tasks=["knn", "semi"], overrides=["knn.k=3", "semi.labels=[1]", "semi.epochs=[1]"])
    assert len(results["knn"]["results"]) == 3
    assert [row["network"] for row in results["semi"]["results"]] == ["pre-trained", "random"]
    assert not run.labels_path("semi", "100").exists()  # all of them are no list
    assert not run.made_by("finetune").folder.exists()


@pytest.mark.parametrize("area", ["[0.5, 0.2]", "[0, 1]", "[0.5, 1.2]"])
def test_an_impossible_share_of_an_image_is_refused(area: str, run: Run) -> None:
    with pytest.raises(ConfigError, match=r"finetune\.crop_area"):
        lightssl.evaluate(run, tasks=["finetune"], overrides=[f"finetune.crop_area={area}"])
