"""``evaluate --suite``: several tasks on several data sets in one go."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightssl.data.scenarios import PREFIX, SCENARIOS
from lightssl.data.sources import located, open_splits, splits_digest
from lightssl.errors import ConfigError, DataError
from lightssl.evaluation import DEFAULT_EVALUATIONS, DETECTIONS, EVALUATIONS, LABEL_FREE
from lightssl.files import write_json
from lightssl.pipeline.evaluating import evaluate
from lightssl.pipeline.loading import as_run
from lightssl.progress import Narrator, Silent
from lightssl.runs import Run

SUITES = {"one_network": [f"{PREFIX}{name}" for name in SCENARIOS]}  # that need no data to be named


def evaluate_suite(
    name: str,
    run: Run | Path | str | None = None,
    *,
    data: Sequence[str] = (),
    tasks: Sequence[str] = DEFAULT_EVALUATIONS,
    overrides: Sequence[str] = (),
    random: bool = True,
    narrator: Narrator | None = None,
) -> dict[str, Any]:
    """Evaluate a run on several data sets; what is known of the same weights, options and images is kept.

    Args:
        name: One of :data:`SUITES`, or a new name for what is measured on ``data``.
        run: By default the latest run.
        data: Labelled images, as for :func:`lightssl.pipeline.evaluate`; by default those of the suite.
        tasks: As for :func:`lightssl.pipeline.evaluate`, but those that name no images.
        overrides: As for :func:`lightssl.pipeline.evaluate`.
        random: As for :func:`lightssl.pipeline.evaluate`.
        narrator: Told how it goes, and which data sets are not there.

    Returns:
        ``{"suite", "tasks", "rows", "missing"}``, also written to the run folder: a row for each data set, task and
        network with ``data``, ``task``, ``network``, ``top1`` and the rest of the result, and for each data set
        that could not be opened or used what to do about it. Those are left out.

    Raises:
        ConfigError: The suite is not known and no data are named, or a task cannot be in one.
        DataError: None of the data sets can be opened and measured. Why is in the file of the suite.
    """
    narrator = narrator or Silent()
    run = as_run(run)
    data = list(data) or SUITES.get(name, [])
    check_suite(name, data, tasks)
    missing: dict[str, str] = {}
    images: dict[str, str] = {}
    for spec in data:
        try:
            train, test, _ = open_splits(spec)
            images[spec] = splits_digest(train, test)
        except DataError as error:
            missing[spec] = str(error)
            narrator.say(f"Left out: {error}")
    weights = hashlib.sha256(run.weights_path.read_bytes()).hexdigest() if run.weights_path.exists() else None
    rows: list[dict[str, Any]] = []
    found = {"suite": name, "tasks": list(tasks), "rows": rows, "missing": missing}
    for spec in [spec for spec in data if spec not in missing]:
        on_this = run.on(name, spec)
        asked = {
            "data": spec,
            "at": located(spec, Path.cwd()),
            "images": images[spec],
            "tasks": list(tasks),
            "overrides": list(overrides),
            "random": random,
            "weights": weights,
        }
        try:
            if _read(on_this.evaluation_path("asked")) != asked:
                narrator.say(f"On {spec}")
                evaluate(on_this, tasks=tasks, data=spec, overrides=overrides, random=random, narrator=narrator)
                write_json(on_this.evaluation_path("asked"), asked)  # last: what was stopped before is measured again
            for task in tasks:
                result = _read(on_this.evaluation_path(task))
                rows += [{"data": spec, "task": task, **row, **result["data"]} for row in result["results"]]
        except DataError as error:
            missing[spec] = str(error)
            narrator.say(f"Left out: {spec}. {error}")
        write_json(run.suite_path(name), found)
    if not rows:
        write_json(run.suite_path(name), found)
        raise DataError(
            f"None of the {len(data)} data sets can be opened and measured.", "What each of them needs is said above."
        )
    return found


def check_suite(name: str, data: Sequence[str], tasks: Sequence[str]) -> None:
    """Refuse what cannot be a suite.

    Raises:
        ConfigError: Its name cannot be that of a folder, it has no data, or a task has no accuracy.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ConfigError(
            f"{name!r} cannot be the name of a suite.", "Use letters, digits, points, dashes and underscores."
        )
    if not data:
        raise ConfigError(
            f"There is no suite {name!r}, and no data to make one of.",
            f"Take one of {', '.join(SUITES)}, or name data sets: --data DIR --data torchvision:CIFAR10",
        )
    for task in tasks:
        EVALUATIONS[task]  # fails if there is none
        if task in (*LABEL_FREE, *DETECTIONS):
            raise ConfigError(f"{task} has no accuracy to compare data sets by.", f"Measure it alone: --task {task}")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
