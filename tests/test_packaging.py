"""The wheel holds all that the program needs."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_runs_from_another_folder(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "lightssl/recipes/mobilenetv2_dino.yaml",
        "lightssl/recipes/views/sslight.yaml",
        "lightssl/recipes/scales/quick.yaml",
        "lightssl/export/targets/cpu.yaml",
        "lightssl/export/targets/ssh.yaml",
        "lightssl/export/runner/run_onnx.py",
        "lightssl/export/runner/run_onnx.c",
        "lightssl/export/runner/run_ncnn.py",
        "lightssl/export/runner/describe_board.sh",
        "lightssl/export/web/index.html",
        "lightssl/data/sample/fashion_mnist.npz",
        "lightssl/data/sample/LICENSE",
        "lightssl/reports/page.html.jinja",
    ):
        assert name in names, name
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]

    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # The dependencies come from this environment, lightssl itself from the wheel alone.
    env = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, *arguments], cwd=elsewhere, env=env, check=True, capture_output=True, text=True
        ).stdout

    assert run("-c", "import lightssl; print(lightssl.__file__)").startswith(str(site))
    assert "global" in run("-m", "lightssl", "recipes", "show", "mobilenetv2_dino", "--scale", "quick")
    settings = ["train.duration=2 steps", "train.batch_size=4", "data.workers=0", "method.prototypes=16"]
    overrides = [argument for setting in settings for argument in ("--set", setting)]
    run("-m", "lightssl", "pretrain", *overrides)
    run("-m", "lightssl", "export", "--onnx")
    assert "latency_ms_p50" in run("-m", "lightssl", "bench", "--json")
