"""The whole sweep on a few images, and what it does when something is wrong."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import lightssl
from lightssl.config.load import load_recipe
from lightssl.errors import ConfigError, DataError, LightSSLError
from lightssl.files import read_json_lines
from lightssl.pipeline import repeat_point, resume_sweep, sweep_views
from tests.processes import kill_when, start, wait_until
from tests.reports.html import Page

Program = Callable[..., subprocess.CompletedProcess[str]]

SHORT = [
    "backbone.width=0.25",
    "train.batch_size=8",
    "train.duration=4 steps",
    "train.checkpoint_every=1 steps",
    "train.log_every=1 steps",
    "train.precision=32-true",
    "data.workers=0",
    "method.hidden=16",
    "method.bottleneck=8",
    "method.prototypes=16",
]
SETTINGS = [word for option in SHORT for word in ("--set", option)]


def sweep(photos: Path, out: Path, *axes: str, **options: Any) -> dict[str, Any]:
    result = sweep_views(axes=axes, data=str(photos), overrides=SHORT, out=out, **options)
    assert result is not None
    return result


def scores(result: dict[str, Any]) -> dict[str, Any]:
    return {row["point"]: row["scores"] for row in result["points"]}


@pytest.mark.slow
def test_a_sweep_ends_in_a_page_and_in_a_recipe_that_pretrain_runs(
    photos: Path, tmp_path: Path, program: Program
) -> None:
    words = ["views", "sweep", "--axis", "boundary=0.14,0.3", "--axis", "local_count=1,2", "--axis", "balance=pairs"]
    asked = [*words, "--data", str(photos), "--seeds", "3,4", *SETTINGS, "--out", "run", "--json"]
    done = program(*asked, timeout=1200)
    folder = tmp_path / "run" / "sweep"
    result = json.loads(done.stdout)
    assert result == json.loads((folder / "sweep.json").read_text())
    names = ["recipe", "boundary-0.14", "local_count-1", "local_count-2", "balance-pairs"]
    assert [row["point"] for row in result["points"]] == names
    assert all(row["state"] == "complete" for row in result["points"])
    assert sorted(path.name for path in (folder / "points").iterdir()) == sorted(
        f"{name}-seed{seed}" for name in names for seed in (3, 4)
    )
    own, fewer = result["points"][0], result["points"][2]
    assert own["score"] == sum(own["by_seed"].values()) / 2
    assert own["flops_per_image"] > fewer["flops_per_image"]
    assert own["steps"] == fewer["steps"] == 4
    assert result["effects"]["boundary"]["own"] == 0.3
    assert [entry["value"] for entry in result["effects"]["local_count"]["values"]] == [1, 2, 4]
    assert "Point 1 of 5, recipe, seed 3: 100 %" in done.stderr
    assert "Points: 100 %" in done.stderr

    # Points differ in their plan alone: the seeds of weights, order and views are the same.
    recipes = {
        name: yaml.safe_load((folder / "points" / f"{name}-seed3" / "recipe.yaml").read_text()) for name in names
    }
    for recipe in recipes.values():
        assert {**recipe, "views": None} == {**recipes["recipe"], "views": None}
    assert recipes["boundary-0.14"]["views"]["global"]["scale"] == [0.14, 1.0]
    assert recipes["balance-pairs"]["views"]["balance"] == "pairs"

    page = Page(folder / "sweep.html")
    assert page.tags.count("img") == 1
    assert all(address.startswith("data:") for address in page.loads)
    assert {"effects", "points", "asked", "next"} <= set(page.ids)
    best = result["recommended"]
    again = "lightssl views sweep --resume run --point boundary-0.14-seed4"
    for text in (
        *names,
        result["verdict"],
        result["next"],
        best["plan"],
        again,
        "boundary 0.14, 0.3; local_count 1, 2",
    ):
        assert text in page.text
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")

    # As written, it runs, on the views that are recommended.
    assert result["next"].split()[:4] == ["lightssl", "pretrain", "--recipe", "run/sweep/recommended.yaml"]
    program(*result["next"].split()[1:], "--out", "trained")
    trained = yaml.safe_load((tmp_path / "trained" / "recipe.yaml").read_text())
    assert trained["views"] == recipes[best["point"]]["views"]
    assert trained["scale"] == "quick"
    assert trained["train"]["duration"] == "4 steps"
    assert load_recipe(str(folder / "recommended.yaml"), scale="quick").views.describe() == best["plan"]

    # What the page says about a point alone is true.
    alone = program(*again.split()[1:]).stdout
    assert "the same as in the sweep" in alone
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_sweep_that_is_killed_in_a_training_ends_as_one_that_was_not(
    photos: Path, tmp_path: Path, program: Program
) -> None:
    axes = ("boundary=0.1,0.2",)
    whole = sweep(photos, tmp_path / "whole", *axes, score="loss")
    folder = tmp_path / "broken" / "sweep"
    arguments = ["--axis", *axes, "--score", "loss", "--data", str(photos), *SETTINGS, "--out", "broken"]
    process = start(["views", "sweep", *arguments], tmp_path)
    log = folder / "points" / "boundary-0.1-seed0" / "metrics.jsonl"
    kill_when(process, lambda: len(read_json_lines(log)) >= 2)
    assert not (folder / "sweep.html").exists()
    ended = (folder / "points" / "recipe-seed0" / "metrics.jsonl").read_text()

    done = program("views", "sweep", "--resume", "broken", "--json")
    result = json.loads(done.stdout)
    assert scores(result) == scores(whole)
    assert result["verdict"] == whole["verdict"]
    assert (folder / "points" / "recipe-seed0" / "metrics.jsonl").read_text() == ended
    assert [row["step"] for row in read_json_lines(log)] == [0, 1, 2, 3]
    # And a point that is measured alone has the same score to the last bit.
    again = repeat_point(tmp_path / "broken", "boundary-0.1-seed0")
    assert again is not None
    assert again["score"] == again["before"] == -whole["points"][1]["scores"]["loss"]


@pytest.mark.slow
def test_two_processes_share_the_points(photos: Path, tmp_path: Path, program: Program) -> None:
    arguments = ["views", "sweep", "--axis", "boundary=0.1,0.2,0.4", "--data", str(photos), *SETTINGS, "--out", "run"]
    process = start([*arguments, "--storage", "sqlite:///shared.db"], tmp_path)
    wait_until(process, lambda: (tmp_path / "run" / "sweep" / "points").exists())
    program("views", "sweep", "--join", "run")
    assert process.wait(300) == 0
    result = json.loads((tmp_path / "run" / "sweep" / "sweep.json").read_text())
    assert [row["state"] for row in result["points"]] == ["complete"] * 4
    for row in result["points"]:  # nobody trained over another: every step is logged once
        log = tmp_path / "run" / "sweep" / "points" / f"{row['point']}-seed0" / "metrics.jsonl"
        assert [line["step"] for line in read_json_lines(log)] == [0, 1, 2, 3]
    assert scores(result) == scores(sweep(photos, tmp_path / "alone", "boundary=0.1,0.2,0.4"))


@pytest.mark.slow
def test_without_labels_and_at_equal_cost(photos: Path, tmp_path: Path) -> None:
    result = sweep(photos / "red", tmp_path / "run", "local_count=1,8", equal_cost=True)
    assert result["asked"]["question"]["score"] == "rank"
    spent = [row["steps"] * row["flops_per_image"] for row in result["points"]]
    for row, flops in zip(result["points"], spent, strict=True):
        assert row["score"] == row["scores"]["rank"]
        assert set(row["scores"]) == {"rank", "loss"}
        assert abs(flops - spent[0]) <= row["flops_per_image"] / 2
    assert len({row["steps"] for row in result["points"]}) == 3
    assert "With one seed, nothing is known" in result["verdict"]


@pytest.mark.slow
def test_a_guided_sweep_gives_up_points_and_says_so(photos: Path, tmp_path: Path) -> None:
    axes = ("boundary=0.1,0.2,0.3,0.4", "local_count=1,2,4")
    result = sweep(photos, tmp_path / "run", *axes, design="guided", trials=5, score="loss")
    states = [row["state"] for row in result["points"]]
    assert len(states) == len({row["point"] for row in result["points"]}) == 5
    assert set(states) == {"complete", "pruned"}
    page = Page(tmp_path / "run" / "sweep" / "sweep.html")
    assert page.text.count("given up early: the scores so far") == states.count("pruned")
    pruned = next(row for row in result["points"] if row["state"] == "pruned")
    assert pruned["parts_done"] < 4
    assert "score" not in pruned
    again = repeat_point(tmp_path / "run", f"{pruned['point']}-seed0")
    assert again is not None
    assert again["before"] is None


@pytest.mark.slow
def test_other_folders_images_and_storages_are_refused(photos: Path, tmp_path: Path) -> None:
    sweep(photos, tmp_path / "run", "boundary=0.2,0.3")
    assert resume_sweep(tmp_path / "run", join=True) is None  # there is nothing left to do
    with pytest.raises(LightSSLError, match="already holds a sweep"):
        sweep(photos, tmp_path / "run", "boundary=0.2,0.3", recipe="mobilenetv2_dino_baseline")
    storage = f"sqlite:///{tmp_path / 'run' / 'sweep' / 'points.db'}"
    with pytest.raises(ConfigError, match="holds another sweep by the name 'run'"):
        sweep(photos, tmp_path / "elsewhere" / "run", "boundary=0.2,0.4", storage=storage)
    with pytest.raises(ConfigError, match=r"no point 'boundary-0.25-seed0'.\nDid you mean 'boundary-0.2-seed0'"):
        repeat_point(tmp_path / "run", "boundary-0.25-seed0")
    (photos / "red" / "0.jpg").unlink()
    with pytest.raises(DataError, match="was started on 30 images"):
        resume_sweep(tmp_path / "run")


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axes": []}, "A sweep needs an axis"),
        ({"axes": ["boundry=0.1,0.2"]}, "unknown axis 'boundry'. Did you mean 'boundary'"),
        ({"axes": ["boundary=0.1,0.2", "boundary=0.3"]}, "boundary is given twice"),
        ({"axes": ["boundary=0.2", "local_count=2"]}, "every axis has one value only"),
        ({"axes": ["boundary=0.2,1.5"]}, "boundary=1.5 does not lie between"),
        ({"axes": ["boundary=0.01,0.2"]}, "boundary=0.01 does not lie between"),
        ({"axes": ["local_count=0,2", "balance=0.4,0.6"], "design": "grid"}, "local_count=0 leaves no local views"),
        (
            {"axes": ["local_size=2,16"], "recipe": "vit_tiny_dino"},
            "local_size=2: the backbone needs at least 8 pixels",
        ),
        ({"axes": ["local_size=96,128"]}, "128 pixels at 224 are 18 here"),
        ({"recipe": "resnet18_din"}, "Unknown recipe 'resnet18_din'"),
        ({"design": "factors"}, "Unknown design 'factors'.\nDid you mean 'factor'"),
        ({"score": "nkn"}, "Unknown score 'nkn'.\nDid you mean 'knn'"),
        ({"seeds": [0, 0]}, "Seeds 0, 0 cannot be used"),
        ({"seeds": [-1]}, "Seeds -1 cannot be used"),
        ({"design": "guided", "trials": 1}, "1 trials compare nothing"),
        ({"overrides": ["train.batch=3"]}, "train.batch: unknown key"),
        ({"overrides": ["method.momentum=0.5"]}, "method.momentum: unknown key"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_done(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    asked = {"axes": ["boundary=0.2,0.3"], "out": tmp_path / "run", "scale": "quick", **options}
    with pytest.raises(ConfigError, match=message):
        sweep_views(**asked)
    assert not (tmp_path / "run").exists()


def test_images_that_cannot_be_scored_are_refused_before_anything_is_done(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no labels, which a score by labels needs"):
        sweep(photos / "red", tmp_path / "run", "boundary=0.2,0.3", score="knn")
    for image in range(5, 15):
        (photos / "red" / f"{image}.jpg").unlink()
    for image in range(3, 15):
        (photos / "blue" / f"{image}.jpg").unlink()
    with pytest.raises(DataError, match="too few to hold any out"):
        sweep(photos, tmp_path / "run", "boundary=0.2,0.3")
    assert not (tmp_path / "run").exists()


def test_several_processes_of_torchrun_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="in one process"):
        sweep_views(axes=["boundary=0.2,0.3"], out=tmp_path / "run")


def test_a_folder_without_a_sweep_is_named(tmp_path: Path) -> None:
    with pytest.raises(LightSSLError, match="holds no sweep"):
        resume_sweep(tmp_path)


def test_sweeps_are_functions_of_the_package() -> None:
    assert {"sweep_views", "resume_sweep", "repeat_point"} <= set(lightssl.__all__)
