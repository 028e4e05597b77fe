#!/usr/bin/env python3
"""Time an ONNX model on this machine's CPU and print one JSON object.

    python3 run_onnx.py model.onnx --threads 2

Stands alone: it needs Python 3.8 or later, numpy and onnxruntime, so that it can be copied to a board. The model must
have one float32 image input [batch, channels, height, width] of fixed size. On failure the last line of stderr says
what was wrong, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

# Official builds of ONNX Runtime send telemetry unless told not to before the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

PROVIDER = "CPUExecutionProvider"
MAX_OUTPUT_VALUES = 4096
KERNEL = "_kernel_time"  # ends the names of the events that tell how long an operator took


class Loaded(NamedTuple):
    """A model that is ready to run, and what runs it."""

    runtime: str
    runtime_version: str
    provider: str  # what it computes with
    input_shape: Sequence[Any]  # as the model declares it; the first one is the batch, which may be free
    run: Callable[[np.ndarray], np.ndarray]  # images of that shape to features
    time_operators: Callable[[np.ndarray, argparse.Namespace], list[dict[str, Any]]] | None = None


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="ONNX file")
    parser.add_argument("--threads", type=int, default=1, help="threads within an operator")
    parser.add_argument("--batch", type=int, default=1, help="images in one run")
    parser.add_argument("--warmup", type=int, default=10, help="runs before the timed ones")
    parser.add_argument("--min-samples", type=int, default=100, help="timed runs, at least")
    parser.add_argument("--min-seconds", type=float, default=1, help="seconds of timed runs, at least")
    parser.add_argument("--max-seconds", type=float, default=10, help="seconds of timed runs, at most")
    parser.add_argument("--operators", type=int, default=0, help="runs that each operator is timed in, afterwards")
    parser.add_argument("--seed", type=int, default=0, help="of the input's values")
    return parser.parse_args(arguments)


def measure(
    run: Callable[[], object], *, warmup: int, min_samples: int, min_seconds: float, max_seconds: float
) -> tuple[float, list[float]]:
    """Call ``run`` until there are ``min_samples`` times that last ``min_seconds``, or until ``max_seconds`` are over.

    The warm-up, too, ends after ``max_seconds``. There is always at least one sample.

    Returns:
        The milliseconds of the very first call, and those of each call after the warm-up.
    """

    def timed() -> float:
        start = time.perf_counter_ns()
        run()
        return (time.perf_counter_ns() - start) / 1e6

    first_run_ms = timed()
    start = time.perf_counter()
    for _ in range(warmup):
        if time.perf_counter() - start >= max_seconds:
            break
        run()
    samples_ms = []
    start = time.perf_counter()
    while True:
        samples_ms.append(timed())
        seconds = time.perf_counter() - start
        if seconds >= max_seconds or (len(samples_ms) >= min_samples and seconds >= min_seconds):
            return first_run_ms, samples_ms


def peak_memory_mib() -> float | None:
    """The most memory this process has had resident, in MiB; None where the system does not tell."""
    try:
        # Not ru_maxrss where it can be helped: on Linux a process inherits that from the one that started it.
        with Path("/proc/self/status").open(encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def make_input(shape: Sequence[Any], *, batch: int, seed: int) -> np.ndarray:
    """Uniform random values in 0..1 for an input declared as ``shape``: the same ones wherever the seed is the same."""
    import numpy as np

    return np.random.default_rng(seed).random((batch, *shape[1:]), dtype=np.float32)


def open_session(model: str, threads: int, trace: str | None = None) -> Any:
    """Load the model as an app would: all graph optimisations, operators one after another.

    With ``trace``, the session notes what each operator takes, in a file whose name begins so.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors only
    if trace is not None:
        options.enable_profiling = True
        options.profile_file_prefix = trace
    return ort.InferenceSession(model, options, providers=[PROVIDER])


