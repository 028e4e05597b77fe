"""Which candidates are looked at; what was found of them is kept as :mod:`lightssl.search.storage` says."""

from collections.abc import Callable, Mapping
from math import ceil, isfinite

import numpy as np
from numpy.random import Generator
from optuna.samplers import NSGAIISampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from lightssl.errors import TrainingError
from lightssl.interrupts import interruptible
from lightssl.search.budget import bring_within
from lightssl.search.scores import Scorer
from lightssl.search.spaces import Candidate
from lightssl.search.storage import open_storage, trials_in
from lightssl.search.task import Scored, Stopped, Task

_COST_STEP = 0.05  # of a limit
_ATTEMPTS = 20  # at a candidate that nobody has looked at yet: a small budget may have few

# What the study holds besides scores and costs. A candidate is one text and not one parameter a gene, since each is a
# transaction of its own.
_PROPOSAL, _SCORES = "proposal", "scores"


Draw = Callable[[int, Generator], np.ndarray]
"""From the number of candidates proposed before and a source of chance to genes [1, G]."""


def explore(
    task: Task,
    score: Scorer,
    *,
    candidates: int,
    population: int | None = None,
    mutation: float = 0.0,
    draw: Draw | None = None,
) -> list[Scored]:
    """Propose candidates within the budget and score them, until as many as asked for are in the storage.

    Candidates evolve by NSGA-II (Deb et al. 2002): for a high score, and for a low cost of each kind that is limited,
    as far as costs differ by a twentieth of the budget. Optuna chooses the parents. Two of them are crossed stage by
    stage, the child is mutated, and then changed until it uses up 95 to 100 % of the budget. What is drawn depends on
    the seed and on how many were proposed before.

    Args:
        task: What is searched for.
        score: Of a candidate.
        candidates: How many, over all workers and what was scored before.
        population: Candidates in a generation. None for a single generation, drawn at random.
        mutation: Probability with which each choice of a child is drawn anew.
        draw: Where candidates without parents come from; by default every gene is drawn evenly.

    Returns:
        The stock networks, then every candidate in the order of proposal.

    Raises:
        LightSSLError: The storage cannot be used, or belongs to another search.
        TrainingError: A score is not finite.
        Stopped: The user stopped it; what was scored is in the storage.
    """
    sampler = NSGAIISampler(population_size=max(2, population or candidates + 1))
    study = open_study(task, sampler)
    _give_up_unfinished(study, task.worker)
    stock = [_scored(candidate, score(candidate), proposed=False) for candidate in task.stock.values()]
    with task.narrator.work("Scoring candidates", candidates) as bar, interruptible() as interrupted:
        while len(_complete(study)) < candidates:
            if interrupted():
                raise Stopped
            trial = study.ask()
            candidate = _propose(task, study, sampler, trial, mutation, draw)
            trial.set_user_attr(_PROPOSAL, {"candidate": str(candidate), "worker": task.worker})
            scores = score(candidate)
            if not isfinite(scores["score"]):
                raise TrainingError(f"The score of {candidate} is {scores['score']}.", "Choose another score or seed.")
            trial.set_user_attr(_SCORES, dict(scores))
            study.tell(trial, [scores["score"], *_steps_of_costs(task, candidate)])
            done = _complete(study)
            bar(len(done), f"score {scores['score']:.4f}, best {max(other.values[0] for other in done):.4f}")
    return [*stock, *(_scored(_candidate(task, trial), trial.user_attrs[_SCORES]) for trial in _complete(study))]


def open_study(task: Task, sampler: NSGAIISampler | None = None) -> Study:
    """Open what was kept of a search, or begin it.

    Raises:
        LightSSLError: The storage cannot be used.
        ConfigError: It belongs to another search.
    """
    directions = [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * len(task.limits)]
    return open_storage(task.storage, task.name, task.question, directions=directions, sampler=sampler)


def _give_up_unfinished(study: Study, worker: str) -> None:
    """Give up what this worker was scoring when it was killed."""
    for trial in trials_in(study, TrialState.RUNNING):
        if trial.user_attrs.get(_PROPOSAL, {}).get("worker") == worker:
            study.tell(trial.number, state=TrialState.FAIL)


def _propose(
    task: Task, study: Study, sampler: NSGAIISampler, trial: Trial, mutation: float, draw: Draw | None
) -> Candidate:
    space = task.table.space
    everything = study.get_trials(deepcopy=False)
    earlier = [other for other in everything if other.number < trial.number and _PROPOSAL in other.user_attrs]
    # Others take the place of those that were given up: a search that was stopped goes on as it would have.
    counted = sum(other.state != TrialState.FAIL for other in earlier)
    generator = np.random.default_rng((task.seed, counted))
    generation = sampler.get_trial_generation(study, everything[trial.number])
    parents = [space.encode(_candidate(task, other)) for other in sampler.get_parent_population(study, generation)]
    known = {other.user_attrs[_PROPOSAL]["candidate"] for other in earlier if other.state != TrialState.FAIL}
    for _ in range(_ATTEMPTS):
        if len(parents) > 1:
            first, second = (parents[i][None] for i in generator.choice(len(parents), size=2, replace=False))
            child = space.mutate(generator, space.cross(generator, first, second), rate=mutation)
        else:
            child = draw(counted, generator) if draw is not None else space.sample(generator, 1)
        (genes,) = bring_within(task.table, task.limits, generator, child)
        candidate = space.decode(genes)
        if str(candidate) not in known:
            break
    return candidate


def _candidate(task: Task, trial: FrozenTrial) -> Candidate:
    return task.table.space.parse(trial.user_attrs[_PROPOSAL]["candidate"])


def _steps_of_costs(task: Task, candidate: Candidate) -> list[float]:
    """Return what a candidate costs of each thing that is limited, in twentieths of the limit, rounded up.

    Less does not count (epsilon-dominance, Laumanns et al. 2002): all candidates use up a limit, and one that scores
    badly is not to have children for being a little cheaper.
    """
    costs = task.table.named(candidate)
    return [float(ceil(round(costs[name] / (_COST_STEP * limit), 6))) for name, limit in task.limits.items()]


def _complete(study: Study) -> list[FrozenTrial]:
    return trials_in(study, TrialState.COMPLETE)


def _scored(candidate: Candidate, scores: Mapping[str, float], *, proposed: bool = True) -> Scored:
    return Scored(candidate, scores["score"], scores, proposed)
