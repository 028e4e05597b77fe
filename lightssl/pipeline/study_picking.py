"""``study pick``: from a finished study, the network to take for a task."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from lightssl.data.sources import located, open_splits
from lightssl.errors import ConfigError, LightSSLError
from lightssl.pipeline.asked import find_folder, read_asked
from lightssl.pipeline.study_question import (
    RESULTS,
    SECTION,
    StudyQuestion,
    directory_of,
    held_out_top1,
    network_name,
)
from lightssl.pipeline.suite import evaluate_suite
from lightssl.progress import Narrator, Silent
from lightssl.runs import Run
from lightssl.study.picking import next_to_measure, similarity, spread
from lightssl.study.table import Row, read_table

_SUITE = "pick"  # the name of the evaluations in a network's folder


class _Candidate(NamedTuple):
    """A network that was trained and fits the limits."""

    member: str
    recipe: str
    seed: int  # the first, whose weights are taken
    flops: int
    parameters: int
    top1: dict[str, float]  # on test images, the mean over seeds, by scenario
    chosen_by: dict[str, float]  # the same on training images that were held out; on test images if there is none

    @property
    def name(self) -> str:
        return network_name(self.member, self.recipe, self.seed)


def pick_network(
    folder: Path | str | None = None,
    *,
    downstream: str,
    limits: Mapping[str, float] | None = None,
    measure: int = 8,
    narrator: Narrator | None = None,
) -> dict[str, Any]:
    """Say which network of a study to take for a task, within limits, and on what evidence.

    Where the task is a scenario of the study, its table knows. Otherwise some networks are measured on the task, as the
    study did on its own: the first half from the best to the worst of the study, which shows what scenarios the task is
    like; then those that such scenarios rank high. The network that does best on held-out training images is taken, so
    that test images have no part in the choice.

    Args:
        folder: Of the study; by default the latest below ``runs/``.
        downstream: Labelled images of the task, as for :func:`lightssl.pipeline.evaluate`.
        limits: At most so many ``flops`` and ``parameters``, counted as in the study.
        measure: How many networks are measured at most, on a task that is not in the study.
        narrator: Told how it goes.

    Returns:
        ``picked``, the name of the network, and its ``run``; ``networks``, those that the choice is between with what
        is known of them, the best first; ``similarity`` of the task with each scenario over those that were measured,
        None for a scenario of the study; ``image_size`` that FLOPs are counted at; and ``next``, what to do.

    Raises:
        LightSSLError: There is no study, or none of its networks fits.
        DataError: The images of the task are not there, or have no labels.
    """
    narrator = narrator or Silent()
    folder = find_folder(folder, SECTION)
    question, asked = read_asked(folder, SECTION, StudyQuestion)
    networks = folder / SECTION / "networks"
    candidates = _candidates(read_table(folder / SECTION / RESULTS), question, limits or {})
    if measure < 1:
        raise ConfigError(f"--measure {measure} leaves nothing to choose by.", "Measure one network at least.")
    studied = {located(spec, directory_of(asked)): spec for spec in question.downstream}
    scenario = studied.get(located(downstream, Path.cwd()))
    if scenario is not None:
        known = [one for one in candidates if scenario in one.chosen_by]
        rows = [_row(one, one.chosen_by[scenario], one.top1[scenario]) for one in known]
        alike = None
    else:
        open_splits(downstream)
        rows, alike = _measure(candidates, question, networks, downstream, measure, narrator)
    if not rows:
        raise LightSSLError(f"No network within the limits was measured on {downstream}.", "Raise the limits.")
    rows.sort(key=lambda row: row["chosen_by"], reverse=True)
    run = networks / rows[0]["network"]
    return {
        "downstream": downstream,
        "picked": rows[0]["network"],
        "run": str(run),
        "networks": rows,
        "similarity": alike,
        "image_size": question.image_size,
        "task": question.tasks[0],
        "next": shlex.join(["lightssl", "evaluate", str(run), "--task", "finetune", "--data", downstream]),
    }


def _candidates(rows: list[Row], question: StudyQuestion, limits: Mapping[str, float]) -> list[_Candidate]:
    """Return the networks within the limits that were measured in every scenario, by the first task."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.task == question.tasks[0] and row.top1 is not None:
            found.setdefault((row.member, row.recipe), []).append(row)
    candidates = [
        _Candidate(
            member,
            recipe,
            min(row.seed for row in own),
            own[0].flops,
            own[0].parameters,
            _means({(row.scenario, row.seed): row.top1 for row in own}),
            _means({(row.scenario, row.seed): row.top1 if row.cv_top1 is None else row.cv_top1 for row in own}),
        )
        for (member, recipe), own in found.items()
    ]
    if not candidates:
        raise LightSSLError("No network of the study has been measured yet.", "Let 'lightssl study run' go on.")
    scenarios = set.union(*(set(one.top1) for one in candidates))
    candidates = [one for one in candidates if set(one.top1) == scenarios]
    within = [one for one in candidates if all(getattr(one, cost) <= most for cost, most in limits.items())]
    if not within:
        costs = (
            f"{cost} from {min(getattr(one, cost) for one in candidates):,} to "
            f"{max(getattr(one, cost) for one in candidates):,}"
            for cost in limits
        )
        raise ConfigError(
            "No network of the study is within the limits.",
            f"At {question.image_size} pixels they have {', '.join(costs)}.",
        )
    return within


