"""``study report``: from a table to a page, as a function and as a command."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import lightssl
from lightssl.errors import LightSSLError
from lightssl.pipeline.study_question import StudyQuestion
from lightssl.study.measured import short_names
from lightssl.study.table import Row, write_table
from tests.reports.html import Page
from tests.study.planted import row, study

Program = Callable[..., subprocess.CompletedProcess[str]]


def write(folder: Path, rows: list[Row]) -> Path:
    write_table(folder / "study" / "results.parquet", rows)
    return folder


def full() -> list[Row]:
    """A study that has everything the page can show."""
    rng = np.random.default_rng(0)
    return [
        row(
            member=f"{family}-{width:g}",
            family=family,
            depths=(2, 2, 3, place + 1),
            width=width,
            flops=int(1e8 * width * (place + 1)),
            parameters=int(1e6 * width * (place + 1)),
            recipe=f"resnet18_{method}",
            method=method,
            seed=seed,
            scenario=scenario,
            task=task,
            top1=float(40 + place + 2 * width + 20 * (method == "simclr") + (task == "mlp") + rng.normal()),
            minutes=12.5,
        )
        for place, family in enumerate(["resnet basic", "resnet bottleneck", "mobilenetv2", "vgg19_bn", "revnet50"])
        for width in (1.0, 2.0, 4.0)
        for method in ("simclr", "rotation")
        for seed in (0, 1)
        for scenario in ("torchvision:CIFAR10", "data/<flowers>", "sample")
        for task in ("linear_cv", "mlp")
    ]


def test_everything_that_a_study_can_show_is_on_the_page(tmp_path: Path) -> None:
    rows = full()
    rows = [
        replace(one, top1=None, error="diverged at step 7")
        if (one.member, one.method) == ("vgg19_bn-4", "rotation")
        else one
        for one in rows
    ]
    rows += [
        row(member="resnet basic-1", recipe="resnet18_simclr", scenario="scenario:cars", top1=None, error="no cars")
    ]
    folder = write(tmp_path / "mine", rows)
    question = StudyQuestion(
        grid="<b>mine</b>.yaml",
        members=[{}, {}],
        image_size=96,
        trainings=[{"recipe": "resnet18_dino", "composed": {}, "scale": "quick", "overrides": ["train.seed=1"]}],
        downstream=["sample"],
        tasks=["linear_cv", "mlp"],
        seeds=[0, 1],
    )
    asked = {"question": asdict(question), "train": "photos", "storage": None, "where": [], "limit": 2}
    (folder / "study" / "study.json").write_text(json.dumps({"asked": asked}))
    found = lightssl.study_report(folder)
    assert found["page"] == str(folder / "study" / "report.html")
    page = Page(folder / "study" / "report.html")
    assert page.ids == [
        "verdict",
        "scenarios",
        "ranks",
        "correlations",
        "costs",
        "regret",
        "trainings",
        "widths",
        "mlp",
        "failed",
        "networks",
        "asked",
    ]
    assert all(address.startswith("data:image/png;base64,") for address in page.loads)
    assert "://" not in (folder / "study" / "report.html").read_text()
    assert page.tags.count("img") == len(page.loads) == 8
    for text in (
        "29 networks in 3 scenarios, 2 seeds of each, 2 ways of pre-training; ranked by top-1 of the task linear_cv",
        "1 network left out and 1 scenario left out",
        "grid <b>mine</b>.yaml, 2 members",
        "where \N{EN DASH}",
        "settings train.seed=1",
        "FLOPs at 96 pixels",
        "seeds 0, 1",
        "diverged at step 7",
        "no cars",
        "<flowers>",
    ):
        assert text in page.text, text
    for finding in found["verdict"]:
        assert finding["claim"] in page.text
        assert finding["text"] in page.text
        assert finding["state"] != "not asked"


def test_figures_are_files_that_open(tmp_path: Path) -> None:
    folder = write(tmp_path, full())
    lightssl.study_report(folder)
    figures = {path.stem: cv2.imread(str(path)) for path in (folder / "study" / "figures").iterdir()}
    assert figures.keys() == {
        "ranks",
        "correlations",
        "flops",
        "parameters",
        "regret",
        "trainings",
        "widths",
        "mlp",
    }
    assert all(figure is not None and min(figure.shape[:2]) > 100 for figure in figures.values())


def test_the_report_as_json_is_what_is_returned(tmp_path: Path) -> None:
    folder = write(tmp_path, full())
    found = lightssl.study_report(folder)
    written = json.loads((folder / "study" / "report.json").read_text())
    assert written == {name: value for name, value in found.items() if name != "page"}
    assert written["asked"] == {}
    assert {"verdict", "networks", "correlations", "cost_correlations", "regret", "trainings", "widths", "mlp"} <= set(
        written
    )


def test_only_what_was_measured_is_on_the_page(tmp_path: Path) -> None:
    folder = write(tmp_path, study(np.random.default_rng(0).normal(50, 5, (12, 3))))
    lightssl.study_report(folder)
    page = Page(folder / "study" / "report.html")
    assert page.ids == ["verdict", "scenarios", "ranks", "correlations", "costs", "regret", "networks"]
    assert page.text.count("Not asked by this study") == 3


@pytest.mark.parametrize(
    ("networks", "scenarios", "absent"),
    [
        (1, 1, {"ranks", "correlations", "regret"}),
        (1, 3, {"ranks", "regret"}),
        (2, 3, set()),
        (5, 1, {"correlations", "regret"}),
    ],
)
def test_little_is_reported_as_far_as_it_goes(tmp_path: Path, networks: int, scenarios: int, absent: set[str]) -> None:
    folder = write(tmp_path, study(50 + np.arange(networks * scenarios).reshape(networks, scenarios)))
    lightssl.study_report(folder)
    page = Page(folder / "study" / "report.html")
    assert {"ranks", "correlations", "regret"} - set(page.ids) == absent
    if networks < 3 and scenarios > 1:
        assert "A correlation needs three architectures" in page.text


def test_equal_accuracies_and_costs_are_reported(tmp_path: Path) -> None:
    folder = write(tmp_path, study(np.full((12, 3), 50.0), seeds=2, flops=10, parameters=10))
    found = lightssl.study_report(folder)
    assert [one["state"] for one in found["verdict"]] == ["open", "open", "not asked", "not asked", "not asked"]


def test_more_families_than_colours_are_reported(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(50, 5, (14, 2))
    folder = write(tmp_path, [replace(one, family=f"family {one.member}") for one in study(table)])
    lightssl.study_report(folder)
    assert "family n13" in Page(folder / "study" / "report.html").text


def test_what_seeds_tell_is_shown_where_there_are_several(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(50, 5, (4, 2))
    for seeds, shown in ((1, False), (2, True)):
        lightssl.study_report(write(tmp_path, study(table, seeds=seeds, noise=0.1)))
        text = Page(tmp_path / "study" / "report.html").text
        assert ("Spread of seeds" in text, "Surely behind in" in text) == (shown, shown)


def test_a_report_is_written_anew(tmp_path: Path) -> None:
    folder = write(tmp_path, study(np.full((3, 2), 50.0)))
    lightssl.study_report(folder)
    write(folder, study(np.full((4, 2), 50.0)))
    assert len(lightssl.study_report(folder)["networks"]) == 4


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LightSSLError, match="holds no results of a study"):
        lightssl.study_report(tmp_path)
    folder = write(tmp_path, [row(top1=None, error="diverged at step 3")])
    with pytest.raises(LightSSLError, match="has an accuracy"):
        lightssl.study_report(folder)
    write(folder, [row()])
    (folder / "study" / "study.json").write_text("[]")
    with pytest.raises(LightSSLError, match=r"study\.json cannot be read"):
        lightssl.study_report(folder)


def test_scenarios_have_short_names_as_long_as_these_differ() -> None:
    assert short_names(["sample", "torchvision:CIFAR10", "scenario:cars", "/a/b/photos/"]) == {
        "sample": "sample",
        "torchvision:CIFAR10": "CIFAR10",
        "scenario:cars": "cars",
        "/a/b/photos/": "photos",
    }
    assert short_names(["a/photos", "b/photos"]) == {"a/photos": "a/photos", "b/photos": "b/photos"}
    assert short_names(["/"]) == {"/": "/"}


# ------------------------------------------------------------------------------------------------------------- command


def test_the_command_prints_the_best_and_the_verdict(program: Program, tmp_path: Path) -> None:
    write(tmp_path / "mine", study(np.random.default_rng(0).normal(50, 5, (12, 3))))
    done = program("study", "report", "mine")
    assert "By mean rank of linear_cv, and 2 more" in done.stdout
    assert "No network is the best everywhere: open" in done.stdout
    assert "trained with one seed" in done.stdout
    assert "A wider network" not in done.stdout  # nobody asked
    assert done.stdout.splitlines()[-1] == "Page: mine/study/report.html"
    assert (tmp_path / "mine" / "study" / "report.html").exists()


def test_the_command_prints_json_alone(program: Program, tmp_path: Path) -> None:
    write(tmp_path / "mine", study(np.full((3, 2), 50.0)))
    found = json.loads(program("study", "report", "mine", "--json").stdout)
    assert len(found["networks"]) == 3


def test_what_is_wrong_is_said_without_a_traceback(program: Program) -> None:
    done = program("study", "report", "nowhere", check=False)
    assert done.returncode == 1
    assert "holds no results of a study" in done.stderr
    assert "Traceback" not in done.stderr
