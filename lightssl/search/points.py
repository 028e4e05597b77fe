"""Measures the points of a sweep, on any number of workers: which are measured, by whom, and what was found of each.

Every point is one trial of an Optuna study, whose value is the mean score over seeds. A worker that is stopped or
killed leaves its point to be taken up where it stood.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import mean
from typing import Any, Literal, Protocol

import numpy as np
import optuna
from optuna.pruners import NopPruner, SuccessiveHalvingPruner
from optuna.samplers import TPESampler
from optuna.storages import fail_stale_trials
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from lightssl.errors import TrainingError
from lightssl.progress import Narrator
from lightssl.search.storage import Heartbeat, open_storage, quiet, trials_in
from lightssl.search.sweep import Point, Schedule, Value, grid_points, ordered
from lightssl.search.task import Stopped
from lightssl.train.loop import interruptible

State = Literal["complete", "pruned", "failed"]

_REDUCTION = 2  # of points, each time that those left are trained twice as long
_POLL_S = 1.0  # between looks at what other workers are at
# What a trial holds besides its value.
_POINT, _WORKER, _RESULTS, _ERROR = "point", "worker", "results", "error"


class Pruned(Exception):  # noqa: N818 (nothing went wrong)
    """The scores so far are too low for the point to be measured to the end."""


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


@dataclass(frozen=True)
class Place:
    """Where what is found is kept, and who works here.

    Args:
        storage: URL of the database.
        name: Of this sweep in it.
        question: What is asked, which a sweep in the storage must have been asked as well.
        worker: Of several at once, each needs a name of its own, which it keeps.
        leads: Whether this is the worker that starts the sweep, and goes on with it.
        heartbeat: How others see that it is alive.
    """

    storage: str
    name: str
    question: str
    worker: str
    leads: bool
    heartbeat: Heartbeat = Heartbeat()


def open_sweep(place: Place, *, pruning: bool) -> Study:
    """Open what was kept of a sweep, or begin it.

    Raises:
        LightSSLError: The storage cannot be used, or belongs to another sweep.
    """
    return open_storage(
        place.storage,
        place.name,
        place.question,
        directions=[StudyDirection.MAXIMIZE],
        pruner=SuccessiveHalvingPruner(min_resource=1, reduction_factor=_REDUCTION) if pruning else NopPruner(),
        what="sweep",
        heartbeat=place.heartbeat,
    )


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
    study = open_sweep(place, pruning=schedule.pruning)
    if place.leads:
        _plan(study, schedule)
    total = len(schedule.points) or min(schedule.trials, len(grid_points(schedule.axes, schedule.own)))
    with narrator.work("Points", total) as bar, interruptible() as interrupted:
        while True:
            if interrupted():
                raise Stopped
            done = len(_ended(study))
            bar(done, f"of {total} done")
            trial = _next_trial(study, place, schedule)
            if trial is None:
                if done >= total or not trials_in(study, TrialState.RUNNING, TrialState.WAITING):
                    break
                time.sleep(_POLL_S)  # others are at the last ones; they may need help
                continue
            point = _point(trial.user_attrs)
            with place.heartbeat.of(trial):
                _measure(study, trial, measure, f"Point {done + 1} of {total}, {point.name}", place)
    return measured_points(study)


def measured_points(study: Study) -> list[Measured]:
    """Return the points that nothing more is done with, in the order in which they were planned or proposed."""
    states: dict[TrialState, State] = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}
    return [
        Measured(
            _point(trial.user_attrs),
            states.get(trial.state, "failed"),
            trial.user_attrs.get(_RESULTS, []) if trial.state == TrialState.COMPLETE else [],
            dict(trial.intermediate_values),
            trial.user_attrs.get(_ERROR),
        )
        # One that was taken over is a later trial, which keeps the place of the first.
        for trial in sorted(_ended(study), key=lambda trial: trial.system_attrs.get("failed_trial", trial.number))
    ]


def _point(attributes: Mapping[str, Any]) -> Point:
    return Point(tuple((axis, value) for axis, value in attributes[_POINT]))


def _ended(study: Study) -> list[FrozenTrial]:
    """Return the trials that are done; one that failed without an error was given up, and another took its place."""
    ended = trials_in(study, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return [trial for trial in ended if trial.state != TrialState.FAIL or _ERROR in trial.user_attrs]


def _counted(study: Study) -> list[FrozenTrial]:
    """Return the trials that stand for a point: a point that was given up has another one."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if _POINT in trial.user_attrs and (trial.state != TrialState.FAIL or _ERROR in trial.user_attrs)
    ]


