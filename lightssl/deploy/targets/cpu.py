"""The machine at hand: ONNX Runtime and others, each in a fresh process, with torch eager beside them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor, nn

from lightssl.deploy.conversion import convert
from lightssl.deploy.latency import Latency, Measurement, summarise
from lightssl.deploy.onnx import ModelDescription, as_exported
from lightssl.deploy.runner import (
    SEED,
    describe_for_timing,
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
    runtimes: Sequence[str] = (),
) -> list[Measurement]:
    """Time an ONNX model on this machine's CPU, once for each number of threads.

    Each runtime runs in a process of its own each time, started from ``export/runner/run_*.py``, so that memory is the
    model's alone. Torch eager runs in this process, timed by the same loop, in the faster of its two memory formats;
    what it needs to load and to hold is not told.

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
        runtimes: Names in ``RUNTIMES``, to be timed beside ONNX Runtime with files converted for that.

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
            timed = run_here(model, arguments, timeout=timeout)
            reference = None if network is None else _Reference(network, description, timed["input_shape"])
            answers = [timed]
            answers += [
                run_here(file, arguments, timeout=timeout, runtime=runtime) for runtime, file in converted.items()
            ]
            rows += [
                row(
                    **measured_fields(answer),
                    max_error_vs_torch=None if reference is None else reference.error_of(answer),
                    max_error_vs_host=None if answer is timed else _difference(answer, timed),
                )
                for answer in answers
            ]
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


def _difference(answer: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """Return the largest absolute difference of one runner's output from another's, for the same network."""
    if answer["output_shape"] != expected["output_shape"]:
        raise TargetError(
            f"The features of {answer['runtime']} have shape {answer['output_shape']}, those of "
            f"{expected['runtime']} {expected['output_shape']}."
        )
    return float(np.abs(np.subtract(answer["output"], expected["output"])).max())


class _Reference:
    """The torch network that a model was exported from, on the input that the runner times the model with.

    Args:
        network: Maps normalised float32 [B, 3, S, S] to [B, D].
        description: Of the model.
        input_shape: As the runner ran it, [B, 3, S, S].
    """

    def __init__(self, network: nn.Module, description: ModelDescription, input_shape: Sequence[int]) -> None:
        self._network = as_exported(network, description)
        # The runner's own functions: the same input and the same loop for both.
        self._runner = runner_functions()
        self._images: Tensor = torch.from_numpy(
            self._runner["make_input"](input_shape, batch=input_shape[0], seed=SEED)
        )

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
        timed = {}
        for name, memory_format in (("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last)):
            run = partial(self._network.to(memory_format=memory_format), self._images.to(memory_format=memory_format))
            with torch.inference_mode(), _torch_threads(threads):
                _, samples_ms = self._runner["measure"](run, **loop)
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
