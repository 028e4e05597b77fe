"""``study pick``: the network for a task, from a study of three tiny ones."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lightssl
from lightssl.errors import ConfigError, DataError, LightSSLError
from lightssl.study.table import read_table, write_table
from tests.conftest import write_photos
from tests.test_study_running import Program, study, write_grid, write_others

NAMES = [f"{member}-resnet18_simclr_cifar-seed0" for member in ("small", "late", "thin")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, and a study in two scenarios of them."""
    place = tmp_path_factory.mktemp("finished")
    photos = write_photos(place / "photos")
    study(write_grid(place / "mine.yaml"), photos, photos, write_others(photos, place / "others"), out=place / "study")
    return place


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """The study, to be changed."""
    return Path(shutil.copytree(finished / "study", tmp_path / "study"))


@pytest.fixture
def photos(finished: Path) -> Path:
    """The first of its scenarios."""
    return finished / "photos"


def change(folder: Path, **values: dict[str, Any]) -> None:
    """Change the results of members."""
    path = folder / "study" / "results.parquet"
    write_table(path, [replace(row, **values.get(row.member, {})) for row in read_table(path)])


@pytest.mark.slow
def test_a_scenario_of_the_study_has_its_answer_in_the_table(folder: Path, photos: Path, program: Program) -> None:
    # Better on test images, and worse on those that choose.
    change(folder, small={"top1": 70.0, "cv_top1": 60.0}, late={"top1": 60.0, "cv_top1": 70.0}, thin={"cv_top1": 0.0})
    found = lightssl.pick_network(folder, downstream=str(photos))
    assert [row["network"] for row in found["networks"]] == [NAMES[1], NAMES[0], NAMES[2]]
    assert (found["picked"], found["similarity"]) == (NAMES[1], None)
    assert Path(found["run"]) == folder / "study" / "networks" / NAMES[1]
    most = min(row["parameters"] for row in found["networks"])
    small = lightssl.pick_network(folder, downstream=str(photos), limits={"parameters": most})
    assert [row["parameters"] for row in small["networks"]] == [most]
    done = program("study", "pick", "study", "--downstream", str(photos))
    assert f"Take {NAMES[1]}: study/study/networks/{NAMES[1]}" in done.stdout
    # What comes next is a command that runs.
    assert f"Next: lightssl evaluate study/study/networks/{NAMES[1]} --task finetune --data {photos}" in done.stdout


@pytest.mark.slow
def test_another_task_is_measured(folder: Path, program: Program) -> None:
    found = lightssl.pick_network(folder, downstream="sample", measure=2)
    assert len(found["networks"]) == 2
    best, other = found["networks"]
    assert best["chosen_by"] >= other["chosen_by"]
    alone = lightssl.evaluate(found["run"], tasks=["linear"], data="sample", random=False)["linear"]["results"][0]
    assert (best["top1"], best["chosen_by"]) == (alone["top1"], alone["held_out_top1"])
    again = json.loads(program("study", "pick", "study", "--downstream", "sample", "--measure", "2", "--json").stdout)
    assert again["networks"] == found["networks"]
    assert set(found["similarity"].values()) == {0}  # two networks say nothing


@pytest.mark.slow
def test_what_cannot_be_picked_is_an_error(folder: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"within the limits.\nAt 224 pixels they have flops from"):
        lightssl.pick_network(folder, downstream=str(photos), limits={"flops": 1})
    with pytest.raises(ConfigError, match="--measure 0"):
        lightssl.pick_network(folder, downstream="sample", measure=0)
    with pytest.raises(DataError, match="There is no folder"):
        lightssl.pick_network(folder, downstream="nowhere")
    with pytest.raises(LightSSLError, match="holds no study"):
        lightssl.pick_network(tmp_path / "nowhere", downstream="sample")
    for name in NAMES:
        (folder / "study" / "networks" / name / "backbone.safetensors").unlink()
    with pytest.raises(LightSSLError, match="are not in the folder of the study"):
        lightssl.pick_network(folder, downstream="sample")
    change(folder, **{member: {"top1": None, "error": "it failed"} for member in ("small", "late", "thin")})
    with pytest.raises(LightSSLError, match="No network of the study has been measured"):
        lightssl.pick_network(folder, downstream="sample")


def test_without_a_name_the_latest_study_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LightSSLError, match=r"There is no study below \./runs yet"):
        lightssl.pick_network(downstream="sample")
