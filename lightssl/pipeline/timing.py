"""``bench`` and ``fit-profile``: latency, measured and predicted."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightssl.deploy.profile import Profile, load_profile, write_profile
from lightssl.deploy.profile import bench as bench_profile
from lightssl.errors import ConfigError
from lightssl.evaluation.detector import Detector
from lightssl.files import write_bytes, write_json
from lightssl.machine import describe_machine, versions
from lightssl.pipeline.exporting import exported_model
from lightssl.pipeline.loading import load_network
from lightssl.progress import Narrator, Silent
from lightssl.runs import Run, find_run


def bench(
    models: Sequence[Path | str] = (),
    *,
    target: str = "cpu",
    settings: Mapping[str, Any] | None = None,
    narrator: Narrator | None = None,
) -> list[dict[str, Any]]:
    """Time exported models on a target, or predict their time there.

    Args:
        models: ONNX files, or folders of runs, whose file is meant; by default that of the latest run. Those of a run
            are compared with torch.
        target: A device profile in ``export/targets``, with what it asks for after a colon, or the path of one.
        settings: Takes the place of settings of the same name in the profile.
        narrator: Told how it goes.

    Returns:
        One row for each model, runtime and number of threads, as a dictionary with the model's path:
        :class:`~lightssl.deploy.latency.Measurement`, or :class:`~lightssl.deploy.latency.Prediction` where nothing was
        run. For the models of a run they are also written to the run folder. Where operators were timed, a picture of
        the slowest lies there, too, or else beside the model.
    """
    profile = load_profile(target)
    chosen = [Path(model) for model in models] or [find_run().folder]
    chosen = [exported_model(Run(model)) if model.is_dir() else model for model in chosen]
    narrator = narrator or Silent()
    all_rows: list[dict[str, Any]] = []
    with narrator.work(f"Latency on {target}", len(chosen)) as bar:
        for done, model in enumerate(chosen):
            bar(done, model.name)
            run = _run_of(model)
            path = run.bench_path(_as_file_name(target), model.name) if run else model
            network = load_network(run) if run else None
            if isinstance(network, Detector):  # finds another number of things in each image: compared when exported
                network = None
            measurements = bench_profile(model, profile, network=network, settings=settings)
            rows = [{"model": str(model), **asdict(measurement)} for measurement in measurements]
            if run is not None:
                result = {"target": target, "machine": describe_machine(), "versions": versions(), "rows": rows}
                write_json(path, result)
            if any(row.get("operators") for row in rows):
                narrator.say(f"Operators: {_draw_operators(rows, path)}")
            all_rows += rows
        bar(len(chosen))
    return all_rows


def _run_of(model: Path) -> Run | None:
    """Return the run that a model lies in, if it was exported there: other precisions are named after the first."""
    run = Run(model.parent.parent)
    exported = run.onnx_path
    is_there = run.recipe_path.exists() and model.resolve().parent == exported.resolve().parent
    return run if is_there and model.name.startswith(f"{exported.stem}.") else None


def _draw_operators(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draw the operators that take longest, in a picture beside ``path``, and return where it is."""
    from lightssl.reports.plots import operator_bars  # brings matplotlib

    timed = {f"threads: {row['threads']}": row["operators"] for row in rows if row.get("operators")}
    picture = path.with_suffix(".operators.png")
    write_bytes(picture, operator_bars(timed, title=f"{Path(rows[0]['model']).name} on {rows[0]['device']}"))
    return picture


def _as_file_name(target: str) -> str:
    return Path(target).stem if Path(target).suffix in (".yaml", ".yml") else re.sub(r"[^\w.@-]+", "_", target)


def fit_profile(measurements: Path | str, out: Path | str, *, runtime: str | None = None) -> Profile:
    """Learn a device profile that predicts from measured models, and write it.

    Args:
        measurements: What ``lightssl bench --json`` printed, or a CSV table with its columns.
        out: The YAML file, which ``bench`` then takes as a target.
        runtime: The one to learn, where several were measured.

    Raises:
        LightSSLError: The measurements cannot be read, are of several devices, or do not make a profile.
    """
    from lightssl.deploy.fit_profile import fit_profile as learn_profile

    if Path(out).suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{out} is not a YAML file's name.", "End it in .yaml")
    profile = learn_profile(Path(measurements), runtime=runtime)
    write_profile(Path(out), profile)
    return profile
