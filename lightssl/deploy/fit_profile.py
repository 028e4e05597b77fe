"""A device profile of one's own: from the measurements of any target to one that predicts."""

from collections.abc import Sequence
from pathlib import Path

from lightssl.deploy.kernels import count_kernels
from lightssl.deploy.prediction import Fit, Sample, learn
from lightssl.deploy.profile import Profile
from lightssl.deploy.results import read_results
from lightssl.errors import ConfigError


def fit_profile(measurements: Path, *, runtime: str | None = None) -> Profile:
    """Learn a profile from measured models.

    Args:
        measurements: A file as :func:`~lightssl.deploy.results.read_results` reads it; its models are ONNX files.
        runtime: The one to take, where there are several.

    Raises:
        ConfigError: The file cannot be read, holds predictions, or more than one device, runtime or precision.
        ExportError: A model is missing or damaged.
        TargetError: The measurements do not make a profile: see :func:`lightssl.deploy.prediction.learn`.
    """
    rows = [row for row in read_results(measurements) if runtime in (None, row.runtime)]
    if any(row.kind == "predicted" or row.batch != 1 for row in rows):
        raise ConfigError(f"{measurements} holds predictions or batches.", "Learn from measurements of one image.")
    settings = {(row.device, row.runtime, row.precision) for row in rows}
    if len(settings) != 1:
        known = "; ".join(", ".join(setting) for setting in sorted(settings)) or "none"
        raise ConfigError(
            f"A profile is of one device, runtime and precision; in {measurements} there are: {known}.",
            "Choose one with --runtime, or split the file.",
        )
    ((device, chosen, precision),) = settings
    kernels = {model: count_kernels(model) for model in {row.model for row in rows}}
    fits = []
    for threads in sorted({row.threads for row in rows}):
        samples = [
            Sample(row.model.stem, str(row.model), kernels[row.model], row.latency_ms_p50)
            for row in rows
            if row.threads == threads
        ]
        fits.append(learn(samples, threads=threads, left_out="one model"))
    return profile_of(
        fits,
        device=device,
        runtime=chosen,
        precision=precision,
        source=measurements.name,
        networks=", ".join(sorted({row.model.stem for row in rows})),
    )


def profile_of(
    fits: Sequence[Fit], *, device: str, runtime: str, precision: str, source: str, networks: str
) -> Profile:
    """Make a profile of fits; all else is as of :func:`lightssl.deploy.targets.predict.bench_predict`."""
    return Profile(
        about=f"{device}: {runtime}, predicted from measurements",
        target="predict",
        settings={
            "device": device,
            "runtime": runtime,
            "precision": precision,
            "source": source,
            "networks": networks,
            "fits": [fit.model_dump() for fit in fits],
        },
    )
