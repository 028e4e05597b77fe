"""Every point is measured once, whoever does it, and whatever happens to them."""

import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import fail_stale_trials
from optuna.trial import TrialState

from lightssl.errors import ConfigError, TrainingError
from lightssl.progress import Silent
from lightssl.search import jobs
from lightssl.search.effects import effect_of, seed_spread
from lightssl.search.jobs import Place, Pruned
from lightssl.search.points import Measured, Report, measure_points
from lightssl.search.storage import WORKER, Heartbeat, go_on_as, trials_in
from lightssl.search.sweep import Axes, Point, Schedule, factor_points, grid_points
from lightssl.search.task import Stopped

OWN = {"boundary": 0.3, "local_size": 18, "local_count": 4, "balance": 0.6}
AXES: Axes = {"boundary": [0.1, 0.2, 0.3, 0.4], "local_count": [2, 4, 6]}
FACTOR = Schedule(factor_points(AXES, OWN), AXES, OWN, trials=0, seed=0, pruning=False)
GRID = replace(FACTOR, points=grid_points(AXES, OWN))
GUIDED = replace(FACTOR, points=[], trials=7)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(f"sqlite:///{tmp_path / 'points.db'}", "test", "heights", worker="main", leads=True)


def height(point: Point) -> float:
    """Highest at a boundary of 0.2 and with six views."""
    where = {**OWN, **dict(point.changes)}
    return float(where["local_count"]) - abs(float(where["boundary"]) - 0.2)


def measure(point: Point, title: str, report: Report) -> list[dict[str, Any]]:
    for part in (1, 2, 3, 4):
        report(height(point) * part, part)
    return [{"seed": seed, "score": height(point) + seed} for seed in (0, 1)]


def run(place: Place, schedule: Schedule, how: Any = measure) -> list[Measured]:
    return measure_points(place, schedule, how, Silent())


@pytest.mark.parametrize("schedule", [FACTOR, GRID], ids=["factor", "grid"])
def test_all_points_are_measured_in_their_order(place: Place, schedule: Schedule) -> None:
    found = run(place, schedule)
    assert [one.point for one in found] == list(schedule.points)
    assert all(one.state == "complete" for one in found)
    assert [one.results[1]["score"] for one in found] == [height(point) + 1 for point in schedule.points]
    study = optuna.load_study(study_name="test", storage=place.storage)
    assert study.best_trial.params == {"boundary": 1, "local_count": 2} or schedule is FACTOR
    assert run(place, schedule, None) == found  # nothing is left to be measured


@pytest.mark.parametrize("schedule", [FACTOR, GUIDED], ids=["factor", "guided"])
@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_a_stopped_sweep_ends_as_one_that_was_not(how: str, schedule: Schedule, place: Place, tmp_path: Path) -> None:
    whole = run(replace(place, storage=f"sqlite:///{tmp_path / 'other.db'}"), schedule)
    calls: list[Point] = []

    def stopping(point: Point, title: str, report: Report) -> Sequence[Mapping[str, Any]]:
        calls.append(point)
        if len(calls) == 3 and how == "killed":
            report(height(point), 1)
            raise MemoryError
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
        return measure(point, title, report)

    with pytest.raises(MemoryError if how == "killed" else Stopped):
        run(place, schedule, stopping)
    stopped_at = calls[-1]
    assert run(place, schedule, stopping) == whole
    # The one that was being measured is gone on with, and no other is measured again.
    assert calls.count(stopped_at) == (2 if how == "killed" else 1)
    assert len(calls) == len(whole) + (how == "killed")


def test_workers_share_the_points(place: Place) -> None:
    other = replace(place, worker="another", leads=False)
    done: list[tuple[str, Point]] = []

    def by(worker: str, helper: Place | None) -> Any:
        def measured(point: Point, title: str, report: Report) -> Sequence[Mapping[str, Any]]:
            if helper is not None and len(done) == 0:  # the other one does some while this one is at its first
                with pytest.raises(Stopped):
                    run(helper, GRID, by("another", None))
            done.append((worker, point))
            if worker == "another" and len(done) == 5:
                raise Stopped
            return measure(point, title, report)

        return measured

    found = run(place, GRID, by("main", other))
    assert [one.point for one in found] == list(GRID.points)
    points = [point for _, point in done]
    left = done[4][1]  # handed back by the other one
    assert points.count(left) == 2
    assert len(points) == len(GRID.points) + 1
    assert {worker for worker, _ in done} == {"main", "another"}


