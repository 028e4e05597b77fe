"""How long work tells somebody about itself. The command line draws bars; a library call is silent."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar(Protocol):
    """One piece of work that is under way."""

    def __call__(self, done: int, status: str = "") -> None:
        """Say how much is done, out of the total, and in a few words how it goes."""


class Advance(Protocol):
    """One piece of work that is under way, told in steps."""

    def __call__(self, by: int, status: str = "") -> None:
        """Say how much more is done, and in a few words how it goes."""


def counting(bar: Bar) -> Advance:
    """Return what adds up for a bar how much is done."""
    done = 0

    def advance(by: int, status: str = "") -> None:
        nonlocal done
        done += by
        bar(done, status)

    return advance


class Narrator(Protocol):
    """Whoever is told."""

    def say(self, text: str) -> None:
        """Tell one line."""

    def work(self, title: str, total: int) -> AbstractContextManager[Bar]:
        """Surround a piece of work of ``total`` parts; gives its :class:`Bar`."""


class Silent:
    """Tells nobody."""

    def say(self, text: str) -> None:
        """Drop the line."""

    @contextmanager
    def work(self, title: str, total: int) -> Iterator[Bar]:
        """Give a bar that nobody sees."""
        yield lambda done, status="": None
