import json
from pathlib import Path
from typing import Any

import pytest

from lightssl.deploy.results import compare_results, read_results
from lightssl.reports.comparison import write_comparison
from tests.reports.html import Page

HOSTILE = "<script>alert('&')</script>$\\frac$"


def row(**changes: Any) -> dict[str, Any]:
    plain = {"kind": "measured", "model": "model.onnx", "device": "board", "runtime": "onnxruntime", "threads": 1}
    return (
        plain | {"precision": "fp32", "latency_ms_p50": 10.0, "model_sha256": "0f", "model_bytes": 2_500_000} | changes
    )


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes result files and the page about them."""

    def make(*files: list[dict[str, Any]], folder: Path = tmp_path) -> Page:
        paths = [folder / f"{number}.json" for number in range(len(files))]
        for path, rows in zip(paths, files, strict=True):
            path.write_text(json.dumps(rows), encoding="utf-8")
        results = {path: read_results(path) for path in paths}
        write_comparison(tmp_path / "page.html", results, compare_results(results))
        return Page(tmp_path / "page.html")

    return make


def test_devices_models_and_kinds_are_told_apart(write: Any) -> None:
    here = [row(), row(model="model.int8.onnx", model_sha256="1f", precision="int8", latency_ms_p50=4.0)]
    there = [
        row(device="phone", kind="browser", latency_ms_p50=25.0),
        row(device="Pi", kind="predicted", latency_ms_p50=30.0, latency_ms_low=20.0, latency_ms_high=45.0),
    ]
    page = write(here, there)
    for words in (
        "board, onnxruntime",
        "30.00 (20.00 to 45.00) predicted",
        "25.00 browser",
        "4.00 measured",
        "fp32, 2.50 MB",
    ):
        assert words in page.text
    assert "2.50 25.00 browser" in page.text  # the ratio
    assert page.tags.count("svg") == 1  # size alone
    assert "No accuracy is known" in page.text


def test_accuracy_is_that_of_the_very_file(full_run: Path, write: Any) -> None:
    page = write([row(), row(threads=2)], [row(device="phone")], folder=full_run / "bench")
    assert "accuracy 44.5 %" in page.text
    assert page.tags.count("svg") == 4
    assert "No accuracy is known" not in page.text
    assert len(page.ids) == len(set(page.ids))
    page = write(
        [row(model_sha256="another")], [row(model_sha256="another", device="phone")], folder=full_run / "bench"
    )
    assert "44.5" not in page.text


def test_what_was_evaluated_stands_for_a_file_that_was_not_verified(full_run: Path, write: Any) -> None:
    (full_run / "export" / "verify.json").unlink()
    assert "61.2" in write([row()], [row(device="phone")], folder=full_run / "bench").text


def test_results_before_and_after_stand_in_one_cell(write: Any) -> None:
    page = write([row()], [row(latency_ms_p50=7.5)])
    assert page.text.count("measured 0.json") == 0
    cells = page.text[page.text.index("1 thread") :]
    assert cells.index("10.00 measured") < cells.index("0.json") < cells.index("7.50 measured") < cells.index("1.json")


def test_hostile_names_stay_text_and_nothing_is_loaded(write: Any) -> None:
    page = write([row(model=f"x/{HOSTILE}", device=HOSTILE)], [row(model=f"x/{HOSTILE}", device="other")])
    assert "script" not in page.tags
    assert page.events == []
    assert all(address.startswith(("data:", "#")) for address in page.loads)
    assert HOSTILE in page.text
