"""Where what was tried is kept: an Optuna study in a database.

The database remembers everything, so that work goes on where it was stopped, and several workers can share it.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import Engine, event, make_url
from sqlalchemy.exc import SQLAlchemyError

from lightssl.errors import ConfigError, LightSSLError

_SQLITE_TIMEOUT_S = 60.0  # that a worker waits for another one to finish writing
_QUESTION = "question"
WORKER = "worker"  # attribute of a trial: who is at it


@dataclass(frozen=True)
class Heartbeat:
    """How often a worker says that it is alive, and after what silence others take over what it was at."""

    every_s: int = 30
    grace_s: int = 120

    def options(self) -> dict[str, Any]:
        """Return the options of Optuna's storage: what nobody works on any more is queued again, as far as it was."""
        return {
            "heartbeat_interval": self.every_s,
            "grace_period": self.grace_s,
            "heartbeat_stale_trial_callback": lambda study, trial: go_on_as(study, trial, TrialState.WAITING),
        }

    @contextmanager
    def of(self, trial: Trial) -> Iterator[None]:
        """Say that the worker of a trial is alive while the block runs."""
        done = Event()

        def beat() -> None:
            while True:
                with suppress(StorageInternalError):  # a busy database; the next beat is as good
                    trial.storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
                if done.wait(self.every_s):
                    return

        thread = Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def open_storage(
    url: str,
    name: str,
    question: str,
    *,
    directions: Sequence[StudyDirection],
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
    what: str = "search",
    heartbeat: Heartbeat | None = None,
) -> Study:
    """Open what was kept, or begin it.

    Args:
        url: Of the database.
        name: Of the study in it.
        question: What is asked, which the study in the database must have been asked as well.
        directions: Whether each value of a trial should be high or low.
        sampler: Proposes.
        pruner: Gives up early.
        what: What the study belongs to, as an error says it.
        heartbeat: How a worker that was killed is told from one that is busy; None where that does not matter.

    Raises:
        LightSSLError: The storage cannot be used.
        ConfigError: It belongs to something else, or its URL holds a password.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _refuse_password(url)
    engine = {"connect_args": {"timeout": _SQLITE_TIMEOUT_S}} if url.startswith("sqlite:") else {}
    try:
        with quiet():
            kept = RDBStorage(url, engine_kwargs=engine, **(heartbeat.options() if heartbeat is not None else {}))
        if kept.engine.dialect.name == "sqlite":
            _lock_before_reading(kept.engine)
        study = optuna.create_study(
            storage=kept,
            study_name=name,
            directions=list(directions),
            sampler=sampler,
            pruner=pruner,
            load_if_exists=True,
        )
        if _QUESTION not in study.user_attrs and not study.trials:
            study.set_user_attr(_QUESTION, question)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise LightSSLError(
            f"The storage {url} cannot be used: {str(error).strip().splitlines()[0]}",
            "Give the URL of a database as SQLAlchemy writes it, such as sqlite:///search.db, or leave it out.",
        ) from error
    if study.user_attrs.get(_QUESTION) != question:
        raise ConfigError(
            f"The storage {url} holds another {what} by the name {name!r}.",
            "Go on with that one by its folder, or name another folder with --out.",
        )
    return study


def _lock_before_reading(engine: Engine) -> None:
    """Begin every transaction of SQLite with its lock.

    Python's sqlite3 begins them at the first change. Optuna reads before that whether a trial is waiting, so that two
    workers could both see that it is, and both take it. Other databases lock the row.
    """

    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy alone begins transactions

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    engine.dispose()  # those that are connected already


def _refuse_password(url: str) -> None:
    with suppress(SQLAlchemyError):  # opening it says what is wrong with it
        if make_url(url).password is not None:
            raise ConfigError(
                "The URL of the storage holds a password, which would be kept in the folder of the run.",
                "Leave it out, and give it as the database's client reads it: PGPASSWORD or ~/.pgpass for PostgreSQL, "
                "?read_default_file=~/.my.cnf at the end of the URL for MySQL.",
            )


@contextmanager
def quiet() -> Iterator[None]:
    """Drop Optuna's warnings that its heartbeat is experimental, and made for its own loop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def go_on_as(study: Study, trial: FrozenTrial, state: TrialState, **attributes: Any) -> int:
    """Put another trial in the place of one that has failed, with all that is known of it but who was at it.

    Args:
        study: Of the trials.
        trial: The one that has failed.
        state: Of the other.
        attributes: That it has besides.

    Returns:
        The id of the other trial, whose ``failed_trial`` is the number of the first in this place.
    """
    other = optuna.create_trial(
        state=state,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={key: value for key, value in trial.user_attrs.items() if key != WORKER} | attributes,
        system_attrs={"failed_trial": trial.number, **trial.system_attrs},
        intermediate_values=trial.intermediate_values,
    )
    return study._storage.create_new_trial(study._study_id, template_trial=other)


def trials_in(study: Study, *states: TrialState) -> list[FrozenTrial]:
    """Return the trials that are in one of these states, in the order of proposal."""
    return study.get_trials(deepcopy=False, states=states)