def test_two_workers_that_are_guided_measure_different_points(place: Place) -> None:
    other = replace(place, worker="another", leads=False)
    done: list[Point] = []

    def helped(point: Point, title: str, report: Report) -> Sequence[Mapping[str, Any]]:
        done.append(point)
        if len(done) in (1, 3):

            def once(point: Point, title: str, report: Report) -> Sequence[Mapping[str, Any]]:
                done.append(point)
                measure(point, title, report)
                raise Stopped

            with pytest.raises(Stopped):
                run(other, GUIDED, once)
        return measure(point, title, report)

    found = run(place, GUIDED, helped)
    assert len({one.point for one in found}) == len(found) == GUIDED.trials
    assert found[0].point == Point()
    assert set(done) == {one.point for one in found}


def test_what_a_killed_worker_was_at_is_taken_over(place: Place) -> None:
    silent = replace(place, heartbeat=Heartbeat(every_s=1, grace_s=2))
    reported: list[int] = []

    def killed(point: Point, title: str, report: Report) -> Sequence[Mapping[str, Any]]:
        report(1.0, 1)
        raise MemoryError

    def going_on(point: Point, title: str, report: Report) -> Sequence[Mapping[str, Any]]:
        reported.append(len(reported))
        return measure(point, title, report)

    with pytest.raises(MemoryError):
        run(silent, FACTOR, killed)
    found = run(replace(silent, worker="another", leads=False), FACTOR, going_on)
    assert [one.point for one in found] == list(FACTOR.points)
    assert len(reported) == len(FACTOR.points)
    assert found[0].parts[1] == 1.0  # as it was reported before


