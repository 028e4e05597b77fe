import os
from pathlib import Path

import pytest

from lightssl.errors import LightSSLError
from lightssl.files import append_json_lines, atomic_path, read_json_lines, write_text
from lightssl.runs import Run, find_run, new_run


def make(folder: Path, when: int) -> None:
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("name: x\n")
    os.utime(folder / "recipe.yaml", (when, when))


def test_the_latest_run_is_the_one_that_started_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "runs" / "b", 100)
    make(tmp_path / "runs" / "a", 200)
    (tmp_path / "runs" / "not-a-run").mkdir()
    assert find_run().folder == Path("runs/a")
    assert find_run("runs/b").recipe() == {"name": "x"}


def test_a_run_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(LightSSLError, match=r"is not a run: it has no recipe.yaml"):
        find_run(tmp_path)
    (tmp_path / "recipe.yaml").write_text("- a list\n")
    with pytest.raises(LightSSLError, match="does not hold a recipe"):
        find_run(tmp_path).recipe()
    (tmp_path / "recipe.yaml").write_text("a: [")
    with pytest.raises(LightSSLError, match="cannot be read"):
        find_run(tmp_path).recipe()


def test_a_new_run_takes_no_folder_that_holds_one(tmp_path: Path) -> None:
    assert isinstance(new_run(tmp_path / "new", "r"), Run)
    make(tmp_path / "old", 1)
    with pytest.raises(LightSSLError, match=r"Continue it with --resume"):
        new_run(tmp_path / "old", "r")


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "before")

    def fail() -> None:
        with atomic_path(path) as aside:
            aside.write_text("half")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        fail()
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_a_line_that_a_kill_cut_short_is_left_out_and_stays_alone(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert read_json_lines(path) == []
    append_json_lines(path, [{"a": 1}, {"a": 2}])
    with path.open("a") as file:
        file.write('{"a": 3, "b')
    assert read_json_lines(path) == [{"a": 1}, {"a": 2}]
    append_json_lines(path, [{"a": 4}])
    assert read_json_lines(path) == [{"a": 1}, {"a": 2}, {"a": 4}]
