"""A first request to stop is a question between steps, a second one ends the work."""

import signal
from threading import Thread

import pytest

from lightssl.interrupts import interruptible


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_the_first_request_waits_for_the_loop_and_the_second_does_not(asked: signal.Signals) -> None:
    before = signal.getsignal(asked)
    with interruptible() as interrupted:
        assert not interrupted()
        signal.raise_signal(asked)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(asked)
    assert signal.getsignal(asked) is before


def test_other_threads_leave_signals_alone() -> None:
    before, found = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with interruptible() as interrupted:
            found.extend([interrupted(), signal.getsignal(signal.SIGINT) is before])

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False, True]
