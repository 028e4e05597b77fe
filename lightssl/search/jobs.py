"""Jobs that any number of workers share: each is done by one of them, and none is lost.

Every job is one trial of an Optuna study; what is to be done, a JSON value, is one of its attributes. A worker that is
stopped or killed leaves its job to be taken up again.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner, NopPruner
from optuna.storages import fail_stale_trials
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from lightssl.errors import TrainingError
from lightssl.interrupts import interruptible
from lightssl.progress import Narrator
from lightssl.search.storage import WORKER, Heartbeat, go_on_as, open_storage, quiet, trials_in
from lightssl.search.task import Stopped

JOB, ERROR = "job", "error"  # what a trial holds besides its value, and whatever the work adds
_POLL_S = 1.0  # between looks at what other workers are at
_SIGNING_S = 2.0  # that a worker has, far more than it takes, to sign what it has taken


class Pruned(Exception):  # noqa: N818 (nothing went wrong)
    """What was found so far is not worth doing the job to the end."""


@dataclass(frozen=True)
class Place:
    """Where what is found is kept, and who works here.

    Args:
        storage: URL of the database.
        name: Of the study in it.
        question: What is asked, which a study in the storage must have been asked as well.
        worker: Of several at once, each needs a name of its own, which it keeps.
        leads: Whether this is the worker that starts the work, and goes on with it.
        heartbeat: How others see that it is alive.
    """

    storage: str
    name: str
    question: str
    worker: str
    leads: bool
    heartbeat: Heartbeat = Heartbeat()


Do = Callable[[Trial, int], float]
"""Does the job of a trial, given how many are done; returns the value that the trial is told.

