"""``evaluate --task labelfree``."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lightssl
from lightssl.config.load import validate
from lightssl.data.decode import decode
from lightssl.data.sources import open_source
from lightssl.errors import CheckpointError, ConfigError
from lightssl.images import normalise
from lightssl.pipeline.extracting import features_of_views
from lightssl.runs import Run
from lightssl.views.maker import ViewMaker


@pytest.fixture
def run(photos: Path, tmp_path: Path, tiny: list[str]) -> Run:
    return lightssl.pretrain("mobilenetv2_dino", data=str(photos), overrides=tiny, out=tmp_path / "run")


def test_it_needs_no_labels(run: Run, photos: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for image in photos.rglob("*.jpg"):
        shutil.copy(image, flat / f"{image.parent.name}-{image.name}")
    written = lightssl.evaluate(run, tasks=["labelfree"], data=str(flat))["labelfree"]
    assert written["data"] == {"train": str(flat), "train_images": 30}
    networks = [row["network"] for row in written["results"]]
    assert networks == ["pre-trained", "random, batch norm as initialised", "random, batch norm estimated"]
    for row in written["results"]:
        assert row["images"] == 30
        assert 1 <= row["rank"] <= 30
        assert 0 <= row["alignment"] <= 2
        assert -4 <= row["uniformity"] <= 0
    page = lightssl.report(run).read_text(encoding="utf-8")
    assert "Without labels" in page
    assert "rank (higher)" in page


def test_beside_tasks_with_labels_it_looks_at_training_images_alone(run: Run) -> None:
    written = lightssl.evaluate(run, tasks=["knn", "labelfree"], overrides=["knn.k=3"])
    assert written["labelfree"]["results"][0]["images"] == written["knn"]["data"]["train_images"] == 24
    assert {"knn", "labelfree"} == set(written)


def test_a_plan_with_a_single_view_is_measured_on_pairs_as_well(
    photos: Path, tmp_path: Path, make_tiny: Callable[[str], list[str]]
) -> None:
    overrides = make_tiny("resnet18_rotation")
    run = lightssl.pretrain("resnet18_rotation", data=str(photos), overrides=overrides, out=tmp_path / "rotation")
    (row,) = lightssl.evaluate(run, tasks=["labelfree"], random=False)["labelfree"]["results"]
    assert 0 < row["alignment"] <= 2


def test_features_of_views_are_those_of_the_training(run: Run, photos: Path) -> None:
    recipe, source = validate(run.recipe(), origin="the run"), open_source(str(photos))
    backbone = lightssl.load_backbone(run)
    one, other = features_of_views(backbone, source, recipe)
    assert one.shape == other.shape == (30, backbone.feature_width)
    # Whatever the order: each feature of a first view has its second one beside it.
    maker = ViewMaker(recipe.views, recipe.augment, seed=recipe.train.seed)
    for index in (0, 17):
        views = torch.from_numpy(maker(decode(source.read(index)), 0, index)[0])  # [2, S, S, 3]
        with torch.inference_mode():
            expected = backbone(normalise(views, recipe.data.mean, recipe.data.std))
        place = (one - expected[0]).norm(dim=1).argmin()
        torch.testing.assert_close(one[place], expected[0], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(other[place], expected[1], rtol=1e-3, atol=1e-3)


def test_checkpoints_of_a_training_are_compared(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    settings = [*tiny, "train.keep_every=2 steps"]  # of six
    run = lightssl.pretrain("mobilenetv2_dino", data=str(photos), overrides=settings, out=tmp_path / "run")
    assert list(run.kept()) == [2, 4, 6]
    images = torch.randn(2, 3, 32, 32)
    first, last = (lightssl.load_backbone(run.kept()[step])(images) for step in (2, 6))
    assert torch.equal(last, lightssl.load_backbone(run)(images))
    assert not torch.equal(first, last)

    tasks = {"tasks": ["knn", "labelfree"], "overrides": ["knn.k=3"]}
    written = lightssl.evaluate(run, checkpoints=True, **tasks)
    alone = lightssl.evaluate(run, **tasks)
    for task, result in written.items():
        assert [row["step"] for row in result["results"]] == [2, 4, 6]
        of_last = {key: value for key, value in result["results"][-1].items() if key not in ("network", "step")}
        assert of_last == {key: value for key, value in alone[task]["results"][0].items() if key != "network"}
    page = lightssl.report(run).read_text(encoding="utf-8")
    assert "On the way" in page
    assert "knn takes the one after 6 steps" in page


@pytest.mark.parametrize("option", [{"tasks": ["finetune"]}, {"stages": True}])
def test_checkpoints_are_compared_as_they_are(option: dict[str, Any], run: Run) -> None:
    with pytest.raises(ConfigError, match="Checkpoints are compared as they are"):
        lightssl.evaluate(run, checkpoints=True, **option)


def test_there_is_nothing_to_compare(run: Run) -> None:
    with pytest.raises(CheckpointError, match=r"has kept fewer than two backbones.*\n.*train\.keep_every"):
        lightssl.evaluate(run, checkpoints=True)