def _means(values: Mapping[tuple[str, int], float | None]) -> dict[str, float]:
    """Return means over seeds, by scenario."""
    by_scenario: dict[str, list[float]] = {}
    for (scenario, _), value in values.items():
        if value is not None:
            by_scenario.setdefault(scenario, []).append(value)
    return {scenario: mean(found) for scenario, found in by_scenario.items()}


def _measure(
    candidates: list[_Candidate], question: StudyQuestion, networks: Path, data: str, most: int, narrator: Narrator
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Measure some of the networks on new data; return what was found of each, and how alike the scenarios are."""
    scenarios = list(candidates[0].top1)
    accuracy = np.array([[one.top1[scenario] for scenario in scenarios] for one in candidates])
    first = spread(accuracy, (most + 1) // 2)
    rows: dict[int, dict[str, Any]] = {}
    total = min(most, len(candidates))
    with narrator.work("Networks", total) as bar:
        while len(rows) < total:
            by_index = {index: row["chosen_by"] for index, row in rows.items()}
            index = first[len(rows)] if len(rows) < len(first) else next_to_measure(accuracy, by_index)
            assert index is not None
            one = candidates[index]
            bar(len(rows), one.name)
            rows[index] = _measured(one, question.tasks[0], networks, data)
        bar(total)
    alike = similarity(accuracy, {index: row["chosen_by"] for index, row in rows.items()})
    return list(rows.values()), dict(zip(scenarios, alike.tolist(), strict=True))


def _measured(one: _Candidate, task: str, networks: Path, data: str) -> dict[str, Any]:
    run = Run(networks / one.name)
    if not run.weights_path.exists():
        raise LightSSLError(
            f"The weights of {one.name} are not in the folder of the study: {run.weights_path} is missing.",
            "Bring the folders of the machines that worked on it together.",
        )
    (found,) = evaluate_suite(_SUITE, run, data=[data], tasks=[task], random=False)["rows"]
    return _row(one, held_out_top1(found) or found["top1"], found["top1"])


def _row(one: _Candidate, chosen_by: float, top1: float) -> dict[str, Any]:
    return {
        "network": one.name,
        "member": one.member,
        "recipe": one.recipe,
        "flops": one.flops,
        "parameters": one.parameters,
        "chosen_by": chosen_by,
        "top1": top1,
        "elsewhere": one.top1,
    }
