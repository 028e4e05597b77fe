"""The runners, ``export/runner/run_*.py``: how they are started, on which input, and what they answer."""

import json
import os
import runpy
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lightssl.deploy.latency import OperatorTime, summarise
from lightssl.deploy.onnx import ModelDescription, describe_model
from lightssl.errors import ExportError, LightSSLWarning, TargetError
from lightssl.resources import resource

SEED = 0  # of the input's values


def runner_path(runtime: str | None = None) -> Path:
    """Where a runtime's runner lies, by default ONNX Runtime's: a script that needs nothing of lightssl."""
    return resource("export", "runner", f"run_{runtime or 'onnx'}.py")


def runner_functions() -> dict[str, Any]:
    """Return the runner's own functions by name, for whom it must be the same input and the same loop."""
    return runpy.run_path(str(runner_path()))


def input_images(shape: Sequence[int]) -> np.ndarray:
    """Return the input of this shape, float32 [B, 3, S, S], that every target times models on."""
    images: np.ndarray = runner_functions()["make_input"](shape, batch=shape[0], seed=SEED)
    return images


def runner_options(arguments: Mapping[str, float]) -> list[str]:
    """Return ``{"min_samples": 3}`` as the runner reads it, ``--min-samples=3``."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in arguments.items()]


def run_here(
    model: Path, arguments: Mapping[str, float], *, timeout: float, runtime: str | None = None
) -> dict[str, Any]:
    """Run the runner on this machine in a fresh process and return its answer.

    Args:
        model: ONNX file, or that of ``runtime``.
        arguments: The runner's options by name.
        timeout: Seconds after which it is ended.
        runtime: A name in ``RUNTIMES``; by default ONNX Runtime.

    Raises:
        TargetError: The runtime refuses the model, is killed by it or does not come to an end.
    """
    failed = f"{runtime or 'ONNX Runtime'} could not time {model}"
    try:
        process = subprocess.run(
            [sys.executable, str(runner_path(runtime)), str(model.resolve()), *runner_options(arguments)],
            env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TargetError(
            f"{failed}: no answer within {timeout:g} s.", "Raise grace_seconds, or take a smaller network."
        ) from error
    return read_answer(process, failed)


def read_answer(process: "subprocess.CompletedProcess[bytes]", failed: str) -> dict[str, Any]:
    """Return what the runner found.

    Args:
        process: The runner's, ended. A negative status stands for the signal that ended it.
        failed: What to say if it failed, before the reason.

    Raises:
        TargetError: It failed.
    """
    if process.returncode < 0:
        raise TargetError(f"{failed}: its process was ended by {signal.Signals(-process.returncode).name}.")
    if process.returncode > 0:
        lines = process.stderr.decode(errors="replace").strip().splitlines()
        raise TargetError(f"{failed}: {lines[-1] if lines else 'no reason given'}")
    try:
        answer: dict[str, Any] = json.loads(process.stdout)
    except ValueError as error:
        raise TargetError(f"{failed}: its process printed something else than a result.") from error
    return answer


def measured_fields(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a :class:`~lightssl.deploy.latency.Measurement` that the runner's answer holds."""
    told = ("runtime", "runtime_version", "provider", "threads", "batch", "load_ms", "first_run_ms")
    memory = ("memory_before_load_mib", "peak_memory_mib")
    operators = [OperatorTime(**entry) for entry in answer["operators"]] if "operators" in answer else None
    fields = {name: answer[name] for name in (*told, *memory)}
    return {**asdict(summarise(answer["samples_ms"])), **fields, "operators": operators}


def model_fields(description: ModelDescription) -> dict[str, Any]:
    """Return the fields of a :class:`~lightssl.deploy.latency.Measurement` that the model's file holds."""
    return {
        "precision": description.metadata.get("precision", "unknown"),
        "model_sha256": description.sha256,
        "model_bytes": description.bytes,
    }


def describe_for_timing(model: Path) -> ModelDescription:
    """Read what the file says of itself; raise TargetError where :func:`describe_model` raises ExportError."""
    try:
        return describe_model(model)
    except ExportError as error:
        raise TargetError(error.message, error.hint) from error


def threads_that_fit(threads: Sequence[int], cores: int, where: str = "here") -> list[int]:
    """Leave out the numbers of threads above ``cores``, with a warning.

    Raises:
        TargetError: None is left.
    """
    fitting = [count for count in threads if count <= cores]
    if not fitting:
        raise TargetError(
            f"Cannot time with {', '.join(map(str, threads)) or 'no'} threads: {cores} cores can be used {where}.",
            f"Ask for at most {cores}.",
        )
    if len(fitting) < len(threads):
        left_out = ", ".join(str(count) for count in threads if count > cores)
        message = f"Not timed with {left_out} threads: {cores} cores can be used {where}."
        warnings.warn(message, LightSSLWarning, stacklevel=3)
    return fitting
