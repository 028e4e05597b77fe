"""The machine at hand: ONNX Runtime in a fresh process, with torch eager beside it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor, nn

from lightssl.deploy.latency import Latency, Measurement, summarise
from lightssl.deploy.onnx import ModelDescription, Normalised, evaluation_copy
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
from lightssl.errors import TargetError
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
) -> list[Measurement]:
    """Time an ONNX model on this machine's CPU, once for each number of threads.

    ONNX Runtime runs in a process of its own each time, started from ``export/runner/run_onnx.py``, so that memory is
    the model's alone. Torch eager runs in this process, timed by the same loop, in the faster of its two memory
    formats; what it needs to load and to hold is not told.

    Args:
        model: ONNX file with one float32 image input.
        network: The torch network it was exported from, mapping normalised float32 [B, 3, S, S] to [B, D]. Given it,
            each row says how far the features are from torch's, and torch eager is timed too.
        threads: Numbers of threads to time with. Those above the usable cores are left out with a warning.
        batch: Images in one run.
        warmup: Runs before the timed ones.
        min_samples, min_seconds: Sampling goes on until both are reached.
        max_seconds: Sampling ends here in any case.
        grace_seconds: What the process may need beyond warm-up and sampling before it is taken for hung.

    Raises:
        TargetError: There is no such file, ONNX Runtime refuses it or is killed by it, no number of threads fits the
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
    rows = []
    for count in counts:
        arguments = {"threads": count, "batch": batch, "seed": SEED, **loop}
        timed = run_here(model, arguments, timeout=2 * max_seconds + grace_seconds)
        reference = None if network is None else _Reference(network, description, timed["input_shape"])
        rows.append(
            row(
                **measured_fields(timed),
                max_error_vs_torch=None if reference is None else reference.error_of(timed),
            )
        )
        if reference is not None:
            memory_format, latency = reference.time(count, loop)
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


class _Reference:
    """The torch network that a model was exported from, on the input that the runner times the model with.

    Args:
        network: Maps normalised float32 [B, 3, S, S] to [B, D].
        description: Of the model.
        input_shape: As the runner ran it, [B, 3, S, S].
    """

    def __init__(self, network: nn.Module, description: ModelDescription, input_shape: Sequence[int]) -> None:
        self._network = evaluation_copy(network)
        if description.normalises:
            mean, std = (json.loads(description.metadata[name]) for name in ("mean", "std"))
            self._network = Normalised(self._network, mean, std)
        self._images: Tensor = torch.from_numpy(input_images(input_shape))

    def error_of(self, timed: Mapping[str, Any]) -> float:
        """Return the largest absolute difference of the runner's output from torch's."""
        hint = "Give the network that the model was exported from."
        try:
            with torch.inference_mode():
                expected = self._network(self._images).numpy()
        except RuntimeError as error:
            raise TargetError(f"The network fails on the model's input {list(self._images.shape)}.", hint) from error
        if list(expected.shape) != timed["output_shape"]:
            raise TargetError(
                f"The network's features have shape {list(expected.shape)}, the model's {timed['output_shape']}.", hint
            )
        output = np.asarray(timed["output"], dtype=np.float32)
        return float(np.abs(output - expected.ravel()[: output.size]).max())

    def time(self, threads: int, loop: Mapping[str, float]) -> tuple[str, Latency]:
        """Time torch eager in both memory formats; return the name of the faster one and its latency."""
        measure = runner_functions()["measure"]  # the same loop for both
        timed = {}
        for name, memory_format in (("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last)):
            run = partial(self._network.to(memory_format=memory_format), self._images.to(memory_format=memory_format))
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
