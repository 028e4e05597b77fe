"""What a target reports: the row that all that measure fill, its statistics, and the row of a prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lightssl.errors import TargetError


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Statistics of the time of one run (of one batch), in milliseconds."""

    samples: int
    latency_ms_min: float
    latency_ms_mean: float
    latency_ms_p50: float
    latency_ms_p90: float
    latency_ms_p99: float


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What may slow a device down. None stands for what it does not tell."""

    governor: str | None  # of the processor's clock; all of them, where cores differ
    celsius: float | None  # of the hottest sensor
    throttled: str | None  # what a Raspberry Pi says of its past and present: 0x0 for never


@dataclass(frozen=True, kw_only=True)
class OperatorTime:
    """What one node of the graph that a runtime made of the model takes in one run."""

    node: str
    operator: str  # its type
    ms: float  # mean of the faster half of the runs


@dataclass(frozen=True, kw_only=True)
class Measurement(Latency):
    """One model on one target with one setting. None stands for what the target cannot tell."""

    kind: Literal["measured", "browser"]  # measured: natively
    device: str  # the processor's own name; a browser's with its system
    cores: int  # logical cores that could be used
    runtime: str
    runtime_version: str
    provider: str  # what the runtime computes with
    threads: int
    precision: str
    batch: int  # images in one run
    model_sha256: str
    model_bytes: int
    load_ms: float | None  # from file to ready
    first_run_ms: float | None  # before any warm-up
    memory_before_load_mib: float | None  # peak resident memory of the process, runtime loaded, model not
    peak_memory_mib: float | None  # peak resident memory of the process at the end
    max_error_vs_torch: float | None  # largest absolute difference of a feature from torch's, on the timed input
    # The same from ONNX Runtime's on the machine that asked, for another device or runtime.
    max_error_vs_host: float | None = None
    conditions_before: Conditions | None = None
    conditions_after: Conditions | None = None
    operators: Sequence[OperatorTime] | None = None  # of other runs, if asked for; last, what is between them


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One model on one device, of which nothing was run. Fields that a :class:`Measurement` has mean the same."""

    kind: Literal["predicted"]
    device: str
    runtime: str
    threads: int
    precision: str
    batch: int
    model_sha256: str
    model_bytes: int
    latency_ms_p50: float  # of a typical run, as the measurements behind it report it
    latency_ms_low: float
    latency_ms_high: float
    interval_coverage: float  # share of networks, each predicted from the others, that lay between low and high
    held_out_error_percent: float  # the median of those networks
    source: str  # of the measurements behind it
    networks: str  # that were measured; the interval is for others like these


def summarise(samples_ms: Sequence[float]) -> Latency:
    """Reduce single times in milliseconds to a :class:`Latency`. Percentiles interpolate linearly, as numpy's.

    Raises:
        TargetError: There is no sample, or one is not a positive, finite time.
    """
    samples = np.asarray(samples_ms, dtype=np.float64)
    if samples.size == 0 or not np.all(np.isfinite(samples) & (samples > 0)):
        raise TargetError(
            "The target returned no usable times.", "Every sample must be a positive number of milliseconds."
        )
    p50, p90, p99 = (float(value) for value in np.percentile(samples, [50, 90, 99]))
    return Latency(
        samples=samples.size,
        latency_ms_min=float(samples.min()),
        latency_ms_mean=float(samples.mean()),
        latency_ms_p50=p50,
        latency_ms_p90=p90,
        latency_ms_p99=p99,
    )


def slowest(operators: Sequence[Mapping[str, Any]], by: Literal["operator", "node"]) -> list[tuple[str, float]]:
    """Sum the milliseconds of :class:`OperatorTime` entries by type or by node, and return the largest sums first."""
    total: dict[str, float] = {}
    for entry in operators:
        total[entry[by]] = total.get(entry[by], 0) + entry["ms"]
    return sorted(total.items(), key=lambda item: -item[1])
