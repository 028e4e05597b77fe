"""A device that is not there: its latency, predicted from measurements that were published or that you made."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from lightssl.deploy.kernels import count_kernels
from lightssl.deploy.latency import Prediction
from lightssl.deploy.onnx import describe_model
from lightssl.deploy.prediction import COVERAGE, Fit, features
from lightssl.errors import ExportError, TargetError


def bench_predict(
    model: Path,
    *,
    network: nn.Module | None = None,
    device: str,
    runtime: str,
    precision: str,
    source: str,
    networks: str,
    fits: Sequence[Fit],
) -> list[Prediction]:
    """Predict the latency of an ONNX model, once for each fit.

    Args:
        model: ONNX file of a float network with one image input.
        network: Not needed here.
        device, runtime, precision: What was measured. Another runtime on the same device can be far off.
        source: Where the measurements are from.
        networks: What was measured, in words: the interval is for networks like these.
        fits: One for each number of threads.

    Raises:
        TargetError: There is no such file, its images come in fixed batches, or it has operators that were not in the
            networks measured.
    """
    try:
        description = describe_model(model)
        kernels = count_kernels(model)
    except ExportError as error:
        raise TargetError(error.message, error.hint) from error
    batch = description.input_shape[0] if description.input_shape else 1
    if isinstance(batch, int) and batch != 1:
        raise TargetError(f"{model} takes batches of {batch}; predictions are for one image.", "Export it for one.")
    rows = []
    for fit in fits:
        unknown = fit.unknown(kernels)
        if unknown:
            raise TargetError(
                f"{model} has kernels that the profile of {device} was not fitted on: {', '.join(unknown)}.",
                f"It was fitted on {', '.join(fit.kinds)}. Time the model on the device itself, or learn a profile "
                "from networks of its kind with: lightssl fit-profile",
            )
        latency_ms = float(fit.predict(features(kernels)))
        rows.append(
            Prediction(
                kind="predicted",
                device=device,
                runtime=runtime,
                threads=fit.threads,
                precision=precision,
                batch=1,
                model_sha256=description.sha256,
                model_bytes=description.bytes,
                latency_ms_p50=latency_ms,
                latency_ms_low=latency_ms / fit.interval_factor,
                latency_ms_high=latency_ms * fit.interval_factor,
                interval_coverage=COVERAGE,
                held_out_error_percent=fit.held_out_error_percent,
                source=source,
                networks=networks,
            )
        )
    return rows
