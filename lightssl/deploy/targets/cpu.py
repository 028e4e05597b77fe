"""The machine at hand: ONNX Runtime and others, each in a fresh process, with torch eager beside them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
from annotated_types import Ge
from torch import nn

from lightssl.deploy.conversion import convert
from lightssl.deploy.latency import Latency, Measurement, summarise
from lightssl.deploy.reference import TorchReference, largest_error
from lightssl.deploy.runner import (
    SEED,
    describe_for_timing,
    input_images,
    measured_fields,
    model_fields,
    run_here,
    runner_functions,
    threads_that_fit,
)
from lightssl.machine import cpu_name, usable_cores
from lightssl.types import NonNegative, Positive, PositiveInt


def bench_cpu(
    model: Path,
    *,
    network: nn.Module | None = None,
    threads: Sequence[PositiveInt],
    batch: PositiveInt,
    warmup: Annotated[int, Ge(0)],
    min_samples: PositiveInt,
    min_seconds: NonNegative,
    max_seconds: Positive,
    grace_seconds: Positive,
    runtimes: Sequence[str] = (),
    operator_runs: Annotated[int, Ge(0)] = 0,
) -> list[Measurement]:
    """Time an ONNX model on this machine's CPU, once for each number of threads.

    Each runtime runs in a process of its own each time, started from ``export/runner/run_*.py``, so that memory is the
    model's alone. Torch eager runs in this process, timed by the same loop, in the faster of its two memory formats;
    what it needs to load and to hold is not told.

    Args:
        model: ONNX file with one float32 image input.
        network: The torch network it was exported from, mapping normalised float32 [B, 3, S, S] to [B, D]. Given it,
            each row says how far the features are from torch's, and torch eager is timed beside a file in fp32.
        threads: Numbers of threads to time with. Those above the usable cores are left out with a warning.
        batch: Images in one run.
        warmup: Runs before the timed ones.
        min_samples, min_seconds: Sampling goes on until both are reached.
        max_seconds: Sampling ends here in any case.
        grace_seconds: What the process may need beyond warm-up and sampling before it is taken for hung.
        runtimes: Names in ``RUNTIMES``, to be timed beside ONNX Runtime with files converted for that.
        operator_runs: So many runs more, of a session of its own, tell how long each operator takes.

    Raises:
        ConfigError: There is no such runtime.
        ExportError: The model cannot be converted for one of ``runtimes``.
        TargetError: There is no such file, a runtime refuses it or is killed by it, no number of threads fits the
            machine, or ``network`` is not what is in the file.
    """
    description = describe_for_timing(model)
    counts = threads_that_fit(threads, usable_cores())
    loop = {"warmup": warmup, "min_samples": min_samples, "min_seconds": min_seconds, "max_seconds": max_seconds}
    row = partial(
        Measurement,
        kind="measured",
        device=cpu_name(),
        cores=usable_cores(),
        **model_fields(description),
    )
    timeout = 2 * max_seconds + grace_seconds
    rows = []
    with TemporaryDirectory() as folder:
        converted = {runtime: convert(runtime, model, network, Path(folder, runtime)) for runtime in runtimes}
        for count in counts:
            arguments = {"threads": count, "batch": batch, "seed": SEED, **loop}
            operators = {"operators": operator_runs} if operator_runs else {}
            timed = run_here(model, arguments | operators, timeout=timeout * (2 if operators else 1))
            images = input_images(timed["input_shape"])
            reference = None if network is None else TorchReference(network, description, images)
            others = [run_here(file, arguments, timeout=timeout, runtime=name) for name, file in converted.items()]
            rows += [
                row(
                    **measured_fields(answer),
                    max_error_vs_torch=None if reference is None else reference.error_of(answer),
                    max_error_vs_host=None if answer is timed else largest_error(answer, timed, "ONNX Runtime's"),
                )
                for answer in (timed, *others)
            ]
            if reference is not None and description.precision == "fp32":  # as the network is
                memory_format, latency = _time_eager(reference, count, loop)
                rows.append(
                    row(
                        **asdict(latency),
                        runtime="torch eager",
                        runtime_version=torch.__version__,
                        provider=f"CPU, {memory_format}",
                        threads=count,
                        batch=batch,
                        load_ms=None,
                        first_run_ms=None,
                        memory_before_load_mib=None,
                        peak_memory_mib=None,
                        max_error_vs_torch=None,
                    )
                )
    return rows


def _time_eager(reference: TorchReference, threads: int, loop: Mapping[str, float]) -> tuple[str, Latency]:
    """Time torch eager in both memory formats; return the name of the faster one and its latency."""
    measure = runner_functions()["measure"]  # the same loop for both
    timed = {}
    for name, memory_format in (("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last)):
        run = partial(
            reference.network.to(memory_format=memory_format), reference.images.to(memory_format=memory_format)
        )
        with torch.inference_mode(), _torch_threads(threads):
            _, samples_ms = measure(run, **loop)
        timed[name] = summarise(samples_ms)
    return min(timed.items(), key=lambda item: item[1].latency_ms_p50)


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
