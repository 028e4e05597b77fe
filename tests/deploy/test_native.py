"""The compiled runner is held against ``run_onnx.py``, which prints the same."""

import json
import os
import platform
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from lightssl.deploy.emulator import CPUINFO
from lightssl.deploy.native import build_native_runner
from lightssl.errors import TargetError
from lightssl.resources import resource
from tests.deploy.models import save_node

PYTHON_RUNNER = resource("export", "runner", "run_onnx.py")
QUICK = ["--warmup=1", "--min-samples=3", "--min-seconds=0", "--max-seconds=1"]

pytestmark = pytest.mark.skipif(
    not shutil.which("gcc") or platform.machine() not in ("x86_64", "aarch64"), reason="needs gcc for x86-64 or aarch64"
)

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with the runner and all it needs, and the command that starts it there."""
    runner = build_native_runner(platform.machine(), tmp_path_factory.mktemp("build"))
    folder = tmp_path_factory.mktemp("bundle")
    for name, path in runner.files.items():
        shutil.copy(path, folder / name)
    return folder, runner.command


@pytest.fixture
def run(bundle: tuple[Path, list[str]], tmp_path: Path) -> Run:
    folder, command = bundle

    def start(model: Path, *options: str, shape: tuple[int, ...] = (2, 3, 4, 4)) -> "subprocess.CompletedProcess[str]":
        images = tmp_path / "input.bin"
        runpy.run_path(str(PYTHON_RUNNER))["make_input"](shape, batch=shape[0], seed=7).tofile(images)
        arguments = [*command, str(model), f"--input={images}", f"--batch={shape[0]}", *QUICK, *options]
        # Nothing of the system's is in reach but its kernel.
        env = {"ORT_DISABLE_TELEMETRY": "1"}
        return subprocess.run(arguments, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)

    return start


def test_it_prints_what_the_python_runner_prints(model: Path, run: Run) -> None:
    process = run(model, "--threads=1", shape=(2, 3, 16, 16))
    assert (process.returncode, process.stderr) == (0, "")
    result = json.loads(process.stdout)
    other = subprocess.run(
        [sys.executable, str(PYTHON_RUNNER), str(model), "--batch=2", "--seed=7", *QUICK],
        env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        check=True,
    )
    expected: dict[str, Any] = json.loads(other.stdout)
    assert result.keys() == expected.keys()
    for key in ("runtime", "runtime_version", "provider", "threads", "batch", "machine", "input_shape", "output_shape"):
        assert result[key] == expected[key]
    # Nine digits name every float32.
    np.testing.assert_array_equal(np.float32(result["output"]), np.float32(expected["output"]))
    assert len(result["samples_ms"]) == 3
    assert min(*result["samples_ms"], result["load_ms"], result["first_run_ms"]) > 0
    assert 0 < result["memory_before_load_mib"] <= result["peak_memory_mib"]


def test_a_stream_of_inputs_gives_one_of_outputs(model: Path, bundle: tuple[Path, list[str]]) -> None:
    folder, command = bundle
    inputs = np.random.default_rng(0).random((3, 2, 3, 16, 16), dtype=np.float32)

    def stream(content: bytes) -> "subprocess.CompletedProcess[bytes]":
        arguments = [*command, str(model), "--stream", "--batch=2"]
        return subprocess.run(
            arguments, cwd=folder, env={}, input=content, capture_output=True, timeout=60, check=False
        )

    session = runpy.run_path(str(PYTHON_RUNNER))["open_session"](str(model), 1)
    expected = b"".join(np.uint64(16).tobytes() + session.run(None, {"images": batch})[0].tobytes() for batch in inputs)
    process = stream(inputs.tobytes())
    assert (process.returncode, process.stdout, process.stderr) == (0, expected, b"")
    assert stream(b"").stdout == b""
    process = stream(inputs.tobytes()[:-1])
    assert process.returncode == 1
    assert process.stdout == expected[: len(expected) * 2 // 3]
    assert process.stderr == b"the last input has 6143 bytes, not 6144\n"


def test_the_loop_stops_when_it_should(tmp_path: Path, run: Run) -> None:
    model = save_node(tmp_path / "relu.onnx", "Relu", ["batch", 3, 4, 4])

    def samples(*options: str) -> int:
        return len(json.loads(run(model, *options).stdout)["samples_ms"])

    assert samples("--min-samples=700", "--max-seconds=60") == 700
    assert samples("--min-samples=700", "--max-seconds=0") == 1
    assert samples("--min-samples=1", "--min-seconds=0.05", "--max-seconds=60") > 1


@pytest.mark.parametrize(
    ("node", "inputs", "kind", "message"),
    [
        ("Relu", [["batch", 8]], TensorProto.FLOAT, "not float [batch, channels, height, width]"),
        ("Relu", [["batch", 3, "height", "width"]], TensorProto.FLOAT, "not float [batch, channels, height, width]"),
        ("Relu", [["batch", 3, 4, 4]], TensorProto.DOUBLE, "not float [batch, channels, height, width]"),
        ("Add", [["batch", 3, 4, 4]] * 2, TensorProto.FLOAT, "2 inputs"),
        ("Relu", [[3, 3, 4, 4]], TensorProto.FLOAT, "index: 0 Got: 2 Expected: 3"),
        ("Relu", [["batch", 3, 4, 5]], TensorProto.FLOAT, "does not hold 480 bytes"),
        ("Relu", [["batch", 3, 4, 3]], TensorProto.FLOAT, "does not hold 288 bytes"),
        ("Acosh", [["batch", 3, 4, 4]], TensorProto.FLOAT, "the model's output is not finite"),
    ],
)
def test_a_model_that_does_not_fit_ends_in_one_line(
    node: str, inputs: list[list[int | str]], kind: int, message: str, tmp_path: Path, run: Run
) -> None:
    process = run(save_node(tmp_path / "model.onnx", node, *inputs, kind=kind))
    assert process.returncode == 1
    assert message in process.stderr.splitlines()[-1]


def test_what_it_is_called_with_is_checked(model: Path, run: Run) -> None:
    for option, message in (
        ("--loops=3", "unknown argument --loops=3"),
        ("second.onnx", "unknown argument"),
        ("--stream", "usage"),
    ):
        process = run(model, option)
        assert (process.returncode, process.stdout) == (1, "")
        assert message in process.stderr
    assert "none.onnx" in run(Path("none.onnx")).stderr


def test_other_processors_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="no runner for armv7l processors, only for aarch64 and x86_64"):
        build_native_runner("armv7l", tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-gcc") and shutil.which("qemu-aarch64-static")),
    reason="needs gcc-aarch64-linux-gnu and qemu-user-static",
)
def test_the_arm_runner_computes_the_same_under_emulation(model: Path, tmp_path: Path) -> None:
    build, folder = tmp_path / "build", tmp_path / "board"
    build.mkdir()
    # The runtime reads the processor's description, in which an emulator shows it the machine's own.
    (folder / "proc").mkdir(parents=True)
    (folder / "proc" / "cpuinfo").write_text(CPUINFO)
    try:
        runner = build_native_runner("aarch64", build)
    except TargetError as error:
        if "pip" in error.message:
            pytest.skip(f"needs the ARM wheel of onnxruntime: {error.message}")
        raise
    for name, path in runner.files.items():
        shutil.copy(path, folder / name)
    functions = runpy.run_path(str(PYTHON_RUNNER))
    images = functions["make_input"]((2, 3, 16, 16), batch=2, seed=7)
    images.tofile(folder / "input.bin")
    process = subprocess.run(
        ["qemu-aarch64-static", *runner.command, str(model), "--input=input.bin", "--batch=2", *QUICK],
        cwd=folder,
        env={"ORT_DISABLE_TELEMETRY": "1", "QEMU_LD_PREFIX": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    session = functions["open_session"](str(model), 1)
    (expected,) = session.run(None, {session.get_inputs()[0].name: images})
    assert result["machine"] == "aarch64"
    np.testing.assert_allclose(np.float32(result["output"]), expected.ravel(), atol=1e-5)
