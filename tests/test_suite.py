"""``evaluate --suite``."""

import json
import shutil
from pathlib import Path

import pytest

import lightssl
from lightssl.data.scenarios import SCENARIOS, open_scenario
from lightssl.errors import ConfigError, DataError
from lightssl.evaluation.tables import by_data
from lightssl.pipeline import suite as suite_module
from lightssl.runs import Run

KNN = ["knn.k=3"]


@pytest.fixture
def run(photos: Path, tmp_path: Path, tiny: list[str]) -> Run:
    return lightssl.pretrain("mobilenetv2_dino", data=str(photos), overrides=tiny, out=tmp_path / "run")


@pytest.fixture
def others(photos: Path, tmp_path: Path) -> Path:
    """The same images with the names of the classes exchanged, so that another fifth is set aside."""
    folder = tmp_path / "others"
    shutil.copytree(photos / "red", folder / "blue")
    shutil.copytree(photos / "blue", folder / "green")
    return folder


def test_each_data_set_has_what_it_has_alone(run: Run, photos: Path, others: Path) -> None:
    found = lightssl.evaluate_suite("mine", run, data=[str(photos), str(others)], tasks=["knn"], overrides=KNN)
    assert json.loads(run.suite_path("mine").read_text()) == found
    assert not run.evaluation_path("knn").exists()  # the results of the run itself are another thing
    for data in (photos, others):
        alone = lightssl.evaluate(run, tasks=["knn"], data=str(data), overrides=KNN)["knn"]["results"]
        of_suite = [row for row in found["rows"] if row["data"] == str(data)]
        assert [(row["network"], row["top1"]) for row in of_suite] == [(row["network"], row["top1"]) for row in alone]
    page = lightssl.report(run).read_text(encoding="utf-8")
    assert "Suite mine" in page


def test_what_was_measured_is_kept(run: Run, photos: Path, others: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated: list[str] = []

    def evaluate(*args: object, data: str, **options: object) -> object:
        evaluated.append(data)
        if data == str(others) and len(evaluated) == 2:
            raise KeyboardInterrupt
        return lightssl.evaluate(*args, data=data, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(suite_module, "evaluate", evaluate)
    both = [str(photos), str(others)]
    with pytest.raises(KeyboardInterrupt):
        lightssl.evaluate_suite("mine", run, data=both, tasks=["knn"], overrides=KNN)
    found = lightssl.evaluate_suite("mine", run, data=both, tasks=["knn"], overrides=KNN)
    assert evaluated == [*both, str(others)]
    assert len(found["rows"]) == 6
    lightssl.evaluate_suite("mine", run, data=both, tasks=["knn"], overrides=["knn.k=1"])  # asks something else
    assert len(evaluated) == 5


def test_other_images_of_the_same_name_are_measured_again(run: Run, photos: Path, others: Path) -> None:
    def measured() -> list[float]:
        found = lightssl.evaluate_suite("mine", run, data=[str(photos)], tasks=["knn"], overrides=KNN, random=False)
        return [row["train_images"] for row in found["rows"]]

    assert measured() == [24]
    (photos / "red" / "0.jpg").rename(photos / "blue" / "fifteen.jpg")
    (photos / "red" / "1.jpg").unlink()
    assert measured() == [23]


def test_data_sets_of_similar_names_have_folders_of_their_own(run: Run) -> None:
    assert len({run.on("mine", name).results for name in ("c/d", "c_d", "c:d", "c/d/")}) == 4


def test_fine_tuning_in_a_suite_leaves_that_of_the_run_alone(run: Run, others: Path) -> None:
    short = ["finetune.epochs=1", "finetune.batch_size=8"]
    lightssl.evaluate_suite("mine", run, data=[str(others)], tasks=["finetune"], overrides=short)
    assert not run.made_by("finetune").classifier_path.exists()
    assert run.on("mine", str(others)).made_by("finetune").classifier_path.exists()


def test_what_is_not_there_is_left_out(run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTSSL_DATA", str(tmp_path / "data"))
    for half in ("train", "test"):
        shutil.copytree(photos, tmp_path / "data" / "sport8" / half)
    found = lightssl.evaluate_suite("one_network", run, tasks=["knn"], overrides=KNN)
    assert {row["data"] for row in found["rows"]} == {"scenario:sport8"}
    assert {row["test_images"] for row in found["rows"]} == {30}
    assert set(found["missing"]) == {f"scenario:{name}" for name in SCENARIOS} - {"scenario:sport8"}
    assert "cub200/train/CLASS" in found["missing"]["scenario:cub200"]
    assert "download=True" in found["missing"]["scenario:cifar10"]


def test_what_cannot_be_used_is_left_out(run: Run, photos: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(photos, tmp_path / "lopsided" / split)
    for number in range(1, 15):
        (tmp_path / "lopsided" / "train" / "blue" / f"{number}.jpg").unlink()
    data = [str(tmp_path / "lopsided"), str(photos)]
    found = lightssl.evaluate_suite("mine", run, data=data, tasks=["linear"])
    assert {row["data"] for row in found["rows"]} == {str(photos)}
    assert list(found["missing"]) == data[:1]
    assert "A class has a single training image" in found["missing"][data[0]]
    assert json.loads(run.suite_path("mine").read_text()) == found


def test_nothing_is_there(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTSSL_DATA", str(tmp_path))
    with pytest.raises(DataError, match="None of the 11 data sets can be opened"):
        lightssl.evaluate_suite("one_network", run)


def test_a_folder_without_test_images_is_no_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTSSL_DATA", str(tmp_path))
    (tmp_path / "dogs" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="lacks a train folder beside a test"):
        open_scenario("dogs")


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("mine", {}, "There is no suite 'mine', and no data"),
        ("a/b", {"data": ["sample"]}, "'a/b' cannot be the name"),
        ("mine", {"data": ["sample"], "tasks": ["labelfree"]}, "labelfree has no accuracy"),
        ("mine", {"data": ["sample"], "tasks": ["nn"]}, "Did you mean 'knn'"),
    ],
)
def test_suites_that_cannot_be(name: str, options: dict[str, list[str]], problem: str, run: Run) -> None:
    with pytest.raises(ConfigError, match=problem):
        lightssl.evaluate_suite(name, run, **options)  # type: ignore[arg-type]


def test_there_is_no_such_scenario() -> None:
    with pytest.raises(DataError, match=r"There is no scenario 'flowers'\.\nDid you mean 'flowers102'"):
        open_scenario("flowers")


def test_the_table_has_the_better_random_network() -> None:
    rows = [
        {"data": "a", "task": "knn", "network": "pre-trained", "top1": 50.0},
        {"data": "a", "task": "knn", "network": "random, batch norm as initialised", "top1": 20.0},
        {"data": "a", "task": "knn", "network": "random, batch norm estimated", "top1": 30.0},
        {"data": "b", "task": "semi", "labels": "1 % of the labels", "network": "pre-trained", "top1": 40.0},
    ]
    heads, cells = by_data({"rows": rows})
    assert heads == ["data", "knn", "knn, random", "semi, 1 % of the labels", "semi, 1 % of the labels, random"]
    assert cells == [["a", "50.0 %", "30.0 %", "-", "-"], ["b", "-", "-", "40.0 %", "-"]]
