"""Everything that is proposed lies within the budget; a search that was stopped goes on as if it had not been."""

import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from lightssl.errors import ConfigError, LightSSLError, TrainingError
from lightssl.progress import Silent
from lightssl.search.budget import budget_shares, sample_within
from lightssl.search.cost import CostTable
from lightssl.search.spaces import SPACES, Candidate
from lightssl.search.study import explore
from lightssl.search.task import Scored, Stopped, Task, best

SPACE = replace(SPACES["mobilenetv2"], image_sizes=(224,))
TABLE = CostTable(SPACE)
OPTIONS: dict[str, Any] = {"candidates": 30, "population": 6, "mutation": 0.05}


def kernels(candidate: Candidate) -> dict[str, float]:
    """The more large kernels, the better."""
    return {"score": float(candidate.topology.count("k7") - candidate.topology.count("k3")), "length": 1.0}


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task(
        table=TABLE,
        limits={"flops": 300e6, "parameters": 2.5e6},
        stock={"mobilenetv2": SPACE.candidate(SPACE.stock["mobilenetv2"], 224)},
        seed=0,
        lab=None,  # type: ignore[arg-type]
        storage=f"sqlite:///{tmp_path / 'study.db'}",
        name="test",
        question="kernels",
        worker="main",
        narrator=Silent(),
    )


def proposed(found: list[Scored]) -> list[str]:
    return [str(scored.candidate) for scored in found if scored.proposed]


def elsewhere(task: Task, tmp_path: Path, **changes: Any) -> Task:
    return replace(task, storage=f"sqlite:///{tmp_path / 'other.db'}", **changes)


def test_all_proposals_are_within_the_budget_and_get_better(task: Task, tmp_path: Path) -> None:
    found = explore(task, kernels, **OPTIONS)
    genes = [SPACE.encode(scored.candidate) for scored in found if scored.proposed]
    shares = budget_shares(TABLE, task.limits, np.array(genes))
    assert len(shares) == 30
    assert shares.min() >= 0.95
    assert shares.max() <= 1.0
    assert len(set(proposed(found))) == 30
    scores = [scored.score for scored in found if scored.proposed]
    assert sum(scores[-6:]) > sum(scores[:6])
    assert best(found).score == max(scores)
    assert [scored.scores["length"] for scored in found] == [1.0] * 31
    (stock,) = (scored for scored in found if not scored.proposed)
    assert stock.candidate == task.stock["mobilenetv2"]

    assert proposed(explore(elsewhere(task, tmp_path), kernels, **OPTIONS)) == proposed(found)
    other = proposed(explore(replace(task, name="seed 1", seed=1), kernels, **OPTIONS))
    assert not set(other) & set(proposed(found))


def test_without_a_population_all_are_drawn(task: Task) -> None:
    found = proposed(explore(task, kernels, candidates=8))
    drawn = [sample_within(TABLE, task.limits, np.random.default_rng((0, i)), 1)[0] for i in range(8)]
    assert found == [str(SPACE.decode(genes)) for genes in drawn]


def test_what_is_drawn_otherwise_is_brought_into_the_budget(task: Task) -> None:
    """The stock network exceeds the parameters; what is drawn within the budget stays as it is."""
    within = sample_within(TABLE, task.limits, np.random.default_rng(7), 3)
    stock = SPACE.encode(task.stock["mobilenetv2"])

    def draw(number: int, generator: np.random.Generator) -> np.ndarray:
        return within[number : number + 1] if number < 3 else SPACE.step(generator, stock[None], np.array([True]))

    found = proposed(explore(task, kernels, candidates=4, draw=draw))
    assert found[:3] == [str(SPACE.decode(genes)) for genes in within]
    (share,) = budget_shares(TABLE, task.limits, SPACE.encode(SPACE.parse(found[3]))[None])
    assert 0.95 <= share <= 1.0


@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_a_stopped_search_ends_as_one_that_was_not(how: str, task: Task, tmp_path: Path) -> None:
    whole = proposed(explore(elsewhere(task, tmp_path), kernels, **OPTIONS))
    calls = 0

    def stopping(candidate: Candidate) -> Mapping[str, float]:
        nonlocal calls
        calls += 1
        if calls == 10 and how == "killed":
            raise MemoryError
        if calls == 10:
            signal.raise_signal(signal.SIGTERM)
        return kernels(candidate)

    with pytest.raises(MemoryError if how == "killed" else Stopped):
        explore(task, stopping, **OPTIONS)
    assert proposed(explore(task, kernels, **OPTIONS)) == whole


def test_workers_share_a_storage_and_leave_each_others_candidates_alone(task: Task) -> None:
    other = replace(task, worker="another")

    def helped(candidate: Candidate) -> Mapping[str, float]:
        explore(other, kernels, **{**OPTIONS, "candidates": 12})  # while this one is being scored
        return kernels(candidate)

    found = proposed(explore(replace(task, stock={}), helped, **OPTIONS))
    assert len(found) == len(set(found)) == 30


def test_the_storage_of_another_search_is_refused(task: Task) -> None:
    explore(task, kernels, candidates=1)
    with pytest.raises(ConfigError, match="holds another search by the name 'test'"):
        explore(replace(task, question="other"), kernels, candidates=2)


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/folder/study.db", "mysterydb://host/x"])
def test_a_storage_that_cannot_be_used_is_named(task: Task, url: str) -> None:
    with pytest.raises(LightSSLError, match="cannot be used"):
        explore(replace(task, storage=url), kernels, candidates=1)


def test_a_password_is_refused_before_anything_could_keep_it(task: Task) -> None:
    with pytest.raises(ConfigError, match="holds a password") as refused:
        explore(replace(task, storage="postgresql://me:secret@host/searches"), kernels, candidates=1)
    assert "secret" not in str(refused.value)


def test_a_score_that_is_no_number_ends_the_search(task: Task) -> None:
    with pytest.raises(TrainingError, match=r"The score of mobilenetv2@224 .* is nan"):
        explore(replace(task, stock={}), lambda _: {"score": float("nan")}, candidates=1)


def test_the_study_is_one_that_optuna_reads(task: Task) -> None:
    found = explore(task, kernels, candidates=3)
    study = optuna.load_study(study_name="test", storage=task.storage)
    scored = [scored for scored in found if scored.proposed]
    assert [trial.values[0] for trial in study.trials] == [each.score for each in scored]
    for trial, each in zip(study.trials, scored, strict=True):
        cost = TABLE.cost(each.candidate)
        shares = (cost.flops / 300e6, cost.parameters / 2.5e6)
        assert trial.values[1:] == [next(step for step in range(21) if share <= step / 20) for share in shares]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
