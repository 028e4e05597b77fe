import json
from pathlib import Path
from typing import Any

import pytest

from lightssl.deploy.results import Result, compare_results, name_models, read_results
from lightssl.errors import ConfigError

A, B, C = Path("a.json"), Path("b.json"), Path("c.json")


def row(**changes: Any) -> dict[str, Any]:
    plain = {
        "kind": "measured",
        "model": "m.onnx",
        "device": "board",
        "runtime": "onnxruntime",
        "threads": 1,
        "precision": "fp32",
        "batch": 1,
        "latency_ms_p50": 10.0,
        "model_sha256": "aa",
        "model_bytes": 1000,
    }
    return plain | changes


def result(**changes: Any) -> Result:
    return Result.model_validate(row(**changes))


def ratios(*files: list[Result]) -> list[tuple[str, float]]:
    return [(str(pair.file), pair.ratio) for pair in compare_results(dict(zip((A, B, C), files, strict=False)))]


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"target": "cpu", "rows": rows}])
def test_what_a_run_holds_and_what_the_command_prints_are_both_read(wrap: Any, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(wrap([row(), row(threads=2, peak_memory_mib=None)])))
    assert read_results(tmp_path / "r.json") == [result(), result(threads=2)]


def test_a_published_table_is_read(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("model,device,runtime,threads,precision,latency_ms_p50\nm,phone,ncnn,4,fp16,3.5\n")
    (only,) = read_results(tmp_path / "r.csv")
    assert (only.kind, only.model, only.threads, only.latency_ms_p50) == ("measured", Path("m"), 4, 3.5)
    assert only.model_sha256 is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "Cannot read"),
        ("{", "Cannot read"),
        ("3", "does not hold results"),
        ("[]", "does not hold results"),
        ('{"files": []}', "does not hold results"),
        ('["text"]', "does not hold results"),
        (json.dumps([{"model": "m.onnx"}]), "device: Field required"),
        (json.dumps([row(latency_ms_p50=-1)]), "latency_ms_p50: Input should be greater than 0"),
        (json.dumps([row(kind="guessed")]), "kind: Input should be"),
    ],
)
def test_files_that_hold_something_else_are_refused(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_results(path)
    assert "r.json" in caught.value.message


def test_devices_are_held_against_the_first_at_the_same_threads() -> None:
    here = [result(latency_ms_p50=10), result(threads=2, latency_ms_p50=6)]
    there = [result(device="phone", threads=2, latency_ms_p50=9), result(device="phone", threads=4)]
    assert ratios(here, there) == [("a.json", 1), ("b.json", 1.5)]


def test_the_same_runtime_is_the_baseline_where_there_is_one() -> None:
    before = [result(latency_ms_p50=10), result(runtime="torch eager", latency_ms_p50=40)]
    after = [result(runtime="torch eager", latency_ms_p50=20), result(runtime="ncnn", latency_ms_p50=20)]
    assert ratios(before, after) == [("a.json", 1), ("b.json", 2), ("a.json", 1), ("b.json", 0.5)]


def test_content_goes_before_names_and_one_model_is_the_baseline_of_all() -> None:
    several = [result(latency_ms_p50=10), result(model="n.onnx", model_sha256="bb", latency_ms_p50=20)]
    renamed = [result(model="n.onnx", latency_ms_p50=5)]
    changed = [result(model="n.onnx", model_sha256="cc", latency_ms_p50=5)]
    assert ratios(several, renamed, changed) == [("a.json", 1), ("b.json", 0.5), ("a.json", 1), ("c.json", 0.25)]
    smaller = [result(model="n.int8.onnx", precision="int8", model_sha256="dd", latency_ms_p50=5)]
    assert ratios([result()], smaller) == [("a.json", 1), ("b.json", 0.5)]
    with pytest.raises(ConfigError, match=r"a\.json has nothing in common with b\.json"):
        ratios(several, smaller)


@pytest.mark.parametrize("other", [{"threads": 2}, {"batch": 8}])
def test_other_settings_are_nothing_in_common(other: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="nothing in common"):
        ratios([result()], [result(**other)])


def test_one_file_cannot_be_compared() -> None:
    with pytest.raises(ConfigError, match="nothing to compare"):
        ratios([result()])
    with pytest.raises(ConfigError, match="nothing to compare"):
        ratios()


def test_models_are_named_as_shortly_as_they_can_be_told_apart() -> None:
    rows = [result(model=model) for model in ("a/model.onnx", "b/model.onnx", "b/model.int8.onnx")]
    assert list(name_models(rows).values()) == ["a/model.onnx", "b/model.onnx", "model.int8.onnx"]


def test_a_prediction_tells_its_interval() -> None:
    assert result().milliseconds == "10.00"
    assert result(latency_ms_low=8.0, latency_ms_high=12.5).milliseconds == "10.00 (8.00 to 12.50)"