Raises TrainingError if it cannot be done, Pruned if it is given up, and Stopped if the user stopped it; called again,
it goes on.
"""


class Jobs:
    """The jobs of a study, as one worker sees them.

    Args:
        study: Where they are kept.
        place: Who works here.
    """

    def __init__(self, study: Study, place: Place) -> None:
        self.study, self._place = study, place

    def plan(self, jobs: Iterable[Any], parameters: Callable[[Any], Mapping[str, Any]] | None = None) -> None:
        """Queue the jobs that the study does not have yet: all, unless an earlier start was cut short."""
        unsigned = self._unsigned()
        if unsigned:
            time.sleep(_SIGNING_S)
            for number, trial in self._unsigned().items():
                if number in unsigned:  # whoever took it was killed before it could say so
                    self._pass_on(trial, TrialState.WAITING)
        known = {_key(trial) for trial in counted(self.study)}
        for job in jobs:
            if json.dumps(job) not in known:
                self.queue(job, parameters(job) if parameters is not None else {})

    def _unsigned(self) -> dict[int, FrozenTrial]:
        """Return the trials that some worker has taken without saying yet that it has, by their numbers."""
        running = trials_in(self.study, TrialState.RUNNING)
        return {trial.number: trial for trial in running if WORKER not in trial.user_attrs}

    def queue(self, job: Any, parameters: Mapping[str, Any]) -> None:
        """Add a job, with values for what its trial is to be asked to suggest."""
        self.study.enqueue_trial(dict(parameters), user_attrs={JOB: job})

    def work(
        self,
        do: Do,
        narrator: Narrator,
        title: str,
        *,
        total: int,
        more: Callable[[], bool] = lambda: False,
        after: Callable[[], None] = lambda: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Do jobs until none is left, beside other workers on the same storage.

        Args:
            do: Does one of them.
            narrator: Told how it goes.
            title: What the jobs are called.
            total: How many there are, or will be.
            more: Queues one more and returns True, or returns False if there are enough.
            after: Called after each job of this worker.
            stop: Asked before each job; True stops the work as the user would.

        Raises:
            Stopped: The user stopped it; what was found is in the storage.
        """
        with narrator.work(title, total) as bar, interruptible() as interrupted:
            while True:
                if interrupted() or stop():
                    raise Stopped
                done = len(ended(self.study))
                bar(done, f"of {total} done")
                trial = self._next(more)
                if trial is not None:
                    with self._place.heartbeat.of(trial):
                        self._attempt(trial, do, done)
                    after()
                elif done >= total or not trials_in(self.study, TrialState.RUNNING, TrialState.WAITING):
                    return
                else:
                    time.sleep(_POLL_S)  # others are at the last ones; they may need help

    def _next(self, more: Callable[[], bool]) -> Trial | None:
        """Return what this worker does next: what it left when it was killed, what is queued, or one more."""
        study = self.study
        with quiet():
            for left in trials_in(study, TrialState.RUNNING):
                if left.user_attrs.get(WORKER) == self._place.worker:
                    taken = self._pass_on(left, TrialState.RUNNING, **{WORKER: self._place.worker})
                    if taken is not None:
                        return Trial(study, taken)
            fail_stale_trials(study)
            while trials_in(study, TrialState.WAITING) or more():
                trial = study.ask()
                with suppress(UpdateFinishedTrialError):  # the worker that leads has handed it back: see plan
                    if self._is_needed(trial):
                        trial.set_user_attr(WORKER, self._place.worker)
                        return trial
                    study.tell(trial, state=TrialState.FAIL)
        return None

    def _is_needed(self, trial: Trial) -> bool:
        """Tell whether a trial has a job that no earlier one has: two workers may add the same at the same time.

        It has none when another worker was faster, and the queue is empty.
        """
        if JOB not in trial.user_attrs:
            return False
        return _key(trial) not in {_key(other) for other in counted(self.study) if other.number < trial.number}

    def _attempt(self, trial: Trial, do: Do, done: int) -> None:
        try:
            try:
                value = do(trial, done)
            except Pruned:
                self.study.tell(trial, state=TrialState.PRUNED)
            except TrainingError as error:
                trial.set_user_attr(ERROR, error.message)
                self.study.tell(trial, state=TrialState.FAIL)
            except Stopped:
                if not self._place.leads:  # it will not come back under this name
                    self._pass_on(trial, TrialState.WAITING)
                raise
            else:
                self.study.tell(trial, value)
        except (UpdateFinishedTrialError, ValueError):
            # A computer that slept is taken for a dead one: another worker may have taken the job over meanwhile.
            if not self._is_finished(trial):
                raise

    def _is_finished(self, trial: Trial | FrozenTrial) -> bool:
        return self.study.trials[trial.number].state.is_finished()

    def _pass_on(self, trial: Trial | FrozenTrial, state: TrialState, **attributes: Any) -> int | None:
        """Put another trial in the place of one that is running: of two workers that try, one does.

        Args:
            trial: The running one, which fails.
            state: Of the other: waiting for a worker, or running.
            attributes: That it has besides.

        Returns:
            The id of the other trial; None if it is another worker's doing, or there was no job yet.
        """
        study = self.study
        try:
            study.tell(trial.number, state=TrialState.FAIL)
        except (UpdateFinishedTrialError, ValueError):
            if not self._is_finished(trial):
                raise
            return None
        left = study.trials[trial.number]
        return go_on_as(study, left, state, **attributes) if JOB in left.user_attrs else None


def open_jobs(place: Place, what: str, pruner: BasePruner | None = None) -> Study:
    """Open what was kept of a study, or begin it.

    Args:
        place: Where.
        what: What it belongs to, as an error says it.
        pruner: Gives jobs up; by default none is.

    Raises:
        LightSSLError: The storage cannot be used, or belongs to another question.
    """
    return open_storage(
        place.storage,
        place.name,
        place.question,
        directions=[StudyDirection.MAXIMIZE],
        pruner=pruner or NopPruner(),
        what=what,
        heartbeat=place.heartbeat,
    )


def ended(study: Study) -> list[FrozenTrial]:
    """Return the trials of jobs that nothing more is done with, in the order in which those were queued."""
    found = trials_in(study, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    # One that was taken over is a later trial, which keeps the place of the first.
    return sorted(filter(_counts, found), key=lambda trial: trial.system_attrs.get("failed_trial", trial.number))


def counted(study: Study) -> list[FrozenTrial]:
    """Return a trial for each job, whatever its state: one that was given up by a worker has another one."""
    return [trial for trial in study.get_trials(deepcopy=False) if JOB in trial.user_attrs and _counts(trial)]


def _counts(trial: FrozenTrial) -> bool:
    """Tell whether a trial stands for its job: one that failed without an error has another in its place."""
    return trial.state != TrialState.FAIL or ERROR in trial.user_attrs


def _key(trial: Trial | FrozenTrial) -> str:
    """Return what is to be done, to be compared."""
    return json.dumps(trial.user_attrs[JOB])