def _plan(study: Study, schedule: Schedule) -> None:
    """Queue the points that the study does not have yet: all, unless an earlier start was cut short."""
    for trial in trials_in(study, TrialState.RUNNING):
        if _WORKER not in trial.user_attrs:  # killed before it could say whose it is
            _hand_back(study, trial)
    known = {_point(trial.user_attrs) for trial in _counted(study)}
    for point in schedule.points or [Point()]:
        if point not in known:
            _queue(study, point, schedule)


def _queue(study: Study, point: Point, schedule: Schedule) -> None:
    study.enqueue_trial(_parameters(point, schedule), user_attrs={_POINT: point.changes})


def _next_trial(study: Study, place: Place, schedule: Schedule) -> Trial | None:
    """Return what this worker does next: what it left when it was killed, what is queued, or what is proposed."""
    with quiet():
        for left in trials_in(study, TrialState.RUNNING):
            if left.user_attrs.get(_WORKER) == place.worker:
                return Trial(study, left._trial_id)
        fail_stale_trials(study)
        while trials_in(study, TrialState.WAITING) or (not schedule.points and _propose(study, schedule)):
            trial = study.ask()
            if _is_needed(study, trial):
                trial.set_user_attr(_WORKER, place.worker)
                _suggest(study, trial, schedule)
                return trial
            study.tell(trial, state=TrialState.FAIL)
    return None


def _is_needed(study: Study, trial: Trial) -> bool:
    """Tell whether a trial has a point that no earlier one has: two workers may propose at the same time.

    It has none when another worker was faster, and the queue is empty.
    """
    if _POINT not in trial.user_attrs:
        return False
    earlier = (other for other in _counted(study) if other.number < trial.number)
    return _point(trial.user_attrs) not in map(_point, (other.user_attrs for other in earlier))


def _measure(study: Study, trial: Trial, measure: Measure, title: str, place: Place) -> None:
    point = _point(trial.user_attrs)
    reported = set(study.trials[trial.number].intermediate_values)

    def report(score: float, step: int) -> None:
        if step not in reported:
            trial.report(score, step)
            if trial.should_prune():
                raise Pruned

    try:
        results = [dict(result) for result in measure(point, title, report)]
        scores = [float(result["score"]) for result in results]
        if not all(map(isfinite, scores)):
            raise TrainingError(f"The scores of {point.name} are {scores}.")
    except Pruned:
        study.tell(trial, state=TrialState.PRUNED)
    except TrainingError as error:
        trial.set_user_attr(_ERROR, error.message)
        study.tell(trial, state=TrialState.FAIL)
    except Stopped:
        if not place.leads:  # it will not come back under this name
            _hand_back(study, trial)
        raise
    else:
        trial.set_user_attr(_RESULTS, results)
        study.tell(trial, mean(scores))


def _hand_back(study: Study, trial: Trial | FrozenTrial) -> None:
    """Let another worker go on with a point."""
    study.tell(trial.number, state=TrialState.FAIL)
    left = study.trials[trial.number]
    if _POINT in left.user_attrs:
        study.add_trial(
            optuna.create_trial(
                state=TrialState.WAITING,
                params=left.params,
                distributions=left.distributions,
                user_attrs={_POINT: left.user_attrs[_POINT]},
                system_attrs={"failed_trial": trial.number, **left.system_attrs},
                intermediate_values=left.intermediate_values,
            )
        )


# ---------------------------------------------------------------------------------------------------- guided proposals


def _propose(study: Study, schedule: Schedule) -> bool:
    """Queue one more point, by TPE (Bergstra et al. 2011), which no trial has been given; False if there are enough."""
    counted = _counted(study)
    known = {_point(trial.user_attrs) for trial in counted}
    left = [point for point in grid_points(schedule.axes, schedule.own) if point not in known]
    if len(counted) >= schedule.trials or not left:
        return False
    # Seeded anew for each, so that a sweep that was stopped goes on as it would have.
    seed = int(np.random.default_rng((schedule.seed, len(counted))).integers(2**31))
    study.sampler = TPESampler(n_startup_trials=max(4, schedule.trials // 4), seed=seed)
    trial = study.ask()
    proposed = _suggest(study, trial, schedule)
    study.tell(trial, state=TrialState.FAIL)
    point = Point.of(proposed, schedule.own)
    _queue(study, left[seed % len(left)] if point in known else point, schedule)
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
