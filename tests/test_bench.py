"""``lightssl bench`` on the files of a run, and what is made of its results."""

from pathlib import Path

import pytest

import lightssl

QUICK = {"threads": [1], "warmup": 1, "min_samples": 3, "min_seconds": 0, "operator_runs": 3}


@pytest.mark.slow
def test_from_the_files_of_a_run_to_pages_about_them(photos: Path, tmp_path: Path, tiny: list[str]) -> None:
    run = lightssl.pretrain(data=str(photos), overrides=tiny, out=tmp_path / "run")
    lightssl.export(run, fp16=True)
    fp16 = run.onnx_path.with_name("model.fp16.onnx")
    rows = lightssl.bench([run.onnx_path, fp16], settings=QUICK)
    assert [(Path(row["model"]).name, row["runtime"]) for row in rows] == [
        ("model.onnx", "onnxruntime"),
        ("model.onnx", "torch eager"),
        ("model.fp16.onnx", "onnxruntime"),
    ]
    assert rows[0]["max_error_vs_torch"] < rows[2]["max_error_vs_torch"] < 0.1

    (accuracy,) = {row["top1"] for row in lightssl.verify([fp16])["rows"] if row["precision"] == "fp16"}
    written = [run.bench_path("cpu"), run.bench_path("cpu", fp16.name)]
    assert [path.name for path in written] == ["cpu.json", "cpu.fp16.json"]
    compared = lightssl.compare(written, out=tmp_path / "page.html")
    assert [(row.file, row.result.precision) for row in compared] == list(zip(written, ["fp32", "fp16"], strict=True))
    assert compared[1].ratio == rows[2]["latency_ms_p50"] / rows[0]["latency_ms_p50"]
    assert f"accuracy {accuracy:.1f} %" in (tmp_path / "page.html").read_text(encoding="utf-8")

    for path in written:
        assert path.with_suffix(".operators.png").read_bytes().startswith(b"\x89PNG")
    page = lightssl.report(run).read_text(encoding="utf-8")
    assert page.count("The operators that take longest") == 2
