import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightssl.deploy import runner
from lightssl.deploy.profile import bench, load_profile
from lightssl.deploy.targets import cpu
from lightssl.errors import TargetError
from lightssl.machine import usable_cores

QUICK: dict[str, Any] = {"batch": 1, "warmup": 1, "min_samples": 3, "min_seconds": 0, "max_seconds": 1}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Puts another script in the place of the runner."""

    def install(code: str) -> None:
        script = tmp_path / "stub.py"
        script.write_text(code)
        monkeypatch.setattr(runner, "runner_path", lambda runtime: script)

    return install


def test_onnx_runtime_and_torch_stand_side_by_side(model: Path, network: nn.Module) -> None:
    threads_before = torch.get_num_threads()
    rows = bench(model, load_profile("cpu"), network=network, settings={**QUICK, "threads": [1]})

    assert [row.runtime for row in rows] == ["onnxruntime", "torch eager"]
    onnx_row, torch_row = rows
    for row in rows:
        assert (row.kind, row.threads, row.batch, row.samples, row.precision) == ("measured", 1, 1, 3, "fp32")
        assert 0 < row.latency_ms_min <= row.latency_ms_p50 <= row.latency_ms_p90 <= row.latency_ms_p99
        assert row.cores == usable_cores()
        assert row.model_bytes == model.stat().st_size
    assert onnx_row.max_error_vs_torch is not None
    assert onnx_row.max_error_vs_torch < 1e-5
    assert onnx_row.load_ms
    assert torch_row.provider in ("CPU, contiguous", "CPU, channels_last")
    assert torch.get_num_threads() == threads_before
    json.dumps([asdict(row) for row in rows])


def test_operators_are_timed_where_asked_for(model: Path) -> None:
    settings = {**QUICK, "threads": [1], "operator_runs": 3}
    (row,) = bench(model, load_profile("cpu"), settings=settings)
    assert row.operators
    assert row.samples == 3
    assert "Conv" in [entry.operator for entry in row.operators]
    assert row.operators[-1].operator == "between operators"
    (row,) = bench(model, load_profile("cpu"), settings={**settings, "operator_runs": 0})
    assert row.operators is None


def test_memory_is_the_childs_own(model: Path) -> None:
    ballast = b"x" * (400 * 2**20)  # ru_maxrss of a child would start at what its parent holds
    (row,) = cpu.bench_cpu(model, threads=[1], grace_seconds=60, **QUICK)
    assert row.memory_before_load_mib is not None
    assert row.peak_memory_mib is not None
    assert 0 < row.memory_before_load_mib <= row.peak_memory_mib < len(ballast) / 2**20


def test_another_network_than_the_exported_one_is_noticed(model: Path) -> None:
    other = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(TargetError, match=r"The output has 8 values of shape \[1, 8\], torch's shape \[1, 3\]"):
        cpu.bench_cpu(model, network=other, threads=[1], grace_seconds=60, **QUICK)
    with pytest.raises(TargetError, match=r"fails on the model's input \[1, 3, 16, 16\]"):
        cpu.bench_cpu(model, network=nn.Conv2d(1, 8, 1), threads=[1], grace_seconds=60, **QUICK)


def test_more_threads_than_cores(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "usable_cores", lambda: 1)
    with pytest.warns(UserWarning, match="Not timed with 2, 4 threads: 1 cores"):
        rows = cpu.bench_cpu(model, threads=[1, 2, 4], grace_seconds=60, **QUICK)
    assert [row.threads for row in rows] == [1]
    with pytest.raises(TargetError, match="at most 1"):
        cpu.bench_cpu(model, threads=[2], grace_seconds=60, **QUICK)


@pytest.mark.parametrize("content", [None, b"", b"half"])
def test_a_missing_or_damaged_model(content: bytes | None, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    if content is not None:
        path.write_bytes(model.read_bytes()[:900] if content == b"half" else content)
    with pytest.raises(TargetError, match=r"other\.onnx"):
        cpu.bench_cpu(path, threads=[1], grace_seconds=60, **QUICK)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; print('noise', file=sys.stderr); sys.exit('the reason')", "could not time .*: the reason$"),
        ("import sys; sys.exit(3)", "no reason given"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL"),
        ("print('hello')", "something else than a result"),
    ],
)
def test_a_child_that_fails(code: str, message: str, model: Path, stub: Callable[[str], None]) -> None:
    stub(code)
    with pytest.raises(TargetError, match=message):
        cpu.bench_cpu(model, threads=[1], grace_seconds=60, **QUICK)


def test_a_child_that_hangs_is_ended(model: Path, stub: Callable[[str], None], tmp_path: Path) -> None:
    stub(f"import time; time.sleep(20); open({str(tmp_path / 'survived')!r}, 'w')")
    with pytest.raises(TargetError, match=r"no answer within 0\.5 s"):
        cpu.bench_cpu(model, threads=[1], grace_seconds=0.1, **(QUICK | {"max_seconds": 0.2}))


def test_the_child_sends_no_telemetry_and_reads_no_input(
    model: Path, stub: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    stub("import os, sys; sys.exit(repr((os.environ.get('ORT_DISABLE_TELEMETRY'), sys.stdin.read())))")
    with pytest.raises(TargetError, match=r"\('1', ''\)"):
        cpu.bench_cpu(model, threads=[1], grace_seconds=60, **QUICK)
