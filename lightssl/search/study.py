"""Which candidates are looked at, and where what was found of them is kept: an Optuna study in a database.

The database remembers every candidate, so that a search goes on where it was stopped, and several workers can share it.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
import optuna
from numpy.random import Generator
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.storages import RDBStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from lightssl.errors import ConfigError, LightSSLError, TrainingError
from lightssl.search.budget import bring_within, sample_within
from lightssl.search.scores import Scorer
from lightssl.search.spaces import Candidate
from lightssl.search.task import Scored, Stopped, Task
from lightssl.train.loop import interruptible

_SQLITE_TIMEOUT_S = 60.0  # that a worker waits for another one to finish writing
_QUESTION, _WORKER, _SCORES = "question", "worker", "scores"


def explore(
    task: Task, score: Scorer, *, candidates: int, population: int | None = None, mutation: float = 0.0
) -> list[Scored]:
    """Propose candidates within the budget and score them, until as many as asked for are in the storage.

    Args:
        task: What is searched for.
        score: Of a candidate.
        candidates: How many, over all workers and what was scored before.
        population: Candidates in a generation: those after the first have good ones as parents. None for a single
            generation, drawn at random.
        mutation: Probability with which each choice of a child is drawn anew.

    Returns:
        Every candidate in the order of proposal, and the stock networks, which are in no budget, before them.

    Raises:
        LightSSLError: The storage cannot be used, or belongs to another search.
        TrainingError: A score is not finite.
        Stopped: The user stopped it; what was scored is in the storage.
    """
    study = open_study(task, _WithinBudget(task, population=population or candidates + 1, mutation=mutation))
    _give_up_unfinished(study, task.worker)
    choices = _choices(task)
    stock = [_scored(candidate, score(candidate), proposed=False) for candidate in task.stock.values()]
    with task.narrator.work("Scoring candidates", candidates) as bar, interruptible() as interrupted:
        while (done := len(_complete(study))) < candidates:
            if interrupted():
                raise Stopped
            trial = study.ask(choices)
            trial.set_user_attr(_WORKER, task.worker)
            genes = _genes(trial.params)
            candidate = task.table.space.decode(genes)
            scores = dict(score(candidate))
            if not isfinite(scores["score"]):
                raise TrainingError(f"The score of {candidate} is {scores['score']}.", "Choose another score or seed.")
            trial.set_user_attr(_SCORES, scores)
            study.tell(trial, [scores["score"], *_prices(task, genes)])
            bar(done + 1, f"score {scores['score']:.4f}, best {max(t.values[0] for t in _complete(study)):.4f}")
    found = [
        _scored(task.table.space.decode(_genes(trial.params)), trial.user_attrs[_SCORES]) for trial in _complete(study)
    ]
    return [*stock, *found]


def open_study(task: Task, sampler: BaseSampler) -> Study:
    """Open what was kept of a search, or begin it.

    Raises:
        LightSSLError: The storage cannot be used, or belongs to another search.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    arguments = {"connect_args": {"timeout": _SQLITE_TIMEOUT_S}} if task.storage.startswith("sqlite:") else {}
    try:
        storage = RDBStorage(task.storage, engine_kwargs=arguments)
        study = optuna.create_study(
            storage=storage,
            study_name=task.name,
            directions=[StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * len(task.limits)],
            sampler=sampler,
            load_if_exists=True,
        )
        if _QUESTION not in study.user_attrs and not study.trials:
            study.set_user_attr(_QUESTION, task.question)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise LightSSLError(
            f"The storage {task.storage} cannot be used: {str(error).strip().splitlines()[0]}",
            "Give the URL of a database as SQLAlchemy writes it, such as sqlite:///search.db, or leave it out.",
        ) from error
    if study.user_attrs.get(_QUESTION) != task.question:
        raise ConfigError(
            f"The storage {task.storage} holds another search by the name {task.name!r}.",
            "Go on with that one by its folder, or name another folder with --out.",
        )
    return study


class _WithinBudget(NSGAIISampler):
    """NSGA-II (Deb et al. 2002) over the genes of a space, whose every proposal lies within the budget.

    Optuna chooses the parents. Two of them are crossed stage by stage, the child is mutated, and then changed until it
    uses up the budget. What is drawn depends on the seed and on how many were proposed before.
    """

    def __init__(self, task: Task, *, population: int, mutation: float) -> None:
        super().__init__(population_size=max(2, population))
        self._task, self._mutation = task, mutation

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return all genes: none is drawn on its own."""
        return dict(_choices(self._task))

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose a candidate: the index of each gene's choice."""
        earlier = [t for t in study.get_trials(deepcopy=False) if t.number < trial.number]
        # Others take the place of those that were given up: a search that was stopped goes on as it would have.
        proposed = sum(t.state != TrialState.FAIL for t in earlier)
        generator = np.random.default_rng((self._task.seed, proposed))
        parents = self.get_parent_population(study, self.get_trial_generation(study, trial))
        known = {tuple(_genes(t.params)) for t in earlier if t.params}
        return dict(zip(search_space, self._propose(generator, parents, known).tolist(), strict=True))

    def _propose(self, generator: Generator, parents: Sequence[FrozenTrial], known: set[tuple[int, ...]]) -> np.ndarray:
        """Draw until a candidate is new, but not forever: a small budget may have few."""
        task = self._task
        for _ in range(_ATTEMPTS):
            if len(parents) < 2:
                (genes,) = sample_within(task.table, task.limits, generator, 1)
            else:
                chosen = generator.choice(len(parents), size=2, replace=False)
                first, second = (_genes(parents[i].params)[None] for i in chosen)
                child = task.table.space.cross(generator, first, second)
                child = task.table.space.mutate(generator, child, rate=self._mutation)
                (genes,) = bring_within(task.table, task.limits, generator, child)
            if tuple(genes) not in known:
                break
        return genes


_ATTEMPTS = 20


def _choices(task: Task) -> dict[str, BaseDistribution]:
    """Return the genes of the space by the names that they have in the study."""
    return {f"gene_{i:02d}": IntDistribution(0, int(size) - 1) for i, size in enumerate(task.table.space.gene_sizes)}


def _genes(parameters: dict[str, Any]) -> np.ndarray:
    return np.array([parameters[name] for name in sorted(parameters)])


def _prices(task: Task, genes: np.ndarray) -> list[float]:
    """Return what a candidate costs of each thing that is limited."""
    prices = task.table.prices(genes[None])[0]
    return [float(prices[task.table.names.index(name)]) for name in task.limits]


def _complete(study: Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _give_up_unfinished(study: Study, worker: str) -> None:
    """Give up what this worker was scoring when it was killed."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get(_WORKER) == worker:
            study.tell(trial.number, state=TrialState.FAIL)


def _scored(candidate: Candidate, scores: Mapping[str, float], *, proposed: bool = True) -> Scored:
    return Scored(candidate, scores["score"], scores, proposed)
