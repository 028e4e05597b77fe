"""The jobs of a study: one network each, trained and evaluated."""

import math
import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any
from uuid import uuid4

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from lightssl.config.load import dump
from lightssl.errors import CheckpointError, ConfigError, TrainingError
from lightssl.files import locked, make_folder, write_json
from lightssl.interrupts import interruptible
from lightssl.pipeline.apart import ask
from lightssl.pipeline.asked import leading
from lightssl.pipeline.study_question import RESULTS, SECTION, Job, StudyQuestion
from lightssl.pipeline.study_reporting import study_report
from lightssl.progress import Bar, Narrator
from lightssl.search.jobs import ERROR, JOB, Jobs, Place, counted, ended, open_jobs
from lightssl.search.task import Stopped
from lightssl.study.table import Row, facts_of, write_table

_MAIN = "main"  # the worker that runs the study; those that join have names of their own
_RESULT = "result"  # what a job's trial holds besides what the queue gives it


class StudyWork:
    """A study in its folder.

    Args:
        question: What is asked.
        folder: Of the study.
        train: Images to pre-train on.
        directory: Where the study was started: relative paths of images are of it.
        storage: URL of the database, if it is not in the folder.
        name: In the database; it stays when the folder is renamed.
        narrator: Told how it goes.
    """

    def __init__(
        self,
        question: StudyQuestion,
        folder: Path,
        *,
        train: str,
        directory: Path,
        storage: str | None,
        name: str,
        narrator: Narrator,
    ) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(
                "A study trains each of its networks in one process.",
                f"Start it without torchrun, and have others help: lightssl study run --join {folder}",
            )
        self.question, self.folder, self.narrator = question, folder, narrator
        self._train, self._directory, self._storage, self._name = train, directory, storage, name

    @property
    def section(self) -> Path:
        """Where everything lies."""
        return self.folder / SECTION

    def start(self, **chosen_by: Any) -> None:
        """Write down what is asked, and how the members were chosen."""
        make_folder(self.section)
        open_jobs(self._place(join=False), SECTION)  # refuses that of another study
        asked = {
            "question": asdict(self.question),
            "train": self._train,
            "directory": str(self._directory),
            "storage": self._storage,
            "name": self._name,
            **chosen_by,
        }
        write_json(self.section / "study.json", {"asked": asked})

    def work(self, *, join: bool = False, retry: bool = False, deadline: float = math.inf) -> dict[str, Any] | None:
        """Do jobs until none is left; then report, unless another process does.

        Raises:
            LightSSLError: Another process leads the work already.
        """
        with nullcontext() if join else leading(self.folder, SECTION):
            return self._work(join=join, retry=retry, deadline=deadline)

    def _work(self, *, join: bool, retry: bool, deadline: float) -> dict[str, Any] | None:
        question = self.question
        place = self._place(join=join)
        jobs = Jobs(open_jobs(place, SECTION), place)
        if not join:
            jobs.plan([name, 0] for name in question.jobs)
        if retry:
            jobs.plan(
                [name, len(attempts)] for name, attempts in _attempts(jobs.study).items() if _failed(attempts[-1])
            )
        self.narrator.say(
            f"{len(question.jobs)} networks to be trained on {self._train} and judged on "
            f"{', '.join(question.downstream)}, in {self.section}"
        )

        def do(trial: Trial, _done: int) -> float:
            result = self._measure(question.jobs[trial.user_attrs[JOB][0]], deadline)
            trial.set_user_attr(_RESULT, result)
            return mean(row["top1"] for row in result["rows"]) if result["rows"] else 0.0

        def keep() -> None:
            # One worker at a time, or one could write what another already knew more of.
            with locked(self.section / ".results"):
                write_table(self.section / RESULTS, self._rows(jobs.study))

        try:
            jobs.work(
                do,
                self.narrator,
                "Networks",
                total=len(counted(jobs.study)),
                after=keep,
                stop=lambda: time.monotonic() > deadline,
            )
        except Stopped:
            keep()
            how = "--join" if join else "--resume"
            self.narrator.say(f"Stopped. Go on with: lightssl study run {how} {self.folder}")
            return None
        keep()
        return None if join else study_report(self.folder, narrator=self.narrator)

    def _measure(self, job: Job, deadline: float) -> dict[str, Any]:
        """Train and evaluate one network in a process of its own: see :mod:`lightssl.pipeline.study_job`."""
        asked = {
            "recipe": dump(job.recipe),
            "train": self._train,
            "folder": str((self.section / "networks" / job.name).resolve()),
            "downstream": self.question.downstream,
            "tasks": self.question.tasks,
        }
        with interruptible() as interrupted:
            try:
                return ask(
                    "lightssl.pipeline.study_job",
                    asked,
                    _Named(self.narrator, job.name),
                    directory=self._directory,
                    stop=lambda: interrupted() or time.monotonic() > deadline,
                )
            except (ConfigError, CheckpointError) as error:  # of this network alone
                raise TrainingError(str(error)) from error

    def _rows(self, study: Study) -> list[Row]:
        """Return what is known so far: a row for each network that is done with, scenario and task."""
        found = []
        attempts = _attempts(study)
        for name, job in self.question.jobs.items():
            if name not in attempts:
                continue
            results = [trial.user_attrs.get(_RESULT, {}) for trial in attempts[name]]
            # Later attempts count, but what an earlier one has measured is not lost where they fail.
            measured = {(row["scenario"], row["task"]): row for result in results for row in result.get("rows", [])}
            minutes = [result["minutes"] for result in results if "minutes" in result]
            failed = attempts[name][-1].user_attrs.get(ERROR)
            for scenario, task in product(self.question.downstream, self.question.tasks):
                row = measured.get((scenario, task), {})
                error = failed or results[-1].get("missing", {}).get(scenario)
                found.append(
                    Row(
                        **facts_of(job.member, self.question.cost_of(job.member)),
                        recipe=job.training.recipe,
                        method=self.question.methods[job.training.recipe],
                        seed=job.seed,
                        scenario=scenario,
                        task=task,
                        top1=row.get("top1"),
                        error=error if not row else None,
                        cv_top1=row.get("cv_top1"),
                        minutes=minutes[-1] if minutes else None,
                    )
                )
        return found

    def _place(self, *, join: bool) -> Place:
        return Place(
            storage=self._storage or f"sqlite:///{(self.section / 'jobs.db').resolve()}",
            name=self._name,
            question=self.question.digest,
            worker=uuid4().hex if join else _MAIN,
            leads=not join,
        )


def _attempts(study: Study) -> dict[str, list[FrozenTrial]]:
    """Return the trials of each network that is done with, from the first attempt to the last."""
    found: dict[str, dict[int, FrozenTrial]] = {}
    for trial in ended(study):
        name, attempt = trial.user_attrs[JOB]
        found.setdefault(name, {})[attempt] = trial
    return {name: [trials[attempt] for attempt in sorted(trials)] for name, trials in found.items()}


def _failed(trial: FrozenTrial) -> bool:
    """Tell whether anything of a network could not be measured."""
    return ERROR in trial.user_attrs or bool(trial.user_attrs[_RESULT]["missing"])


class _Named:
    """Narrates what a network is at, with its name, and leaves the rest out.

    Args:
        narrator: Told.
        name: Of the network.
    """

    def __init__(self, narrator: Narrator, name: str) -> None:
        self._narrator, self._name = narrator, name

    def say(self, text: str) -> None:
        """Drop the line."""

    def work(self, title: str, total: int) -> AbstractContextManager[Bar]:
        """Give a bar with the name."""
        return self._narrator.work(f"{self._name}: {title}", total)
