"""Work in a process of its own: what it answers, how it fails, and that nothing of it is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lightssl.errors import ConfigError, DataError, TrainingError
from lightssl.pipeline.apart import ask
from lightssl.progress import Bar
from lightssl.search.task import Stopped

WORK = """
import multiprocessing, os, signal, sys, time
from pathlib import Path
from lightssl.errors import ConfigError, DataError
from lightssl.pipeline.apart import answer

def work(asked, narrator):
    {body}

if __name__ == "__main__":
    answer(work)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a module whose work is as given, and return its name."""

    def write(*lines: str) -> str:
        (tmp_path / "some_work.py").write_text(WORK.format(body="\n    ".join(lines)))
        return "some_work"

    paths = [str(tmp_path), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    return write


class Listener:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def say(self, text: str) -> None:
        self.told.append(text)

    @contextmanager
    def work(self, title: str, total: int) -> Iterator[Bar]:
        self.told.append(("begin", title, total))
        yield lambda done, status="": self.told.append((done, status))
        self.told.append(("end", title))


def test_it_answers_and_tells_how_it_goes(module: Callable[..., str]) -> None:
    name = module(
        "print('of a library')",
        "narrator.say('now')",
        "with narrator.work('Counting', 2) as bar:",
        "    bar(1, 'half')",
        "    bar(2)",
        "return {'doubled': 2 * asked['number'], 'alone': os.getpid() != asked['pid']}",
    )
    listener = Listener()
    assert ask(name, {"number": 21, "pid": os.getpid()}, listener) == {"doubled": 42, "alone": True}
    assert listener.told == ["now", ("begin", "Counting", 2), (1, "half"), (2, ""), ("end", "Counting")]


@pytest.mark.parametrize("kind", [ConfigError, DataError])
def test_its_errors_are_raised_here(module: Callable[..., str], kind: type) -> None:
    name = module("with narrator.work('Counting', 2) as bar:", f"    raise {kind.__name__}('No.', 'Do this.')")
    listener = Listener()
    with pytest.raises(kind) as caught:
        ask(name, {}, listener)
    assert (caught.value.message, caught.value.hint) == ("No.", "Do this.")
    assert listener.told == [("begin", "Counting", 2), ("end", "Counting")]


def test_errors_of_other_modules_come_as_what_they_are_derived_from(module: Callable[..., str]) -> None:
    name = module("from lightssl.data.paths import NoTestSplitError", "raise NoTestSplitError('No test images.')")
    with pytest.raises(DataError, match="No test images"):
        ask(name, {})


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended by signal 9"),
        ("raise MemoryError('of 8 GiB')", "MemoryError: of 8 GiB"),
        ("sys.exit()", "did not come to an end"),
    ],
)
def test_its_death_is_an_error_that_says_why(module: Callable[..., str], line: str, why: str) -> None:
    with pytest.raises(TrainingError, match=why):
        ask(module(line), {})


def test_it_is_told_to_stop(module: Callable[..., str], tmp_path: Path) -> None:
    name = module(f"Path({str(tmp_path / 'begun')!r}).touch()", "time.sleep(60)")
    with pytest.raises(Stopped):
        ask(name, {}, stop=(tmp_path / "begun").exists)


STARTS_ANOTHER = (
    "other = multiprocessing.get_context('fork').Process(target=time.sleep, args=(600,))",
    "other.start()",
    "Path(asked['file']).write_text(str(other.pid))",
)


def test_its_death_takes_what_it_started_along(module: Callable[..., str], tmp_path: Path) -> None:
    name = module(*STARTS_ANOTHER, "os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(TrainingError, match="signal 9"):
        ask(name, {"file": str(tmp_path / "pid")})
    assert gone(int((tmp_path / "pid").read_text()))


def test_it_ends_when_whoever_asked_is_killed(module: Callable[..., str], tmp_path: Path) -> None:
    name = module(*STARTS_ANOTHER, "time.sleep(600)")
    asking = f"from lightssl.pipeline.apart import ask; ask({name!r}, {{'file': {str(tmp_path / 'pid')!r}}})"
    process = subprocess.Popen([sys.executable, "-c", asking])
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    other = int((tmp_path / "pid").read_text())
    assert not gone(other, patience_s=0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gone(other)


def gone(pid: int, patience_s: float = 30) -> bool:
    """Tell whether a process ends in time."""
    deadline = time.monotonic() + patience_s
    while alive(pid):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def alive(pid: int) -> bool:
    try:
        # One that has ended waits as a zombie for whoever inherited it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)