def image_input(session: Any) -> Any:
    """Return the model's one input, having checked that images fit it."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ValueError(f"the model has {len(inputs)} inputs, not one")
    shape = inputs[0].shape
    if inputs[0].type != "tensor(float)" or len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
        raise ValueError(f"the input is {inputs[0].type} {shape}, not float [batch, channels, height, width]")
    return inputs[0]


def time_operators(model: str, feed: Mapping[str, np.ndarray], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time each operator in a session of its own, since noting times takes time, too.

    Returns:
        As :func:`read_trace`.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(model, arguments.threads, trace=str(Path(folder) / "trace"))
        _, samples_ms = measure(
            lambda: session.run(None, feed),
            warmup=arguments.warmup,
            min_samples=arguments.operators,
            min_seconds=0,
            max_seconds=arguments.max_seconds,
        )
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return read_trace(events, runs=len(samples_ms))


def read_trace(events: Sequence[Mapping[str, Any]], *, runs: int) -> list[dict[str, Any]]:
    """Return the mean milliseconds of each operator over the faster half of the last ``runs`` runs of a trace.

    The slower half is where other programs were in the way.

    Returns:
        A node of the optimised graph each, in the order of running, as ``{"node", "operator", "ms"}``; at the end what
        remains of the whole run.
    """
    traced: list[tuple[int, list[Mapping[str, Any]]]] = []  # how long a run took, and its nodes
    nodes: list[Mapping[str, Any]] = []
    for event in events:  # a run comes after its nodes: events are written down when they end
        if event["name"].endswith(KERNEL):
            nodes.append(event)
        elif event["name"] == "model_run":
            traced.append((event["dur"], nodes))
            nodes = []
    kept = sorted(traced[-runs:], key=lambda run: run[0])[: (runs + 1) // 2]
    operators: dict[tuple[str, str], float] = {}
    for _, nodes in kept:
        for event in nodes:
            node = (event["name"][: -len(KERNEL)], event["args"]["op_name"])
            operators[node] = operators.get(node, 0) + event["dur"] / 1e3 / len(kept)
    whole = sum(duration for duration, _ in kept) / 1e3 / len(kept)
    operators["between operators", "between operators"] = max(0, whole - sum(operators.values()))
    return [{"node": node, "operator": operator, "ms": ms} for (node, operator), ms in operators.items()]


def load_onnx(model: str, threads: int, batch: int) -> Loaded:
    """Load an ONNX file."""
    import onnxruntime as ort

    session = open_session(model, threads)
    declared = image_input(session)
    return Loaded(
        "onnxruntime",
        ort.__version__,
        PROVIDER,
        declared.shape,
        lambda images: session.run(None, {declared.name: images})[0],
        lambda images, arguments: time_operators(model, {declared.name: images}, arguments),
    )


def main(package: str, load: Callable[[str, int, int], Loaded]) -> None:
    """Time the model named on the command line and print what was found, or one line of what was wrong.

    Args:
        package: The runtime's, which is imported before memory and the time of loading are looked at.
        load: Loads a file for so many threads and images in one run.
    """
    try:
        result = time_model(parse_arguments(), package, load)
    except Exception as error:  # whatever it is, the caller reads one line
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        sys.exit(1)
    print(json.dumps(result))


def time_model(arguments: argparse.Namespace, package: str, load: Callable[[str, int, int], Loaded]) -> dict[str, Any]:
    """Load a model, time it and return what was found."""
    import numpy as np

    import_module(package)
    memory_before_load = peak_memory_mib()
    start = time.perf_counter_ns()
    model = load(arguments.model, arguments.threads, arguments.batch)
    load_ms = (time.perf_counter_ns() - start) / 1e6
    images = make_input(model.input_shape, batch=arguments.batch, seed=arguments.seed)
    first_run_ms, samples_ms = measure(
        lambda: model.run(images),
        warmup=arguments.warmup,
        min_samples=arguments.min_samples,
        min_seconds=arguments.min_seconds,
        max_seconds=arguments.max_seconds,
    )
    peak_memory = peak_memory_mib()
    output = model.run(images)
    if not np.isfinite(output).all():
        raise ValueError("the model's output is not finite")
    result = {
        "runtime": model.runtime,
        "runtime_version": model.runtime_version,
        "provider": model.provider,
        "threads": arguments.threads,
        "batch": arguments.batch,
        "input_shape": list(images.shape),
        "load_ms": load_ms,
        "first_run_ms": first_run_ms,
        "samples_ms": samples_ms,
        "memory_before_load_mib": memory_before_load,
        "peak_memory_mib": peak_memory,
        "python": platform.python_version(),
        "machine": platform.machine(),
        # For comparing with another runtime on the same input.
        "output_shape": list(output.shape),
        "output": output.ravel()[:MAX_OUTPUT_VALUES].tolist(),
    }
    if arguments.operators:
        if model.time_operators is None:
            raise ValueError(f"{model.runtime} does not tell how long operators take")
        result["operators"] = model.time_operators(images, arguments)
    return result


if __name__ == "__main__":
    main("onnxruntime", load_onnx)
