"""A device profile of one's own: from the measurements of any target to one that predicts."""

import csv
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lightssl.deploy.kernels import count_kernels
from lightssl.deploy.prediction import Sample, learn
from lightssl.deploy.profile import Profile
from lightssl.errors import ConfigError
from lightssl.types import Positive, PositiveInt


class _Row(BaseModel):
    """What is needed of a measurement; names as in :class:`lightssl.deploy.latency.Measurement`."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    kind: str = "measured"
    model: Path
    device: str
    runtime: str
    threads: PositiveInt
    precision: str
    batch: PositiveInt = 1
    latency_ms_p50: Positive


def fit_profile(measurements: Path, *, runtime: str | None = None) -> Profile:
    """Learn a profile from measured models.

    Args:
        measurements: What ``lightssl bench --json`` printed, or a CSV table with the columns model (an ONNX file),
            device, runtime, threads, precision and latency_ms_p50.
        runtime: The one to take, where there are several.

    Raises:
        ConfigError: The table is not well-formed, holds predictions, or more than one device, runtime or precision.
        ExportError: A model is missing or damaged.
        TargetError: The measurements do not make a profile: see :func:`lightssl.deploy.prediction.learn`.
    """
    rows = [row for row in _read(measurements) if runtime in (None, row.runtime)]
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
        fits.append(learn(samples, threads=threads, left_out="one model").model_dump())
    return Profile(
        about=f"{device}: {chosen}, predicted from measurements",
        target="predict",
        settings={
            "device": device,
            "runtime": chosen,
            "precision": precision,
            "source": measurements.name,
            "networks": ", ".join(sorted({row.model.stem for row in rows})),
            "fits": fits,
        },
    )


def _read(path: Path) -> list[_Row]:
    try:
        text = path.read_text(encoding="utf-8")
        rows: Any = json.loads(text) if path.suffix == ".json" else list(csv.DictReader(text.splitlines()))
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot read the measurements {path}: {error}.") from error
    try:
        return [_Row.model_validate(row) for row in rows]
    except (TypeError, ValidationError) as error:
        raise ConfigError(
            f"{path} is not a table of measurements: {' '.join(str(error).split())}",
            "Write one with: lightssl bench A.onnx B.onnx ... --json > measured.json",
        ) from error