@pytest.mark.parametrize("first", ["lead", "another"])
def test_what_the_lead_was_at_is_done_once_though_others_take_it_over_as_it_comes_back(
    first: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = replace(place, heartbeat=Heartbeat(every_s=1, grace_s=1))
    done: list[Point] = []

    def killed(point: Point, title: str, report: Report) -> Sequence[Mapping[str, Any]]:
        raise MemoryError

    def listed(study: optuna.Study, *states: TrialState) -> list[optuna.trial.FrozenTrial]:
        """Let another worker find the lead silent, right after (or before) the lead has seen what it left."""
        before = trials_in(study, *states)
        if states == (TrialState.RUNNING,) and stale:
            stale.pop()
            fail_stale_trials(optuna.load_study(study_name="test", storage=study._storage))
        return before if first == "lead" else trials_in(study, *states)

    def going_on(point: Point, title: str, report: Report) -> Sequence[Mapping[str, Any]]:
        done.append(point)
        return measure(point, title, report)

    with pytest.raises(MemoryError):
        run(silent, FACTOR, killed)
    time.sleep(2.5)  # longer than grace and the database's whole seconds
    stale = [True]
    monkeypatch.setattr(jobs, "trials_in", listed)
    monkeypatch.setattr(jobs.Jobs, "plan", lambda *_, **__: None)  # it has been, and lists trials as well
    found = run(silent, FACTOR, going_on)
    assert not stale
    assert sorted(map(str, done)) == sorted(map(str, FACTOR.points))
    assert [one.point for one in found] == list(FACTOR.points)


@pytest.mark.parametrize("killed", [False, True])
def test_what_another_has_just_taken_is_left_to_it_unless_it_was_killed(
    killed: bool, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = jobs.open_jobs(place, "sweep")
    jobs.Jobs(study, place).plan(["a job"])
    taken = jobs.open_jobs(place, "sweep").ask()
    monkeypatch.setattr(time, "sleep", lambda _: killed or taken.set_user_attr(WORKER, "another"))
    jobs.Jobs(study, place).plan(["a job"])
    assert len(trials_in(study, TrialState.RUNNING)) == (not killed)
    assert len(trials_in(study, TrialState.WAITING)) == killed


def test_what_another_takes_over_is_no_longer_the_leads(place: Place) -> None:
    silent = replace(place, heartbeat=Heartbeat(every_s=1, grace_s=1))
    lead = jobs.Jobs(jobs.open_jobs(silent, "sweep"), silent)
    lead.plan(["a job"])
    trial = lead._next(lambda: False)
    assert trial is not None
    with silent.heartbeat.of(trial):
        pass
    time.sleep(2.5)  # longer than grace and the database's whole seconds
    another = jobs.open_jobs(silent, "sweep")
    fail_stale_trials(another)
    taken = another.ask()  # and does not sign it yet
    assert taken.user_attrs[jobs.JOB] == "a job"
    assert lead._next(lambda: False) is None
    assert [one.number for one in trials_in(another, TrialState.RUNNING)] == [taken.number]


def test_a_worker_that_was_taken_for_dead_leaves_its_job_to_the_others(place: Place) -> None:
    asleep = replace(place, worker="asleep", leads=False)
    done: list[Point] = []
    slept: list[Point] = []

    def killed(point: Point, title: str, report: Report) -> Sequence[Mapping[str, Any]]:
        raise MemoryError

    def awake(point: Point, title: str, report: Report) -> Sequence[Mapping[str, Any]]:
        done.append(point)
        return measure(point, title, report)

    def sleeping(point: Point, title: str, report: Report) -> Sequence[Mapping[str, Any]]:
        slept.append(point)
        study = optuna.load_study(study_name="test", storage=place.storage)
        study.tell(1, state=TrialState.FAIL)
        go_on_as(study, study.trials[1], TrialState.WAITING)
        run(place, FACTOR, awake)
        return measure(point, title, report)

    with pytest.raises(MemoryError):
        run(place, FACTOR, killed)
    found = run(asleep, FACTOR, sleeping)
    assert slept == [FACTOR.points[1]]
    assert sorted(map(str, done)) == sorted(map(str, FACTOR.points))
    assert [one.point for one in found] == list(FACTOR.points)


def test_points_with_low_scores_are_given_up(place: Place) -> None:
    measured_to: dict[str, int] = {}

    def watched(point: Point, title: str, report: Report) -> Sequence[Mapping[str, Any]]:
        def counted(score: float, step: int) -> None:
            measured_to[point.name] = step
            report(score, step)

        return measure(point, title, counted)

    found = run(place, replace(GRID, pruning=True), watched)
    states = {one.point.name: one.state for one in found}
    assert set(states.values()) == {"complete", "pruned"}
    assert states["boundary-0.2,local_count-6"] == "complete"  # the best
    for one in found:
        assert (one.results == []) == (one.state == "pruned")
        assert max(one.parts) == measured_to[one.point.name]
    assert min(measured_to.values()) == 1
    assert issubclass(Pruned, Exception)


def test_points_that_fail_are_told_and_left_behind(place: Place) -> None:
    def failing(point: Point, title: str, report: Report) -> Sequence[Mapping[str, Any]]:
        if point.name == "boundary-0.1":
            raise TrainingError("The loss is nan at step 3.", "Lower the learning rate.")
        if point.name == "boundary-0.4":
            return [{"seed": 0, "score": float("nan")}]
        return measure(point, title, report)

    found = {one.point.name: one for one in run(place, FACTOR, failing)}
    assert found["boundary-0.1"].error == "The loss is nan at step 3."
    assert "nan" in (found["boundary-0.4"].error or "")
    assert [one.state for one in found.values()].count("failed") == 2
    assert run(place, FACTOR, None) == list(found.values())


def test_the_storage_of_another_sweep_is_refused(place: Place) -> None:
    run(place, FACTOR)
    with pytest.raises(ConfigError, match="holds another sweep by the name 'test'"):
        run(replace(place, question="depths"), FACTOR)


# ------------------------------------------------------------------------------------------------------------- effects


def point_with(score: float, *changes: tuple[str, Any], state: Any = "complete") -> Measured:
    results = [{"seed": seed, "score": score + seed} for seed in (0, 2)]
    return Measured(Point(changes), state, results if state == "complete" else [], {})


def test_the_effect_of_an_axis_is_the_mean_over_seeds_with_the_range_of_them() -> None:
    measured = [
        point_with(1.0),
        point_with(2.0, ("boundary", 0.1)),
        point_with(6.0, ("boundary", 0.1), ("local_count", 2)),
        point_with(9.0, ("local_count", 2)),
        point_with(99.0, ("boundary", 0.2), state="pruned"),
    ]
    alone = effect_of("boundary", measured, OWN, alone=True)
    assert [(e.value, e.mean, e.low, e.high, e.points) for e in alone] == [(0.1, 3, 2, 4, 1), (0.3, 2, 1, 3, 1)]
    over_all = effect_of("boundary", measured, OWN, alone=False)
    assert [(e.value, e.mean, e.low, e.high, e.points) for e in over_all] == [(0.1, 5, 4, 6, 2), (0.3, 6, 5, 7, 2)]
    assert effect_of("boundary", measured, {**OWN, "boundary": None}, alone=True)[0].value == 0.1
    assert seed_spread(measured) == pytest.approx(2**0.5)  # of (0, 2), with n - 1
    assert seed_spread([Measured(Point(), "complete", [{"score": 1.0}], {})]) is None
