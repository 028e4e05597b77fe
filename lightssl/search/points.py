"""Measures the points of a sweep, on any number of workers: which are measured, by whom, and what was found of each.

Every point is a job of :mod:`lightssl.search.jobs`, whose value is the mean score over seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import mean
from typing import Any, Literal, Protocol

import numpy as np
from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import Trial, TrialState

from lightssl.errors import TrainingError
from lightssl.progress import Narrator
from lightssl.search.jobs import ERROR, JOB, Jobs, Place, Pruned, counted, ended, open_jobs
from lightssl.search.sweep import Point, Schedule, Value, grid_points, ordered

State = Literal["complete", "pruned", "failed"]

_REDUCTION = 2  # of points, each time that those left are trained twice as long
_RESULTS = "results"  # what a trial holds besides its value and what :mod:`lightssl.search.jobs` gives it


class Report(Protocol):
    """Told how a point does while it is measured."""

    def __call__(self, score: float, step: int) -> None:
        """Take the score after ``step`` equal parts of the training.

        Raises:
            Pruned: It is too low.
        """


Measure = Callable[[Point, str, Report], Sequence[Mapping[str, Any]]]
"""From a point, a title for its progress and a report to what was found, one mapping with a ``score`` a seed.

Raises TrainingError if the point cannot be measured, and Stopped if the user stopped it; called again, it goes on.
"""


@dataclass(frozen=True)
class Measured:
    """A point of a sweep that nothing more is done with."""

    point: Point
    state: State
    results: list[dict[str, Any]]  # one a seed, in their order; none unless it is complete
    parts: dict[int, float]  # scores after so many parts of the training
    error: str | None = None  # why it failed


def open_sweep(place: Place, *, pruning: bool) -> Study:
    """Open what was kept of a sweep, or begin it.

    Raises:
        LightSSLError: The storage cannot be used, or belongs to another sweep.
    """
    pruner = SuccessiveHalvingPruner(min_resource=1, reduction_factor=_REDUCTION) if pruning else None
    return open_jobs(place, "sweep", pruner)


def measure_points(place: Place, schedule: Schedule, measure: Measure, narrator: Narrator) -> list[Measured]:
    """Measure points until none is left, beside other workers on the same storage.

    Args:
        place: Where and who.
        schedule: Which points.
        measure: Measures one of them.
        narrator: Told how it goes.

    Returns:
        All points in the order in which they were planned or proposed, whoever measured them.

    Raises:
        LightSSLError: The storage cannot be used, or belongs to another sweep.
        Stopped: The user stopped it; what was measured is in the storage.
    """
    jobs = Jobs(open_sweep(place, pruning=schedule.pruning), place)
    if place.leads:
        jobs.plan(
            [_job(point) for point in schedule.points or [Point()]], lambda job: _parameters(_point(job), schedule)
        )
    total = len(schedule.points) or min(schedule.trials, len(grid_points(schedule.axes, schedule.own)))

    def do(trial: Trial, done: int) -> float:
        _suggest(jobs.study, trial, schedule)
        return _measure(trial, measure, f"Point {done + 1} of {total}, ")

    jobs.work(do, narrator, "Points", total=total, more=lambda: not schedule.points and _propose(jobs, schedule))
    return measured_points(jobs.study)


def measured_points(study: Study) -> list[Measured]:
    """Return the points that nothing more is done with, in the order in which they were planned or proposed."""
    states: dict[TrialState, State] = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}
    return [
        Measured(
            _point(trial.user_attrs[JOB]),
            states.get(trial.state, "failed"),
            trial.user_attrs.get(_RESULTS, []) if trial.state == TrialState.COMPLETE else [],
            dict(trial.intermediate_values),
            trial.user_attrs.get(ERROR),
        )
        for trial in ended(study)
    ]


def _job(point: Point) -> list[list[Value]]:
    return [[axis, value] for axis, value in point.changes]


def _point(job: Sequence[Sequence[Any]]) -> Point:
    return Point(tuple((axis, value) for axis, value in job))


def _measure(trial: Trial, measure: Measure, title: str) -> float:
    point = _point(trial.user_attrs[JOB])
    reported = set(trial.study.trials[trial.number].intermediate_values)

    def report(score: float, step: int) -> None:
        if step not in reported:
            trial.report(score, step)
            if trial.should_prune():
                raise Pruned

    results = [dict(result) for result in measure(point, title + point.name, report)]
    scores = [float(result["score"]) for result in results]
    if not all(map(isfinite, scores)):
        raise TrainingError(f"The scores of {point.name} are {scores}.")
    trial.set_user_attr(_RESULTS, results)
    return mean(scores)


# ---------------------------------------------------------------------------------------------------- guided proposals


def _propose(jobs: Jobs, schedule: Schedule) -> bool:
    """Queue one more point, by TPE (Bergstra et al. 2011), which no trial has been given; False if there are enough."""
    study, trials = jobs.study, counted(jobs.study)
    known = {_point(trial.user_attrs[JOB]) for trial in trials}
    left = [point for point in grid_points(schedule.axes, schedule.own) if point not in known]
    if len(trials) >= schedule.trials or not left:
        return False
    # Seeded anew for each, so that a sweep that was stopped goes on as it would have.
    seed = int(np.random.default_rng((schedule.seed, len(trials))).integers(2**31))
    study.sampler = TPESampler(n_startup_trials=max(4, schedule.trials // 4), seed=seed)
    trial = study.ask()
    proposed = _suggest(study, trial, schedule)
    study.tell(trial, state=TrialState.FAIL)
    point = Point.of(proposed, schedule.own)
    point = left[seed % len(left)] if point in known else point
    jobs.queue(_job(point), _parameters(point, schedule))
    return True


def _parameters(point: Point, schedule: Schedule) -> dict[str, Any]:
    """Return a point as Optuna's parameters: positions on the axes. Empty where a value is on none."""
    values = {axis: schedule.own[axis] for axis in schedule.axes} | dict(point.changes)
    if any(value not in schedule.axes[axis] for axis, value in values.items()):
        return {}
    return {axis: ordered(schedule.axes[axis]).index(value) for axis, value in values.items() if value is not None}


def _suggest(study: Study, trial: Trial, schedule: Schedule) -> dict[str, Value]:
    """Have a trial's parameters drawn, or those that were queued taken over; return the values that they stand for."""
    if study.trials[trial.number].system_attrs.get("fixed_params") == {}:
        return {}
    choices = {axis: ordered(values) for axis, values in schedule.axes.items()}
    return {axis: values[trial.suggest_int(axis, 0, len(values) - 1)] for axis, values in choices.items()}
