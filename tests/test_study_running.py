"""A whole study of tiny networks: what it leaves, and what happens when workers, networks and scenarios fail."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lightssl
from lightssl import files
from lightssl.errors import ConfigError, DataError, LightSSLError, TrainingError
from lightssl.files import read_json_lines
from lightssl.pipeline import study_work
from lightssl.pipeline.asked import leading
from lightssl.pipeline.study_question import recipe_of_method
from lightssl.study.table import Row, read_table
from tests.processes import start, wait_until

Program = Callable[..., subprocess.CompletedProcess[str]]

SHORT = [
    "train.batch_size=8",
    "train.duration=4 steps",
    "train.checkpoint_every=1 steps",
    "train.log_every=1 steps",
    "train.precision=32-true",
    "data.workers=0",
    "method.hidden=16",
    "method.bottleneck=8",
]
SETTINGS = [word for option in SHORT for word in ("--set", option)]
STEPS = [0, 1, 2, 3]


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Three networks of a few thousand weights."""
    return write_grid(tmp_path / "mine.yaml")


def write_grid(path: Path) -> Path:
    """Write the file of :func:`grid`, and return it."""
    path.write_text(
        "- {name: small, backbone: {name: resnet, topology: 8x1 8x1 8x1 8x1}}\n"
        "- {name: late, backbone: {name: resnet, topology: 8x1 8x1 8x1 8x2}}\n"
        "- {name: thin, backbone: {name: mobilenetv2, width: 0.25}}\n"
    )
    return path


@pytest.fixture
def others(photos: Path, tmp_path: Path) -> Path:
    """A second scenario: the same images under other names, so that another fifth is set aside."""
    return write_others(photos, tmp_path / "others")


def write_others(photos: Path, folder: Path) -> Path:
    """Write the images of :func:`others`, and return the folder."""
    shutil.copytree(photos / "red", folder / "blue")
    shutil.copytree(photos / "blue", folder / "green")
    return folder


def study(grid: Path, photos: Path, *scenarios: Path, **options: Any) -> dict[str, Any] | None:
    """Run a study that takes seconds."""
    chosen = {"tasks": ["linear"], "overrides": SHORT, "train": str(photos), **options}
    return lightssl.run_study(str(grid), downstream=[str(one) for one in scenarios], **chosen)


def table(folder: Path) -> list[Row]:
    return read_table(folder / "study" / "results.parquet")


def steps_of(folder: Path, name: str) -> list[int]:
    """Return the steps that the training of a network has logged."""
    path = folder / "study" / "networks" / name / "metrics.jsonl"
    return [row["step"] for row in read_json_lines(path)] if path.exists() else []


