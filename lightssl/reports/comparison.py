"""One self-contained HTML page that puts models and devices beside each other: latency, accuracy and size."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lightssl.deploy.results import Compared, Result, name_models
from lightssl.reports.plots import SERIES, Point, levels
from lightssl.reports.reading import accuracies
from lightssl.reports.template import write_page
from lightssl.runs import Run

KINDS = {  # with what marks them in drawings
    "measured": "\N{BLACK CIRCLE} timed on the device itself, natively",
    "browser": "\N{BLACK SQUARE} timed in a browser there, in WebAssembly: an app is usually several times faster",
    "predicted": "\N{WHITE DIAMOND} nothing was run: computed from measurements of other networks, with an interval",
}


def write_comparison(out: Path, results: Mapping[Path, Sequence[Result]], compared: Sequence[Compared]) -> None:
    """Write the page.

    Args:
        out: The page.
        results: Of each file, as :func:`~lightssl.deploy.results.read_results` reads it.
        compared: The same beside their baseline, from :func:`~lightssl.deploy.results.compare_results`.

    Raises:
        LightSSLError: It cannot be written.
    """
    names = name_models([result for rows in results.values() for result in rows])
    accuracy = _accuracies(results)
    rows = [
        _Row(file, result, names[result], accuracy.get(result.model_sha256 or ""))
        for file, of_file in results.items()
        for result in of_file
    ]
    places = dict.fromkeys(row.result.place for row in rows)
    devices = {name: SERIES[place % len(SERIES)] for place, name in enumerate(places)}
    settings = sorted({(row.result.threads, row.result.batch) for row in rows})
    write_page(
        out,
        "comparison.html.jinja",
        title="Models and devices compared",
        files=[str(file) for file in results],
        kinds=[(kind, text) for kind, text in KINDS.items() if any(row.result.kind == kind for row in rows)],
        devices=devices,
        settings=[
            _setting([row for row in rows if (row.result.threads, row.result.batch) == setting], list(devices))
            for setting in settings
        ],
        accuracy_is_known=any(row.accuracy is not None for row in rows),
        baseline=str(compared[0].file),
        compared=[
            {
                "file": str(row.file),
                "model": names[row.result],
                "result": row.result,
                "ratio": "baseline" if row.result is row.baseline else f"{row.ratio:.2f}",
            }
            for row in compared
        ],
    )


@dataclass(frozen=True)
class _Row:
    file: Path
    result: Result
    model: str  # its name on the page
    accuracy: float | None  # percent

    @property
    def megabytes(self) -> float | None:
        return None if self.result.model_bytes is None else self.result.model_bytes / 1e6

    @property
    def facts(self) -> str:
        size = "" if self.megabytes is None else f"{self.megabytes:.2f} MB"
        accuracy = "" if self.accuracy is None else f"accuracy {self.accuracy:.1f} %"
        return ", ".join(filter(None, [self.result.precision, size, accuracy]))


def _accuracies(results: Mapping[Path, Sequence[Result]]) -> dict[str, float]:
    """Return the accuracy by the SHA-256 of models, of the runs that the models or the results lie in."""
    files = [*results, *(result.model for rows in results.values() for result in rows)]
    found: dict[str, float] = {}
    for folder in dict.fromkeys(file.parent.parent for file in files):
        found |= accuracies(Run(folder))
    return found


def _setting(rows: Sequence[_Row], devices: Sequence[str]) -> dict[str, Any]:
    """Return what the page shows of one number of threads and batch."""
    threads, batch = rows[0].result.threads, rows[0].result.batch
    title = f"{threads} thread{'s' if threads > 1 else ''}" + (f", batch of {batch}" if batch > 1 else "")
    here = [device for device in devices if any(row.result.place == device for row in rows)]
    models: dict[tuple[str, str | None], dict[str, Any]] = {}
    for row in rows:
        model = models.setdefault(
            (row.model, row.result.model_sha256),
            {
                "name": row.model,
                "facts": row.facts,
                "cells": {device: [] for device in here},
            },
        )
        model["cells"][row.result.place].append(row)
    drawings = [
        _drawing(rows, devices, "accuracy, %", lambda row: row.accuracy),
        _drawing(rows, devices, "size, MB", lambda row: row.megabytes),
    ]
    return {
        "title": title,
        "devices": here,
        "drawings": list(filter(None, drawings)),
        "models": list(models.values()),
    }


def _drawing(
    rows: Sequence[_Row], devices: Sequence[str], what: str, height: Callable[[_Row], float | None]
) -> dict[str, str] | None:
    """Draw latency against something else that is known of models; None where it is not."""
    points = [
        Point(
            model=row.model,
            series=devices.index(row.result.place),
            kind=row.result.kind,
            x=row.result.latency_ms_p50,
            y=y,
            interval=row.result.interval,
        )
        for row in rows
        if (y := height(row)) is not None
    ]
    if not points:
        return None
    first = rows[0].result
    svg = levels(points, name=f"{what} {first.threads} {first.batch}", x_label="p50 of one run, ms", y_label=what)
    return {"title": f"Latency against {what.split(',')[0]}", "svg": Markup(svg)}
