"""Workers that share a database."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import pytest
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from lightssl.search.storage import open_storage, trials_in


def test_of_two_workers_at_the_same_moment_one_takes_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    workers = [open_storage(url, "jobs", "what", directions=[StudyDirection.MAXIMIZE]) for _ in range(2)]
    workers[0].enqueue_trial({})
    both, check = Barrier(2), RDBStorage.check_trial_is_updatable

    def meeting(*arguments: object) -> None:
        """Wait, between reading that the trial is waiting and writing that it is not, until the other is as far."""
        with suppress(BrokenBarrierError):  # the other one is kept from reading
            both.wait(timeout=2)
        check(*arguments)

    monkeypatch.setattr(RDBStorage, "check_trial_is_updatable", meeting)
    with ThreadPoolExecutor(2) as pool:
        taken = list(pool.map(lambda study: study._pop_waiting_trial_id(), workers))
    assert sorted(one is None for one in taken) == [False, True]
    assert len(trials_in(workers[0], TrialState.RUNNING)) == 1