@pytest.mark.slow
def test_every_network_is_measured_in_every_scenario(grid: Path, photos: Path, others: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    found = study(grid, photos, photos, others, tasks=["linear", "knn"], seeds=[0, 1], out=folder)
    assert found is not None
    rows = table(folder)
    assert [(row.member, row.seed) for row in rows[::4]] == [
        (member, seed) for seed in (0, 1) for member in ("small", "late", "thin")
    ]
    assert [(row.scenario, row.task) for row in rows[:4]] == [
        (str(scenario), task) for scenario in (photos, others) for task in ("linear", "knn")
    ]
    costs = {row["name"]: row for row in lightssl.study_grid(str(grid), timing=False)["members"]}
    for row in rows:
        assert (row.recipe, row.method, row.error) == ("resnet18_simclr_cifar", "simclr", None)
        assert row.top1 is not None
        assert 0 <= row.top1 <= 100
        assert (row.cv_top1 is None) == (row.task == "knn")  # nothing is chosen there
        assert (row.flops, row.parameters) == (costs[row.member]["flops"], costs[row.member]["parameters"])
        assert row.minutes is not None
        assert row.minutes > 0
    assert {row.member: row.depths for row in rows} == {"small": (1, 1, 1, 1), "late": (1, 1, 1, 2), "thin": None}

    # What a network has is what it has alone: trained as the recipe says, and evaluated.
    run = folder / "study" / "networks" / "late-resnet18_simclr_cifar-seed1"
    alone = lightssl.evaluate(run, tasks=["linear"], data=str(others), random=False)["linear"]["results"]
    assert [
        row.top1 for row in rows if (row.member, row.seed, row.scenario, row.task) == ("late", 1, str(others), "linear")
    ] == [alone[0]["top1"]]
    assert steps_of(folder, run.name) == STEPS
    assert not (run / "checkpoints" / "last.pt").exists()
    assert (folder / "study" / "report.html").exists()

    # And nothing is left to be done.
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert lightssl.resume_study(folder) == found
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == before


@pytest.mark.slow
def test_two_workers_of_whom_one_is_killed_end_as_one_that_was_not(
    grid: Path, photos: Path, tmp_path: Path, program: Program
) -> None:
    assert study(grid, photos, photos, out=tmp_path / "whole") is not None
    what = ["--grid", str(grid), "--train", str(photos), "--downstream", str(photos), "--task", "linear"]
    main = start(["study", "run", *what, *SETTINGS, "--out", "broken"], tmp_path)
    folder = tmp_path / "broken"
    wait_until(main, lambda: (folder / "study" / "networks").exists())
    helper = start(["study", "run", "--join", "broken"], tmp_path)
    small = "small-resnet18_simclr_cifar-seed0"
    wait_until(main, lambda: len(steps_of(folder, small)) >= 1)
    # The process alone: that of its network has to notice.
    os.kill(main.pid, signal.SIGKILL)
    main.wait()
    done = program("study", "run", "--resume", "broken", "--json")
    helper.wait(300)
    assert json.loads(done.stdout)
    without_time = [[{**vars(row), "minutes": None} for row in table(one)] for one in (tmp_path / "whole", folder)]
    assert without_time[0] == without_time[1]
    for path in (folder / "study" / "networks").iterdir():  # nobody trained over another: every step is logged once
        assert steps_of(folder, path.name) == STEPS


@pytest.mark.slow
def test_networks_that_fail_are_written_down_and_left_behind(grid: Path, photos: Path, tmp_path: Path) -> None:
    with grid.open("a") as file:
        file.write("- {name: wide, backbone: {name: resnet, topology: 8x1 8x1 8x1 9999x9}}\n")
    folder = tmp_path / "study"
    # Nine blocks of 9,999 channels have no room in any memory; and no loss is finite at such a rate.
    diverging = [*SHORT, "schedule.base_rate=1e30", "schedule.warmup=0 steps"]
    with pytest.raises(LightSSLError, match="has an accuracy"):
        study(grid, photos, photos, out=folder, where=["params>1G"])
    rows = table(folder)
    assert [row.member for row in rows] == ["wide"]
    assert rows[0].top1 is None
    assert "GiB" in (rows[0].error or "")
    with pytest.raises(LightSSLError):
        study(grid, photos, photos, out=tmp_path / "diverging", limit=1, overrides=diverging)
    (row,) = table(tmp_path / "diverging")
    assert row.top1 is None
    assert "loss" in (row.error or "")


@pytest.mark.slow
def test_a_scenario_that_disappears_is_left_out_until_it_is_back(
    grid: Path, photos: Path, others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def ask(*arguments: Any, **options: Any) -> dict[str, Any]:
        asked.append(arguments)
        if len(asked) == 2:
            others.rename(tmp_path / "away")
        return really(*arguments, **options)

    really = study_work.ask
    monkeypatch.setattr(study_work, "ask", ask)
    folder = tmp_path / "study"
    study(grid, photos, photos, others, out=folder)
    missing = [row for row in table(folder) if row.top1 is None]
    assert [(row.member, row.scenario) for row in missing] == [("late", str(others)), ("thin", str(others))]
    assert all("There is no folder" in (row.error or "") for row in missing)
    assert len(asked) == 3

    lightssl.resume_study(folder)  # is not asked to try again
    assert len(asked) == 3
    (tmp_path / "away").rename(others)
    lightssl.resume_study(folder, retry=True)
    assert len(asked) == 5
    assert all(row.top1 is not None and row.error is None for row in table(folder))
    assert steps_of(folder, "late-resnet18_simclr_cifar-seed0") == STEPS  # was not trained again


@pytest.mark.slow
def test_the_budget_of_time_stops_a_study_that_can_go_on(grid: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    long = [*SHORT, "train.duration=100000 steps"]
    assert study(grid, photos, photos, out=folder, overrides=long, limit=1, time_budget="20s") is None
    assert (folder / "study" / "networks" / "small-resnet18_simclr_cifar-seed0" / "checkpoints" / "last.pt").exists()
    assert table(folder) == []


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the processes of networks are asked, which are not started: each network names half of the images right."""
    found: list[dict[str, Any]] = []

    def ask(_module: str, what: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        found.append(what)
        rows = [{"scenario": one, "task": "linear", "top1": 50.0, "cv_top1": 40.0} for one in what["downstream"]]
        return {"minutes": 1.0, "rows": rows, "missing": {}}

    monkeypatch.setattr(study_work, "ask", ask)
    return found


NOTHING_YET = {"time_budget": "0.001s"}  # is over before a network is begun


def test_one_process_leads_and_others_join(
    grid: Path, photos: Path, tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LEAVING_S", 0.0)
    folder = tmp_path / "study"
    study(grid, photos, photos, out=folder, **NOTHING_YET)
    with leading(folder, "study"):
        with pytest.raises(LightSSLError, match=r"Another process is at the study in .*\n.*--join"):
            lightssl.resume_study(folder)
        assert not asked
        lightssl.resume_study(folder, join=True)
    assert len(asked) == 3
    # What it has measured is in the table already, and is known where the folder has gone.
    assert [row.top1 for row in table(folder)] == [50.0] * 3
    moved = folder.rename(tmp_path / "moved")
    assert lightssl.resume_study(moved) is not None
    assert len(asked) == 3


def test_a_worker_needs_the_images_before_it_takes_a_job(
    grid: Path, photos: Path, others: Path, tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "study", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    study(grid, Path("photos"), Path("photos"), Path("others"), out=folder, **NOTHING_YET)
    monkeypatch.chdir(elsewhere)
    away = others.rename(tmp_path / "away")
    with pytest.raises(DataError, match=r"There is no folder or file .*others.\n.*joins needs the images of all"):
        lightssl.resume_study(folder, join=True)
    photos.rename(tmp_path / "hidden")
    with pytest.raises(DataError, match=r"There is no folder or file .*photos.\n.*name them with --train"):
        lightssl.resume_study(folder)
    with pytest.raises(DataError, match="No scenario of the study is there any more"):
        lightssl.resume_study(folder, train="sample")
    assert not asked
    (tmp_path / "hidden").rename(photos)
    away.rename(others)
    lightssl.resume_study(folder, join=True)
    assert len(asked) == 3


@pytest.mark.slow
def test_paths_are_of_the_folder_that_a_study_was_started_in(
    grid: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(photos.parent)
    study(grid, Path("photos"), Path("photos"), out=tmp_path / "study", limit=1, **NOTHING_YET)
    monkeypatch.chdir(tmp_path / "elsewhere")
    lightssl.resume_study("../study")
    (row,) = table(tmp_path / "study")
    assert (row.scenario, row.error) == ("photos", None)
    found = lightssl.pick_network("../study", downstream=str(photos))
    assert found["similarity"] is None  # it is a scenario of the study, whatever it is called


def test_what_was_measured_stays_where_another_attempt_fails(
    grid: Path, photos: Path, others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = {"minutes": 1.0, "rows": [{"scenario": str(photos), "task": "linear", "top1": 50.0, "cv_top1": 40.0}]}
    answers: list[Any] = [{**measured, "missing": {str(others): "gone"}}, TrainingError("no memory is left")]

    def ask(*_: Any, **__: Any) -> dict[str, Any]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    monkeypatch.setattr(study_work, "ask", ask)
    folder = tmp_path / "study"
    study(grid, photos, photos, others, out=folder, limit=1)
    assert [(row.top1, row.error) for row in table(folder)] == [(50.0, None), (None, "gone")]
    lightssl.resume_study(folder, retry=True)
    assert [(row.top1, row.error, row.minutes) for row in table(folder)] == [
        (50.0, None, 1.0),
        (None, "no memory is left", 1.0),
    ]


def test_a_scenario_is_there_once_and_has_a_name(grid: Path, photos: Path, tmp_path: Path) -> None:
    def run(*scenarios: str) -> None:
        lightssl.run_study(str(grid), train=str(photos), downstream=scenarios, out=tmp_path / "study")

    with pytest.raises(ConfigError, match=r"The scenario .*photos is there twice"):
        run(str(photos), f"{photos}/")
    for nothing in ("", " "):
        with pytest.raises(ConfigError, match="has no name"):
            run(str(photos), nothing)


def test_a_folder_that_cannot_be_made_is_an_error(grid: Path, photos: Path) -> None:
    with pytest.raises(LightSSLError, match="Cannot make the folder"):
        study(grid, photos, photos, out=grid / "study")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tasks": ["liner"]}, ConfigError, "Did you mean 'linear'"),
        ({"tasks": ["labelfree"]}, ConfigError, "labelfree has no accuracy"),
        ({"tasks": ["knn", "knn"]}, ConfigError, "The task knn is there twice"),
        ({"seeds": [0, 0]}, ConfigError, "The seed 0 is there twice"),
        ({"seeds": [-1]}, ConfigError, "seeds of 0 or more"),
        ({"recipes": ["resnet18_rotation"], "methods": ["rotation"]}, ConfigError, "resnet18_rotation is there twice"),
        ({"methods": ["rotatoin"]}, ConfigError, "Did you mean 'rotation'"),
        ({"train": "nowhere"}, DataError, "There is no folder"),
        ({"where": ["flops<1"]}, ConfigError, "No member is left"),
        ({"time_budget": "8 parsecs"}, ConfigError, "is not a time above 0"),
        ({"overrides": ["views.global_size=0"]}, ConfigError, "small, resnet18_simclr_cifar: "),
        ({"scenarios": "nowhere"}, DataError, "There is no folder"),
        ({"storage": "sqlite:////nowhere/at/all.db"}, LightSSLError, "cannot be used"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is(
    grid: Path, photos: Path, tmp_path: Path, options: dict[str, Any], error: type, message: str
) -> None:
    scenarios = [Path(options.pop("scenarios", photos))]
    with pytest.raises(error, match=message):
        study(grid, photos, *scenarios, out=tmp_path / "study", **options)
    assert not (tmp_path / "study" / "study" / "study.json").exists()


def test_two_studies_do_not_share_a_folder_or_a_name_in_a_storage(grid: Path, photos: Path, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    budget = {**NOTHING_YET, "storage": storage}
    assert study(grid, photos, photos, out=tmp_path / "a" / "study", **budget) is None
    with pytest.raises(LightSSLError, match="already holds a study"):
        study(grid, photos, photos, out=tmp_path / "a" / "study", limit=2)
    with pytest.raises(ConfigError, match="holds another study by the name 'study'"):
        study(grid, photos, photos, out=tmp_path / "b" / "study", limit=2, **budget)


def test_there_is_a_recipe_for_every_method() -> None:
    assert recipe_of_method("rotation") == "resnet18_rotation"
    assert recipe_of_method("simclr") == "resnet18_simclr_cifar"
    assert recipe_of_method("dino") == "resnet18_dino"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--limit", "2"], "A study needs a grid"),
        (["--grid", "basic-81", "--retry"], "--retry goes on with a study"),
        (["--resume", "nowhere", "--grid", "basic-81"], "cannot be combined with --grid"),
        (["--resume", "nowhere"], "nowhere holds no study"),
        (["--grid", "basic-81", "--seeds", "a"], "--seeds a are no whole numbers"),
    ],
)
def test_the_command_says_what_is_wrong_with_a_call(program: Program, words: list[str], message: str) -> None:
    done = program("study", "run", *words, check=False)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
