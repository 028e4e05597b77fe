"""``lightssl export --runtime`` and ``lightssl bench --runtime``, from a run to the files of an app."""

import json
from pathlib import Path

import pytest

import lightssl


@pytest.mark.slow
def test_a_run_is_exported_for_and_timed_with_another_runtime(
    photos: Path, tmp_path: Path, tiny: list[str], program
) -> None:
    pytest.importorskip("ncnn", reason="pip install 'lightssl[ncnn]'")
    run = lightssl.pretrain(data=str(photos), overrides=tiny, out=tmp_path / "runs" / "tiny")
    unknown = program("export", "--onnx", "--runtime", "nccn", check=False)
    assert unknown.returncode == 2
    assert "Did you mean 'ncnn'?" in unknown.stderr
    assert not run.onnx_path.exists()

    assert "model.ncnn.bin, model.ncnn.param" in program("export", "--onnx", "--runtime", "ncnn").stdout
    (written,) = json.loads((run.onnx_path.parent / "manifest.json").read_text())["runtimes"]
    assert {path.name for path in run.onnx_path.parent.iterdir()} == {"model.onnx", "manifest.json", *written["sha256"]}

    quick = ["--set", "threads=[1]", "--set", "min_samples=3", "--set", "min_seconds=0"]
    rows = json.loads(program("bench", "--runtime", "ncnn", *quick, "--json").stdout)
    assert [row["runtime"] for row in rows] == ["onnxruntime", "ncnn", "torch eager"]
    assert rows[1]["max_error_vs_torch"] < 1e-4

    # The other commands go on with ONNX.
    assert len(json.loads(program("verify", "--json").stdout)["rows"]) == 2
