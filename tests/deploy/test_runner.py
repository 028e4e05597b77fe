"""The runner is tested as it is used: a script in a process of its own, with nothing of lightssl in reach."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from lightssl.deploy.profile import load_profile
from lightssl.resources import resource
from tests.deploy.models import save_node

RUNNER = resource("export", "runner", "run_onnx.py")
QUICK = ["--warmup=1", "--min-samples=3", "--min-seconds=0", "--max-seconds=1"]
# None in sys.modules makes an import fail.
ALONE = """
import runpy, sys
sys.modules.update(dict.fromkeys(["lightssl", "torch", "onnx", "yaml", "pydantic"]))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def runner() -> dict[str, Any]:
    return runpy.run_path(str(RUNNER))


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-c", ALONE, str(RUNNER), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_it_times_a_model_with_nothing_of_lightssl_in_reach(tmp_path: Path) -> None:
    model = save_node(tmp_path / "relu.onnx", "Relu", ["batch", 3, 4, 4])
    process = run(model, "--threads=1", "--batch=2", "--seed=7", *QUICK, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    result = json.loads(process.stdout)
    assert result["runtime"] == "onnxruntime"
    assert result["provider"] == "CPUExecutionProvider"
    assert (result["threads"], result["batch"], result["input_shape"]) == (1, 2, [2, 3, 4, 4])
    assert len(result["samples_ms"]) == 3
    assert min(*result["samples_ms"], result["load_ms"], result["first_run_ms"]) > 0
    assert 0 < result["memory_before_load_mib"] <= result["peak_memory_mib"]
    # The input can be made again elsewhere: Relu leaves values in 0..1 as they are.
    expected = np.random.default_rng(7).random((2, 3, 4, 4), dtype=np.float32)
    np.testing.assert_array_equal(np.float32(result["output"]), expected.ravel())


@pytest.mark.parametrize(
    ("node", "inputs", "kind", "message"),
    [
        ("Relu", [["batch", 8]], TensorProto.FLOAT, "not float [batch, channels, height, width]"),
        ("Relu", [["batch", 3, "height", "width"]], TensorProto.FLOAT, "not float [batch, channels, height, width]"),
        ("Relu", [["batch", 3, 4, 4]], TensorProto.DOUBLE, "tensor(double)"),
        ("Add", [["batch", 3, 4, 4]] * 2, TensorProto.FLOAT, "2 inputs"),
        ("Reciprocal", [[2, 3, 4, 4]], TensorProto.FLOAT, "index: 0 Got: 1 Expected: 2"),
    ],
)
def test_a_model_that_does_not_fit_ends_in_one_line(
    node: str, inputs: list[list[int | str]], kind: int, message: str, tmp_path: Path
) -> None:
    process = run(save_node(tmp_path / "model.onnx", node, *inputs, kind=kind), *QUICK, cwd=tmp_path)
    assert process.returncode == 1
    assert process.stdout == ""
    assert message in process.stderr.splitlines()[-1]


def test_output_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    process = run(save_node(tmp_path / "acosh.onnx", "Acosh", ["batch", 3, 4, 4]), *QUICK, cwd=tmp_path)
    assert (process.returncode, process.stderr) == (1, "the model's output is not finite\n")


def test_the_loop_stops_when_it_should(runner: dict[str, Any]) -> None:
    calls: list[None] = []

    def measure(**limits: float) -> int:
        calls.clear()
        first_run_ms, samples_ms = runner["measure"](lambda: calls.append(None), **limits)
        assert first_run_ms > 0
        return len(samples_ms)

    assert measure(warmup=4, min_samples=7, min_seconds=0, max_seconds=60) == 7
    assert len(calls) == 1 + 4 + 7
    assert measure(warmup=4, min_samples=7, min_seconds=0, max_seconds=0) == 1
    assert len(calls) == 1 + 0 + 1
    assert measure(warmup=0, min_samples=1, min_seconds=0.01, max_seconds=60) > 1


def test_its_defaults_are_those_of_the_device_profile(runner: dict[str, Any]) -> None:
    defaults = vars(runner["parse_arguments"](["model.onnx"]))
    settings = load_profile("cpu").settings
    for name in ("batch", "warmup", "min_samples", "min_seconds", "max_seconds"):
        assert defaults[name] == settings[name]


def test_a_trace_is_reduced_to_the_runs_that_count(runner: dict[str, Any]) -> None:
    def run(start: int, first: int, second: int, whole: int) -> list[dict[str, Any]]:
        def event(name: str, ts: int, dur: int, **args: str) -> dict[str, Any]:
            return {"name": name, "ts": ts, "dur": dur, "args": args}

        return [
            event("conv_1_kernel_time", start + 1, first, op_name="Conv"),
            event("relu_kernel_time", start + first, second, op_name="Relu"),
            event("SequentialExecutor::Execute", start, whole),
            event("model_run", start, whole),
        ]

    warm_up = [{"name": "session_initialization", "ts": 0, "dur": 9}, *run(100, 10, 10, 20)]
    disturbed = [*run(60_000, 9000, 300, 9300), *run(80_000, 200, 8000, 8200)]
    events = [*warm_up, *run(30_000, 1000, 300, 2000), *disturbed, *run(90_000, 3000, 500, 4000)]
    rows = runner["read_trace"](events, runs=4)
    assert [(row["node"], row["operator"]) for row in rows] == [
        ("conv_1", "Conv"),
        ("relu", "Relu"),
        ("between operators", "between operators"),
    ]
    assert [row["ms"] for row in rows] == pytest.approx([2.0, 0.4, 0.6])


def test_operators_are_timed_in_a_session_of_their_own(tmp_path: Path) -> None:
    model = save_node(tmp_path / "relu.onnx", "Relu", ["batch", 3, 4, 4])
    folder = tmp_path / "empty"
    folder.mkdir()
    process = run(str(tmp_path / model), "--operators=4", *QUICK, cwd=folder)
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert len(result["samples_ms"]) == 3
    assert [row["operator"] for row in result["operators"]] == ["Relu", "between operators"]
    assert all(row["ms"] >= 0 for row in result["operators"])
    assert list(folder.iterdir()) == []
