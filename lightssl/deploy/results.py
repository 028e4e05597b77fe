"""What was measured, browsed or predicted elsewhere or earlier: result files, read again and put beside each other."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lightssl.errors import ConfigError, problems_of
from lightssl.types import Positive, PositiveInt

_HOW = "Write some with: lightssl bench A.onnx B.onnx ... --json > measured.json"


class Result(BaseModel):
    """What is needed of a row; names as in :class:`lightssl.deploy.latency.Measurement` and ``Prediction``."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    kind: Literal["measured", "browser", "predicted"] = "measured"
    model: Path
    device: str
    runtime: str
    threads: PositiveInt
    precision: str
    batch: PositiveInt = 1
    latency_ms_p50: Positive
    latency_ms_low: Positive | None = None
    latency_ms_high: Positive | None = None
    model_sha256: str | None = None
    model_bytes: PositiveInt | None = None

    @property
    def place(self) -> str:
        """The device and the runtime on it, in words."""
        return f"{self.device}, {self.runtime}"

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of a prediction, in milliseconds."""
        low, high = self.latency_ms_low, self.latency_ms_high
        return None if low is None or high is None else (low, high)

    @property
    def milliseconds(self) -> str:
        """The p50, with the interval of a prediction, in words."""
        text = f"{self.latency_ms_p50:.2f}"
        return text if self.interval is None else "{} ({:.2f} to {:.2f})".format(text, *self.interval)

    def is_of_same_model(self, other: "Result") -> bool:
        """Whether both are of the same content, or of the same path before and after a change."""
        same_content = self.model_sha256 is not None and self.model_sha256 == other.model_sha256
        return same_content or self.model == other.model


@dataclass(frozen=True)
class Compared:
    """A result and the one it is held against, which may be itself."""

    file: Path
    result: Result
    baseline: Result

    @property
    def ratio(self) -> float:
        """Its p50 over the baseline's: below 1 is faster."""
        return self.result.latency_ms_p50 / self.baseline.latency_ms_p50


def read_results(path: Path) -> list[Result]:
    """Read results: what ``lightssl bench`` wrote to a run or printed with ``--json``, or a CSV table.

    A table needs the columns model, device, runtime, threads, precision and latency_ms_p50.

    Raises:
        ConfigError: The file cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        rows: Any = json.loads(text) if path.suffix == ".json" else list(csv.DictReader(text.splitlines()))
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot read the results {path}: {error}.") from error
    rows = rows.get("rows") if isinstance(rows, dict) else rows
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"{path} does not hold results of lightssl bench.", _HOW)
    try:
        return [Result.model_validate(row) for row in rows]
    except ValidationError as error:
        raise ConfigError(f"{path} does not hold results of lightssl bench:", _HOW, problems_of(error)) from error


def name_models(results: Sequence[Result]) -> dict[Result, str]:
    """Name the models of results by their files, and by their whole paths where file names are shared."""
    paths: dict[str, set[Path]] = {}
    for result in results:
        paths.setdefault(result.model.name, set()).add(result.model)
    return {
        result: result.model.name if len(paths[result.model.name]) == 1 else str(result.model) for result in results
    }


def compare_results(results: Mapping[Path, Sequence[Result]]) -> list[Compared]:
    """Hold all results against those of the first file.

    The baseline of a result is the first file's of the same model, number of threads and batch, where possible with the
    same runtime. Where the first file is of one model only, that one is the baseline of other models, too.

    Args:
        results: Of each file; the first is the baseline.

    Returns:
        Each baseline that something is held against, followed by what is. Results without one are left out.

    Raises:
        ConfigError: There is one file only, or nothing in the others has a baseline.
    """
    if len(results) < 2:
        raise ConfigError("There is nothing to compare.", "Name two files of results at least.")
    (first, baselines), *others = results.items()
    beside: dict[int, list[Compared]] = {}
    for file, rows in others:
        for row in rows:
            place = _baseline_of(row, baselines)
            if place is not None:
                beside.setdefault(place, []).append(Compared(file, row, baselines[place]))
    if not beside:
        raise ConfigError(
            f"{first} has nothing in common with {', '.join(str(file) for file, _ in others)}.",
            "Compare results of the same models, numbers of threads and batch.",
        )
    return [
        compared
        for place, held in sorted(beside.items())
        for compared in [Compared(first, baselines[place], baselines[place]), *held]
    ]


def _baseline_of(row: Result, baselines: Sequence[Result]) -> int | None:
    """Return the position of the baseline that fits best; None if there is none."""
    one_model = all(baselines[0].is_of_same_model(other) for other in baselines)
    fitting = [
        place
        for place, other in enumerate(baselines)
        if (other.threads, other.batch) == (row.threads, row.batch) and (one_model or other.is_of_same_model(row))
    ]

    def misfit(place: int) -> tuple[bool, bool]:
        other = baselines[place]
        return other.model_sha256 != row.model_sha256, other.runtime != row.runtime

    return min(fitting, key=misfit, default=None)
